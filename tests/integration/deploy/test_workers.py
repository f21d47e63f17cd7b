"""`up --workers`: further hosts with workers alone."""

import base64
import ssl
import subprocess
from pathlib import Path

from tests.integration.deploy.conftest import (
    CIDR,
    Checkout,
    Command,
    Made,
    open_ports,
    parameter,
    stack_parameters,
    values,
)
from tests.support.deploy.aws import REGION, AwsServer, put_images
from tests.support.deploy.aws_host import StandInHost
from tests.support.deploy.aws_workers import StandInWorkers

PARAMETERS = [
    "/darkroom/environment",
    "/darkroom/redis.key",
    "/darkroom/tag",
    "/darkroom/workers/environment",
    "/darkroom/workers/redis.crt",
    "/darkroom/workers/tag",
]


def test_up_makes_hosts_with_workers_alone(
    aws: AwsServer, ec2: Command, host: StandInHost, workers: StandInWorkers, tag: str, made: Made
) -> None:
    assert ec2.up("--workers", "2", "--worker-type", "c7i.2xlarge") == 0, ec2.errors
    kinds = made()
    assert kinds["parameters"] == PARAMETERS
    assert {kind: len(names) for kind, names in kinds.items() if len(names) == 2} == {
        "security groups": 2,
        "launch templates": 2,
        "groups": 2,
        "roles": 2,
        "profiles": 2,
    }
    assert len(kinds["instances"]) == 3
    assert len(kinds["addresses"]) == len(kinds["volumes"]) == 1
    assert len(workers.instances()) == 2
    assert {it.current for it in workers.by_id.values()} == {tag}
    assert open_ports(aws) == {(5000, CIDR)}, "no address may connect to Redis"
    assert ec2("status") == 0, ec2.output
    assert "workers    2 of 2 hosts\n" in ec2.output
    for instance in workers.instances():
        assert f"           {instance}, c7i.2xlarge, {REGION}a, running: runs {tag}\n" in ec2.output
    assert f"options    up --cidr {CIDR} --type c7i.xlarge" in ec2.output
    assert "--workers 2 --worker-type c7i.2xlarge" in ec2.output


def test_worker_hosts_reach_redis_and_hold_no_other_secret(
    aws: AwsServer, ec2: Command, workers: StandInWorkers, tag: str, made: Made, tmp_path: Path
) -> None:
    file = tmp_path / "settings"
    file.write_text('MODELS=fmnist-cnn,fmnist-mlp\nWEBHOOK_SECRETS={"a":"whsec_x="}\nS3_SECRET_ACCESS_KEY=s3\n')
    assert ec2.up("--workers", "1", "--env-file", str(file)) == 0, ec2.errors
    first, theirs = values(parameter(aws, "environment")), values(parameter(aws, "workers/environment"))
    (ip,) = made()["addresses"]
    name = f"ec2-{ip.replace('.', '-')}.{REGION}.compute.amazonaws.com"
    assert theirs == {
        "REDIS_URL": f"rediss://{name}:6380/0?ssl_ca_certs=/etc/darkroom/tls/redis.crt",
        "REDIS_WORKER_PASSWORD": first["REDIS_WORKER_PASSWORD"],
        "UPLOADS_URL": "redis:",
        "WORKER_CPUS": "4",
        "WORKER_MEMORY_LIMIT": "7168m",
        "WORKER_CHILDREN": "4",
        "MODELS": "fmnist-cnn,fmnist-mlp",
    }
    assert first["REDIS_TLS_PORT"] == "6380"
    assert "UPLOADS_URL" not in first, "the host knows"
    certificate, key = tmp_path / "redis.crt", tmp_path / "redis.key"
    certificate.write_text(parameter(aws, "workers/redis.crt"))
    key.write_text(parameter(aws, "redis.key"))
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    shown = ["openssl", "x509", "-in", str(certificate), "-noout", "-checkhost", name]
    assert "does match" in subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    ssm = aws.client("ssm")
    for secret in ("redis.key", "workers/environment"):
        (found,) = ssm.get_parameters(Names=[f"/darkroom/{secret}"])["Parameters"]
        assert found["Type"] == "SecureString"


def test_the_user_data_of_a_worker_host_names_its_own_parameters(
    aws: AwsServer, ec2: Command, workers: StandInWorkers, tag: str
) -> None:
    assert ec2.up("--workers", "1", "--spot") == 0, ec2.errors
    client = aws.client("ec2")
    (instance,) = client.describe_instances(InstanceIds=workers.instances())["Reservations"][0]["Instances"]
    tags = {it["Key"]: it["Value"] for it in instance["Tags"]}
    assert (tags["darkroom-workers"], tags["Name"]) == ("darkroom", "darkroom-worker")
    groups = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    (template,) = [it["LaunchTemplate"] for it in groups if "WorkerGroup" in it["AutoScalingGroupName"]]
    (version,) = client.describe_launch_template_versions(
        LaunchTemplateId=template["LaunchTemplateId"], Versions=["$Latest"]
    )["LaunchTemplateVersions"]
    data = version["LaunchTemplateData"]
    assert data["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    script = base64.b64decode(data["UserData"]).decode()
    for line in ("VOLUME=''", "ADDRESS=''", "ENVIRONMENT_PARAMETER=/darkroom/workers/environment"):
        assert f"\n{line}\n" in script
    secrets = values(parameter(aws, "environment"))
    assert secrets["REDIS_WORKER_PASSWORD"] not in script


def test_without_workers_nothing_of_them_exists(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    assert ec2.up("--workers", "0") == 0, ec2.errors
    before = stack_parameters(aws)
    assert (before["Workers"], before["WorkerType"]) == ("0", "")
    assert "REDIS_TLS_PORT" not in parameter(aws, "environment")
    assert ec2.up() == 0, ec2.errors
    assert ec2.errors == ""
    assert ec2("status") == 0
    assert "workers " not in ec2.output


def test_up_again_changes_nothing(aws: AwsServer, ec2: Command, workers: StandInWorkers, tag: str, made: Made) -> None:
    assert ec2.up("--workers", "2") == 0, ec2.errors
    before = made(), [parameter(aws, name.removeprefix("/darkroom/")) for name in PARAMETERS]
    assert ec2.up("--workers", "2") == 0, ec2.errors
    assert (made(), [parameter(aws, name.removeprefix("/darkroom/")) for name in PARAMETERS]) == before
    assert ec2.errors == ""
    assert workers.upgrades == []


def test_a_host_that_gets_workers_and_loses_them(
    aws: AwsServer, ec2: Command, host: StandInHost, workers: StandInWorkers, tag: str, made: Made
) -> None:
    assert ec2.up() == 0, ec2.errors
    alone = made()
    assert ec2.up("--workers", "1") == 0, ec2.errors
    assert "Workers: 0 → 1" in ec2.errors
    assert "the host is replaced" not in ec2.errors
    assert workers.upgrades == ["first"], "which opens Redis"
    assert len(workers.instances()) == 1
    assert ec2.up("--workers", "3") == 0, ec2.errors
    assert len(workers.instances()) == 3
    assert ec2.up() == 0, ec2.errors
    assert "Workers: 3 → 0" in ec2.errors
    assert made() == alone
    assert "REDIS_TLS_PORT" not in parameter(aws, "environment")


def test_workers_are_upgraded_before_the_first_host_one_after_the_other(
    aws: AwsServer, ec2: Command, host: StandInHost, workers: StandInWorkers, checkout: Checkout, tag: str
) -> None:
    assert ec2.up("--workers", "2") == 0, ec2.errors
    put_images(aws, newer := checkout.commit())
    assert ec2.up("--workers", "2") == 0, ec2.errors
    assert workers.upgrades == [*workers.by_id, "first"]
    for instance in workers.by_id:
        assert f"worker host {instance}: upgrading {tag} to {newer}" in ec2.errors
    assert [it.current for it in (*workers.by_id.values(), host)] == [newer] * 3
    assert (parameter(aws, "workers/tag"), parameter(aws, "tag")) == (newer, newer)


def test_a_worker_host_that_goes_back_is_named_and_stops_the_upgrade(
    aws: AwsServer, ec2: Command, host: StandInHost, workers: StandInWorkers, checkout: Checkout, tag: str
) -> None:
    assert ec2.up("--workers", "2") == 0, ec2.errors
    second = list(workers.by_id)[1]
    put_images(aws, newer := checkout.commit())
    workers.by_id[second].break_tag(newer)
    refused = ec2.refuses("up", "--cidr", CIDR, "--workers", "2")
    why = f"{newer} did not get healthy: {tag} runs again, as before; another worker host runs {newer}"
    assert refused == f"worker host {second}: {why}"
    assert [it.current for it in workers.by_id.values()] == [newer, tag]
    assert (host.current, parameter(aws, "tag"), parameter(aws, "workers/tag")) == (tag, tag, tag)
    workers.by_id[second].break_tag("none")
    assert ec2.up("--workers", "2") == 0, ec2.errors
    assert [it.current for it in (*workers.by_id.values(), host)] == [newer] * 3


def test_settings_reach_worker_hosts_and_are_taken_back(
    aws: AwsServer, ec2: Command, host: StandInHost, workers: StandInWorkers, tag: str, tmp_path: Path
) -> None:
    assert ec2.up("--workers", "1") == 0, ec2.errors
    before = parameter(aws, "workers/environment")
    (file := tmp_path / "settings").write_text("MODELS=no-such-model\n")
    (worker,) = workers.by_id.values()
    worker.break_tag(tag)
    refused = ec2.refuses("up", "--cidr", CIDR, "--workers", "1", "--env-file", str(file))
    assert refused.endswith(f"{tag} with new settings did not get healthy: {tag} runs again, as before")
    assert parameter(aws, "workers/environment") == before
    worker.break_tag("none")
    file.write_text("MODELS=fmnist-mlp\n")
    assert ec2.up("--workers", "1", "--env-file", str(file)) == 0, ec2.errors
    assert parameter(aws, "workers/environment") == f"{before}\nMODELS=fmnist-mlp"


def test_a_worker_host_that_comes_up_with_the_former_images_is_upgraded(
    aws: AwsServer, ec2: Command, host: StandInHost, workers: StandInWorkers, checkout: Checkout, tag: str
) -> None:
    """It had read the parameter before `up` changed it."""
    assert ec2.up("--workers", "1") == 0, ec2.errors
    (instance,) = workers.by_id
    put_images(aws, newer := checkout.commit())
    workers.by_id.clear()
    workers.boots = False

    def late() -> None:
        if parameter(aws, "tag") == newer and not workers.by_id:
            workers.boots = True
            (folder,) = (host._folder.parent / "workers").iterdir()
            folder.rename(folder.with_name("former"))
            workers.boot(instance).pretend(tag)

    aws.after["PutParameter"] = late
    assert ec2.up("--workers", "1") == 0, ec2.errors
    assert workers.by_id[instance].current == newer


def test_worker_hosts_that_never_come_up_are_said(
    aws: AwsServer, ec2: Command, workers: StandInWorkers, tag: str
) -> None:
    workers.boots = False
    refused = ec2.refuses("up", "--cidr", CIDR, "--workers", "2", "--wait-seconds", "0.3")
    assert refused.startswith(f"waited 0 s: 0 of 2 worker hosts run {tag}: `status` shows them")
    assert ec2("status") == 0
    assert "has not come so far" in ec2.output


def test_exec_on_a_worker_host_and_on_none_of_ours(
    aws: AwsServer, ec2: Command, workers: StandInWorkers, tag: str
) -> None:
    assert ec2.up("--workers", "1") == 0, ec2.errors
    (instance,) = workers.instances()
    assert ec2("exec", "--host", instance, "--", "sh", "-c", "pwd; darkroom-host status") == 0
    assert f"current {tag}" in ec2.output
    refused = ec2.refuses("exec", "--host", "i-0", "--", "true")
    assert refused == "--host i-0: darkroom has no such host, see `status`"


def test_a_worker_host_does_not_pass_for_the_first_one(
    aws: AwsServer, ec2: Command, workers: StandInWorkers, tag: str
) -> None:
    """CloudFormation puts the stack's tags on the instances of its groups; moto does not."""
    assert ec2.up("--workers", "2") == 0, ec2.errors
    aws.client("ec2").create_tags(Resources=workers.instances(), Tags=[{"Key": "darkroom", "Value": "darkroom"}])
    assert ec2("exec", "--", "true") == 0
    assert ec2("status") == 0
    (host,) = [line for line in ec2.output.splitlines() if line.startswith("host ")]
    assert not [it for it in workers.instances() if it in host]


def test_down_ends_worker_hosts_too(
    aws: AwsServer, ec2: Command, workers: StandInWorkers, tag: str, made: Made
) -> None:
    assert ec2.up("--workers", "2") == 0, ec2.errors
    former = parameter(aws, "workers/redis.crt")
    assert ec2("down") == 0, ec2.errors
    left = made()
    assert left.keys() == {"volumes", "parameters", "repositories"}
    assert left["parameters"] == ["/darkroom/environment"]
    assert ec2.up("--workers", "2") == 0, ec2.errors
    assert parameter(aws, "workers/redis.crt") != former, "it is of another address"
    assert ec2("down", "--delete-data", "--yes", "darkroom") == 0, ec2.errors
    assert made() == {}


def test_uploads_in_s3_reach_worker_hosts_with_their_key(
    aws: AwsServer, ec2: Command, workers: StandInWorkers, tag: str, tmp_path: Path
) -> None:
    (file := tmp_path / "settings").write_text(
        "UPLOADS_URL=s3://ours/darkroom\nS3_ACCESS_KEY_ID=a\nS3_SECRET_ACCESS_KEY=b\nS3_BUCKETS=theirs\n"
    )
    assert ec2.up("--workers", "1", "--env-file", str(file)) == 0, ec2.errors
    theirs = values(parameter(aws, "workers/environment"))
    assert (theirs["UPLOADS_URL"], theirs["S3_SECRET_ACCESS_KEY"]) == ("s3://ours/darkroom", "b")
    assert "S3_BUCKETS" not in theirs, "is outbound's"


def test_where_uploads_move_the_api_goes_first(
    aws: AwsServer, ec2: Command, workers: StandInWorkers, tag: str, tmp_path: Path
) -> None:
    """It marks the new place, without which workers do not start."""
    assert ec2.up("--workers", "1") == 0, ec2.errors
    (file := tmp_path / "settings").write_text("UPLOADS_URL=s3://ours/darkroom\n")
    assert ec2.up("--workers", "1", "--env-file", str(file)) == 0, ec2.errors
    assert workers.upgrades == ["first", *workers.by_id]
