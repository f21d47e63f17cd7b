"""The boot script and upgrades on containers that stand in for hosts, with real images from a real registry.

Takes minutes: `make test-deploy` runs it. The tests of the module are steps of one story, in their order.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from deploy.ec2.push import push
from tests.support.deploy import ecr as ecr_support
from tests.support.deploy.checkout import Checkout
from tests.support.deploy.compose import caddy_image, reason_to_skip
from tests.support.deploy.ec2_host import Account, Host, docker, is_written, started_host
from tests.support.deploy.ecr import Ecr, serving_ecr
from tests.support.pictures import samples
from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

_REASON = reason_to_skip() or ecr_support.reason_to_skip()
pytestmark = [pytest.mark.deploy, pytest.mark.skipif(bool(_REASON), reason=f"no stand-in for a host: {_REASON}")]

BAG = samples()["0018-bag.png"]
PNG = {"Content-Type": "image/png"}
HEALTHY_SECONDS_MAX = "120"
SERVICES = ("redis", "api", "worker", "outbound", "edge")


class Releases(NamedTuple):
    """Tags in the registry."""

    first: str
    second: str
    broken: str
    """Its API starts, and never gets healthy."""


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ecr]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_BUILDKIT", "0")
        patch.setenv("TORCH_PIP_OPTIONS", "")
        with serving_ecr(tmp_path_factory.mktemp("ecr")) as ecr:
            yield ecr


@pytest.fixture(scope="module")
def releases(ecr: Ecr, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    """Pushed as an operator pushes them, from three commits."""
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))

    def pushed() -> str:
        return push(ecr.session, name="darkroom", arch="amd64", gpu=False, root=checkout.root).tag

    try:
        with caddy_image(tmp_path_factory.mktemp("caddy")):
            first = pushed()
            for image in ("api", "worker"):
                checkout.append(f"Dockerfile.{image}", "LABEL release=second")
            checkout.commit()
            second = pushed()
            checkout.append("Dockerfile.api", 'HEALTHCHECK --interval=1s --retries=2 CMD ["false"]')
            checkout.commit()
            broken = pushed()
        yield Releases(first, second, broken)
    finally:
        images = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={ecr.host}/*").stdout
        docker("rmi", *images.split())


@pytest.fixture(scope="module")
def account(ecr: Ecr, tmp_path_factory: pytest.TempPathFactory) -> Account:
    return Account(ecr, tmp_path_factory.mktemp("volume") / "volume")


@pytest.fixture(scope="module")
def device(account: Account) -> Iterator[str]:
    with account.device() as device:
        yield device


@pytest.fixture(scope="module")
def compose_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of compose's releases, in place of GitHub."""
    folder = tmp_path_factory.mktemp("github")
    version = docker("compose", "version", "--short").stdout.strip().removeprefix("v")
    plugins = json.loads(docker("info", "--format", "{{json .ClientInfo.Plugins}}").stdout)
    (path,) = [plugin["Path"] for plugin in plugins if plugin["Name"] == "compose"]
    release = f"v{version}/docker-compose-linux-{os.uname().machine}"
    for name, source in (("good", path), ("bad", "/bin/true")):
        (folder / name / release).parent.mkdir(parents=True)
        shutil.copy(source, folder / name / release)
    port = free_port()
    command = ["python3", "-m", "http.server", str(port), "--directory", str(folder)]
    with Process(command, folder / "log") as server:
        wait_until(lambda: server.running() and _answers(port), what="the server of compose's releases")
        yield f"http://aws:{port}/good/"


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def hosts() -> Iterator[ExitStack]:
    with ExitStack() as hosts:
        yield hosts


@pytest.fixture(scope="module")
def host(hosts: ExitStack, account: Account, device: str, releases: Releases, compose_url: str) -> Host:
    """The first host, booted."""
    account.run(releases.first)
    host = hosts.enter_context(started_host(account, device))
    print(host.boot(compose_url, s3=True, HEALTHY_SECONDS_MAX=HEALTHY_SECONDS_MAX).stdout)
    return host


@pytest.fixture(scope="module")
def job(host: Host) -> str:
    """Of a result that all later hosts must have."""
    answer = host.http.post("/v1/jobs", content=BAG, headers=PNG | {"Prefer": "wait=10"})
    assert answer.json()["result"]["class"] == "Bag", answer.text
    return str(answer.headers["Location"])


def _class_of(host: Host, job: str) -> str:
    answer = host.http.get(f"{job}?wait=30")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"]["class"])


def test_a_compose_with_another_checksum_is_not_installed(account: Account, device: str, compose_url: str) -> None:
    with started_host(account, device) as host:
        done = host.boot(compose_url.replace("/good/", "/bad/"), check=False)
        assert done.returncode == 1
        assert re.search(r"does not have the sha256 \w{64}: not installed", done.stdout)
        plugins = host.run("ls", "/usr/local/lib/docker/cli-plugins").stdout
        assert plugins == ""
        assert host.run("pgrep", "dockerd", check=False).returncode == 1


def test_the_first_boot_installs_what_is_missing_and_classifies(host: Host, releases: Releases, job: str) -> None:
    assert _class_of(host, job) == "Bag"
    assert host.run("cat", "/var/log/dnf-installed").stdout.split() == [
        "docker",
        "awscli-2",
        "iptables-nft",
        "e2fsprogs",
    ]
    assert "vm.overcommit_memory=1" in host.run("cat", "/var/log/sysctl").stdout
    assert f"current {releases.first}" in host.command("status").stdout
    assert host.account.holder() == host.instance
    assert host.account.address_at() == host.instance


def test_the_edge_serves_with_tls(host: Host, job: str) -> None:
    host.run("curl", "--fail", "--silent", "--show-error", "--insecure", "https://localhost/readyz")
    assert host.run("ls", "/srv/darkroom/edge/caddy/certificates").stdout != ""


def test_credentials_of_the_registry_stay_on_no_disk(host: Host, job: str) -> None:
    assert host.run("sh", "-c", "ls -A /run/ | grep darkroom-docker || true").stdout == ""
    assert host.run("sh", "-c", "ls -A /root/.docker 2>/dev/null || true").stdout == ""


def test_only_outbound_reaches_the_instance_metadata(host: Host, job: str) -> None:
    code = "import socket; socket.create_connection(('169.254.169.254', 80), 2)"
    reached = {
        service: host.command("compose", "exec", "-T", service, "python3", "-c", code, check=False).returncode == 0
        for service in ("api", "worker", "outbound")
    }
    assert reached == {"api": False, "worker": False, "outbound": True}


def test_an_upgrade_replaces_all_but_redis_and_the_edge(host: Host, releases: Releases, job: str) -> None:
    kept = [host.containers(service) for service in ("redis", "edge")]
    host.command("upgrade", releases.second)
    assert f"current {releases.second}" in host.command("status").stdout
    assert {host.tag_of(service) for service in ("api", "worker", "outbound")} == {releases.second}
    assert [host.containers(service) for service in ("redis", "edge")] == kept
    assert _class_of(host, job) == "Bag"
    images = host.run("docker", "images", "--format", "{{.Tag}}").stdout.split()
    assert releases.first not in images, "the disk keeps one release"
    host.account.run(releases.second)


def test_the_same_release_again_changes_nothing(host: Host, releases: Releases, job: str) -> None:
    before = [host.containers(service) for service in SERVICES]
    host.command("upgrade", releases.second)
    assert [host.containers(service) for service in SERVICES] == before


def test_a_release_that_does_not_get_healthy_goes_back(host: Host, releases: Releases, job: str) -> None:
    done = host.command("upgrade", releases.broken, check=False)
    assert done.returncode == 1
    assert f"{releases.broken} did not get healthy; {releases.second} runs again" in done.stderr
    assert {host.tag_of(service) for service in ("api", "worker", "outbound")} == {releases.second}
    assert f"current {releases.second}" in host.command("status").stdout
    assert releases.broken not in host.run("docker", "images", "--format", "{{.Tag}}").stdout.split()
    assert _class_of(host, job) == "Bag"


def test_a_tag_that_is_not_in_the_registry_changes_nothing(host: Host, releases: Releases, job: str) -> None:
    done = host.command("upgrade", "0123456789ab", check=False)
    assert done.returncode == 1
    assert f"0123456789ab cannot be fetched; {releases.second} runs on" in done.stderr
    assert _class_of(host, job) == "Bag"


def test_worker_hosts_join_once_the_uploads_of_the_folder_are_done(
    host: Host, account: Account, device: str, releases: Releases, compose_url: str, job: str
) -> None:
    host.command("compose", "stop", "worker")
    large = BAG + bytes(100_000)  # in the folder, which no other host sees
    waiting = host.http.post("/v1/jobs", content=large, headers=PNG).headers["Location"]
    account.open_to_workers(releases.first)
    assert "bytes of uploads wait in file:" in host.command("upgrade", releases.second).stdout
    assert _class_of(host, waiting) == "Bag"
    assert host.run("sh", "-c", "ls /srv/darkroom/uploads/darkroom-uploads/*.upload || true").stdout == ""

    host.command("compose", "stop", "worker")
    with started_host(account, device, first=host) as worker:
        worker.boot(compose_url, HEALTHY_SECONDS_MAX=HEALTHY_SECONDS_MAX)
        for image in (BAG, large):
            answer = host.http.post("/v1/jobs", content=image, headers=PNG | {"Prefer": "wait=30"})
            assert answer.json()["result"]["class"] == "Bag", answer.text
        assert worker.run("docker", "ps", "--format", "{{.Names}}").stdout.split() == ["darkroom-worker-1"]
        assert "redis.key" not in worker.run("ls", "/etc/darkroom/tls").stdout

        worker.command("upgrade", releases.second)
        assert worker.tag_of("worker") == releases.second
        refused = worker.command("upgrade", "0123456789ab", check=False)
        assert f"0123456789ab cannot be fetched; {releases.second} runs on" in refused.stderr
        assert f"current {releases.second}" in worker.command("status").stdout
        worker.command("stop")
    host.command("upgrade", releases.second)  # starts the worker, and waits for it


def test_a_reboot_without_the_volume_starts_no_empty_redis(host: Host, releases: Releases, job: str) -> None:
    (redis,) = host.containers("redis")
    host.stop_docker()
    host.run("umount", "/srv/darkroom")
    host.run("systemctl", "start", "docker.service")
    refused = host.run("docker", "start", redis, check=False)
    assert "bind source path does not exist: /srv/darkroom/redis" in refused.stderr
    host.run("install", "-d", "-o", "999", "-g", "999", "/srv/darkroom/redis")  # below a missing mount
    host.run("docker", "start", redis)
    wait_until(lambda: "the volume is not mounted" in host.run("docker", "logs", redis).stderr, what="its refusal")
    assert host.run("ls", "-A", "/srv/darkroom/redis").stdout == ""
    with host.account.ecr.refusing():  # what is on the host is enough
        assert f"starts {releases.second} as it is here" in host.command("start").stderr
    assert _class_of(host, job) == "Bag"


def test_the_host_that_replaces_a_dead_one_goes_on_with_its_jobs(
    hosts: ExitStack, host: Host, account: Account, device: str, releases: Releases, compose_url: str, job: str
) -> None:
    host.command("compose", "stop", "worker")
    queued = host.http.post("/v1/jobs", content=BAG, headers=PNG).headers["Location"]
    host.power_off()

    second = hosts.enter_context(started_host(account, device))
    with second.booting(compose_url) as output:
        wait_until(lambda: f"waits for {account.volume_id}, which is in-use" in output(), what="a wait for the volume")
        account.detach()
    assert "formats" not in output()
    assert f"runs {releases.second}" in output()
    assert account.holder() == account.address_at() == second.instance
    assert {_class_of(second, job), _class_of(second, queued)} == {"Bag"}
    second.command("stop")
    assert second.run("mountpoint", "/srv/darkroom", check=False).returncode != 0


def test_a_volume_that_stays_with_another_host_ends_the_wait(account: Account, device: str, compose_url: str) -> None:
    with started_host(account, device) as host:
        done = host.boot(compose_url, check=False, VOLUME_SECONDS_MAX="1")
    assert done.returncode == 1
    assert re.search(rf"{account.volume_id} is still in-use \(i-\w+\) after 1 s", done.stderr)


def test_a_volume_that_blkid_cannot_tell_is_not_formatted(ecr: Ecr, tmp_path: Path, compose_url: str) -> None:
    account = Account(ecr, tmp_path / "volume")
    with account.device() as device, started_host(account, device) as host:
        host.run("sh", "-c", "printf '#!/bin/sh\nexit 8\n' >/usr/local/bin/blkid; chmod +x /usr/local/bin/blkid")
        done = host.boot(compose_url, check=False)
        assert done.returncode == 1
        assert "blkid fails with 8" in done.stderr
    assert not is_written(tmp_path / "volume")
