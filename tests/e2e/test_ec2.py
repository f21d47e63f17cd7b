"""The commands of docs/EC2.md, one after the other, from a clone: against moto, a real registry, and host containers.

Takes minutes: `make test-deploy` runs it. The tests are steps of one story, in their order.
"""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e import test_ec2_host
from tests.support.deploy import ecr as ecr_support
from tests.support.deploy.aws import AwsServer
from tests.support.deploy.compose import caddy_image, reason_to_skip
from tests.support.deploy.ec2_cloud import CIDR, Clone, Cloud
from tests.support.deploy.ec2_host import docker, loop_device
from tests.support.deploy.ecr import Ecr
from tests.support.waiting import wait_until

_REASON = reason_to_skip() or ecr_support.reason_to_skip()
pytestmark = [pytest.mark.deploy, pytest.mark.skipif(bool(_REASON), reason=f"no stand-in for a host: {_REASON}")]

compose_url = test_ec2_host.compose_url


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsServer]:
    with AwsServer("0.0.0.0") as aws:
        yield aws


@pytest.fixture(scope="module")
def ecr(aws: AwsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ecr]:
    with Ecr(tmp_path_factory.mktemp("ecr"), aws.port).serving() as ecr:
        yield ecr


@pytest.fixture(scope="module")
def cloud(aws: AwsServer, ecr: Ecr, compose_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with loop_device(tmp_path_factory.mktemp("volume") / "volume") as device:
        cloud = Cloud(aws, ecr, device, compose_url)
        yield cloud
        cloud.end()


@pytest.fixture(scope="module")
def clone(aws: AwsServer, ecr: Ecr, cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    with caddy_image(tmp_path_factory.mktemp("caddy")):  # the edge is built from it
        yield Clone(tmp_path_factory.mktemp("clone"), aws, ecr)
    images = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={ecr.host}/*").stdout
    docker("rmi", *images.split(), check=False)


@pytest.fixture(scope="module")
def first(clone: Clone) -> str:
    """The tag that was pushed first."""
    return clone.push()


@pytest.fixture(scope="module")
def curl(clone: Clone, first: str) -> str:
    """The line that the first `up` has printed."""
    ready, curl = clone.up().stdout.splitlines()
    assert ready.startswith(f"ready: {first} at http://127.")
    return curl


@pytest.fixture(scope="module")
def http(curl: str) -> Iterator[httpx.Client]:
    """Of a client that has what `up` has printed."""
    key, url = re.search(r"Bearer (\S+)'.* (http://\S+)/predict", curl).groups()  # type: ignore[union-attr]
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def job(clone: Clone, http: httpx.Client) -> str:
    """Of a result that all later hosts must have."""
    image = (clone.checkout.root / "tests/data/0018-bag.png").read_bytes()
    answer = http.post("/v1/jobs", content=image, headers={"Content-Type": "image/png", "Prefer": "wait=10"})
    assert answer.json()["result"]["class"] == "Bag", answer.text
    return str(answer.headers["Location"])


def class_of(http: httpx.Client, job: str) -> str:
    return str(http.get(f"{job}?wait=30").raise_for_status().json()["result"]["class"])


def test_a_dry_run_before_anything_is_there(clone: Clone, aws: AwsServer) -> None:
    before = aws.made()
    assert "together" in clone("up", "--cidr", CIDR, "--dry-run").stdout
    assert aws.made() == before


def test_the_line_that_up_prints_classifies(clone: Clone, curl: str, job: str, http: httpx.Client) -> None:
    assert '"class":"Shirt"' in clone.shell(f"{curl} --silent").replace(" ", "")
    assert clone.shell(f"{curl} --silent -H 'Authorization: Bearer another'") != ""
    assert httpx.get(f"{http.base_url}/v1/jobs").status_code == 401
    assert class_of(http, job) == "Bag"
    assert "service    classifies at http://127." in clone("status").stdout


def test_exec_runs_on_the_host(clone: Clone, first: str, job: str) -> None:
    assert f"current {first}" in clone("exec", "--", "darkroom-host", "status").stdout
    done = clone("exec", "--", "sh", "-c", "hostname >&2; exit 3", check=False)
    assert (done.returncode, done.stdout) == (3, "")


def test_up_again_changes_nothing(clone: Clone, aws: AwsServer, cloud: Cloud, curl: str, job: str) -> None:
    assert cloud.host is not None
    before, containers = aws.made(), cloud.host.run("docker", "ps", "--quiet").stdout
    assert clone.up().stdout.splitlines()[1] == curl
    assert aws.made() == before
    assert cloud.host.run("docker", "ps", "--quiet").stdout == containers


def test_push_and_up_upgrade_in_place(
    clone: Clone, aws: AwsServer, cloud: Cloud, first: str, curl: str, http: httpx.Client, job: str
) -> None:
    host, before = cloud.host, aws.made()
    clone.checkout.append("Dockerfile.api", "LABEL release=second")
    refused = clone("push", check=False)
    assert "differs from the commit" in refused.stderr
    clone.checkout.commit()
    unpushed = clone.up(check=False)
    assert (unpushed.returncode, unpushed.stdout) == (1, "")
    assert "run `push` first" in unpushed.stderr
    second = clone.push()
    done = clone.up()
    assert f"upgrading {first} to {second}" in done.stderr
    assert done.stdout.splitlines() == [f"ready: {second} at {str(http.base_url).rstrip('/')}", curl]
    assert cloud.host is host
    assert host is not None
    assert host.tag_of("api") == second
    assert {kind: names for kind, names in aws.made().items() if kind != "repositories"} == {
        kind: names for kind, names in before.items() if kind != "repositories"
    }
    assert class_of(http, job) == "Bag"


def test_an_upgrade_that_fails_goes_back(
    clone: Clone, aws: AwsServer, cloud: Cloud, http: httpx.Client, job: str
) -> None:
    assert cloud.host is not None
    running = cloud.host.tag_of("api")
    clone.checkout.append("Dockerfile.api", 'HEALTHCHECK --interval=1s --retries=2 CMD ["false"]')
    clone.checkout.commit()
    broken = clone.push()
    done = clone.up(check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f"darkroom ec2: {broken} did not get healthy: {running} runs again, as before\n")
    assert cloud.host.tag_of("api") == running
    assert aws.client("ssm").get_parameter(Name="/darkroom/tag")["Parameter"]["Value"] == running
    assert cloud.host.tag_of("worker") == running
    assert class_of(http, job) == "Bag"


def test_a_host_that_dies_is_replaced_and_its_jobs_go_on(
    clone: Clone, aws: AwsServer, cloud: Cloud, http: httpx.Client, job: str
) -> None:
    assert cloud.host is not None
    running, died = cloud.host.tag_of("api"), cloud.host.instance
    cloud.host.command("compose", "stop", "worker")
    image = (clone.checkout.root / "tests/data/0007-shirt.png").read_bytes()
    queued = http.post("/v1/jobs", content=image, headers={"Content-Type": "image/png"}).headers["Location"]
    cloud.end()
    assert clone("status", check=False).returncode == 1
    aws.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=died, ShouldDecrementDesiredCapacity=False
    )
    cloud.boot()

    def is_back() -> bool:
        done = clone("status", check=False)
        return done.returncode == 0 and f"current {running}" in done.stdout  # and not what failed

    wait_until(is_back, seconds=600, what="the new host", poll_seconds=1)
    assert cloud.host is not None
    assert cloud.host.instance != died
    assert cloud.host.tag_of("api") == running
    assert (class_of(http, job), class_of(http, queued)) == ("Bag", "Shirt")


def test_down_leaves_the_data_alone_and_then_nothing(clone: Clone, aws: AwsServer, cloud: Cloud, job: str) -> None:
    (volume,) = aws.made()["volumes"]
    clone("down")
    assert cloud.host is None
    left = aws.made()
    repositories = left.pop("repositories")
    assert left == {"volumes": [volume], "parameters": ["/darkroom/environment"]}
    assert {"darkroom-api", "darkroom-redis", "darkroom-worker"} <= set(repositories)
    clone("down")
    assert aws.made() == left | {"repositories": repositories}
    clone("down", "--delete-data", "--yes", "darkroom")
    assert aws.made() == {}
