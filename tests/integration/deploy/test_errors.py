"""What `up` refuses, each with one line, and before anything is made."""

import pytest
from botocore.client import BaseClient
from moto.cloudformation.models import cloudformation_backends
from moto.core import DEFAULT_ACCOUNT_ID

from tests.integration.deploy.conftest import CIDR, Checkout, Command, Made
from tests.support.deploy.aws import EXPIRED, REGION, AwsServer, put_images
from tests.support.deploy.aws_host import StandInHost

UP = ("up", "--cidr", CIDR)


@pytest.mark.parametrize("command", [UP, ("status",), ("down",), ("exec", "--", "true")])
def test_no_credentials(aws: AwsServer, ec2: Command, command: tuple[str], tmp_path, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert ec2.refuses(*command).startswith("no AWS credentials: run `aws configure`")


@pytest.mark.parametrize("command", [UP, ("status",), ("down",), ("exec", "--", "true")])
def test_expired_credentials(aws: AwsServer, ec2: Command, command: tuple[str], monkeypatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", EXPIRED)
    assert ec2.refuses(*command).startswith("the AWS credentials have expired")


def test_no_region_and_no_such_profile(aws: AwsServer, ec2: Command, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert ec2.refuses(*UP) == "no AWS region: pass --region, or set AWS_REGION"
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert ec2("status") == 1
    assert "eu-central-1" in ec2.output
    monkeypatch.setenv("AWS_PROFILE", "missing")
    assert "missing" in ec2.refuses(*UP)


def test_no_endpoint(aws: AwsServer, ec2: Command, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert ec2.refuses("status").startswith("AWS: Could not connect")


def test_no_default_subnet(aws: AwsServer, ec2: Command, tag: str, made: Made) -> None:
    client = aws.client("ec2")
    for subnet in client.describe_subnets()["Subnets"]:
        client.delete_subnet(SubnetId=subnet["SubnetId"])
    assert ec2.refuses(*UP).startswith(f"{REGION} has no default subnet: pass --subnet")
    assert made().keys() == {"repositories"}


def test_types_that_do_not_do(aws: AwsServer, ec2: Command, tag: str, made: Made) -> None:
    assert ec2.refuses(*UP, "--type", "c99.huge") == f"--type c99.huge: {REGION} has no such instance type"
    assert "has 1 vCPUs and 512 MiB" in ec2.refuses(*UP, "--type", "t2.nano")
    assert "has no NVIDIA GPU" in ec2.refuses(*UP, "--type", "c7i.xlarge", "--gpu")
    assert made().keys() == {"repositories"}


def test_a_type_that_the_zone_has_not(aws: AwsServer, ec2: Command, tag: str, made: Made) -> None:
    subnets = aws.client("ec2").describe_subnets()["Subnets"]
    (subnet,) = [it["SubnetId"] for it in subnets if it["AvailabilityZone"] == f"{REGION}a"]
    refused = ec2.refuses(*UP, "--type", "g5g.xlarge", "--subnet", subnet)
    assert refused == f"--type g5g.xlarge is not to be had in {REGION}a, the zone of --subnet"
    assert made().keys() == {"repositories"}


def test_a_volume_binds_the_host_to_its_zone(aws: AwsServer, ec2: Command, tag: str) -> None:
    aws.run = None
    ec2.refuses(*UP, "--wait-seconds", "0.1")
    subnets = aws.client("ec2").describe_subnets()["Subnets"]
    (other,) = [it["SubnetId"] for it in subnets if it["AvailabilityZone"] == f"{REGION}b"]
    assert f"--subnet {other} is in {REGION}b, the data volume" in ec2.refuses(*UP, "--subnet", other)
    assert f"is not to be had in {REGION}a: choose another" in ec2.refuses(*UP, "--type", "g5g.xlarge")


def test_images_of_another_architecture(aws: AwsServer, ec2: Command, tag: str, made: Made) -> None:
    refused = ec2.refuses(*UP, "--type", "c7g.xlarge")
    why = f"(this commit was pushed as {tag}, and c7g.xlarge is arm64)"
    assert refused == f"there are no images {tag}-arm64 in ECR {why}: run `push --arch arm64` first"
    assert made().keys() == {"repositories"}


def test_images_that_were_not_pushed(aws: AwsServer, ec2: Command, checkout: Checkout, made: Made) -> None:
    tag = checkout.commit()
    assert ec2.refuses(*UP) == f"there are no images {tag} in ECR: run `push` first"
    aws.quotas["L-DB2E81BA"] = 4
    assert ec2.refuses(*UP, "--gpu") == f"there are no images {tag}-gpu in ECR: run `push --gpu` first"
    put_images(aws, "another")
    (checkout.folder / "changed").touch()
    assert "differs from the commit" in ec2.refuses(*UP)
    assert made().keys() == {"repositories"}


@pytest.mark.parametrize(("spot", "code"), [((), "L-DB2E81BA"), (("--spot",), "L-3819A6DF")])
def test_a_new_account_has_no_quota_for_gpus(aws: AwsServer, ec2: Command, made: Made, spot, code: str) -> None:
    aws.quotas[code] = 0
    refused = ec2.refuses(*UP, "--gpu", *spot)
    assert f"in {REGION} is 0 vCPUs, and g4dn.xlarge takes 4 (new accounts have 0 for GPUs)" in refused
    assert refused.endswith(code)
    assert made() == {}


def test_a_key_pair_and_a_subnet_that_are_missing(aws: AwsServer, ec2: Command, tag: str) -> None:
    assert ec2.refuses(*UP, "--key-name", "mine") == f"--key-name mine: {REGION} has no such key pair"
    assert ec2.refuses(*UP, "--subnet", "subnet-0") == f"--subnet subnet-0: {REGION} has no such subnet"


def test_a_stack_that_is_not_ours(aws: AwsServer, ec2: Command, tag: str, made: Made) -> None:
    body = '{"Resources": {"Queue": {"Type": "AWS::EC2::EIP"}}}'
    aws.client("cloudformation").create_stack(StackName="darkroom", TemplateBody=body)
    before = made()
    for command in (UP, (*UP, "--dry-run"), ("status",)):
        assert ec2(*command) == 1
        assert "the stack darkroom is not of Darkroom" in ec2.errors
    assert made() == before


def set_status(status: str) -> None:
    """As CloudFormation leaves a stack that failed; moto's cannot fail."""
    stack = cloudformation_backends[DEFAULT_ACCOUNT_ID][REGION].get_stack("darkroom")
    stack.status = status
    stack._add_stack_event("CREATE_FAILED", "You have requested more vCPU capacity")
    stack.events[-1].logical_resource_id = "Group"


def test_a_stack_that_was_rolled_back(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    assert ec2.up() == 0, ec2.errors
    set_status("ROLLBACK_COMPLETE")
    refused = ec2.refuses(*UP)
    assert refused.startswith("the stack darkroom is ROLLBACK_COMPLETE (")
    assert "You have requested more vCPU capacity" in refused
    assert refused.endswith(": run `down`, which keeps the data, then `up` again")
    assert ec2("down") == 0, ec2.errors
    assert ec2.up() == 0, ec2.errors


def test_an_update_that_is_rolled_back(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    assert ec2.up() == 0, ec2.errors
    aws.after["UpdateStack"] = lambda: set_status("UPDATE_ROLLBACK_COMPLETE")
    refused = ec2.refuses(*UP, "--type", "c7i.2xlarge")
    assert refused.startswith("the change was rolled back (")
    del aws.after["UpdateStack"]
    assert ec2.up() == 0, ec2.errors


def test_up_waits_for_a_stack_in_progress(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    """Of an `up` that was interrupted, or of somebody else's."""
    assert ec2.up() == 0, ec2.errors
    set_status("UPDATE_IN_PROGRESS")
    seen = []

    def look() -> None:
        seen.append(1)
        if len(seen) == 3:
            set_status("UPDATE_COMPLETE")

    aws.after["DescribeStacks"] = look
    assert ec2.up() == 0, ec2.errors
    assert ec2.errors == "darkroom ec2: stack darkroom: UPDATE_IN_PROGRESS\n"


@pytest.mark.parametrize("last", ["PutParameter", "CreateVolume", "AllocateAddress", "CreateStack"])
def test_an_interrupted_up_goes_on(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str, made: Made, last: str, monkeypatch
) -> None:
    boot = aws.after.pop("CreateStack")

    call = BaseClient._make_api_call

    def interrupted(self, operation_name: str, api_params: dict) -> dict:
        answer = call(self, operation_name, api_params)
        if operation_name == last:
            raise KeyboardInterrupt
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", interrupted)
        assert ec2.up() == 130
    assert ec2.errors.splitlines()[-1] == "darkroom ec2: interrupted; the same command goes on from here"
    half = made()
    if "stacks" in half:
        boot()
    aws.after["CreateStack"] = boot
    assert ec2.up() == 0, ec2.errors
    whole = made()
    for kind in ("volumes", "addresses", "stacks", "instances"):
        assert len(whole[kind]) == 1
        assert half.get(kind, whole[kind]) == whole[kind], "made once"


def test_settings_that_are_too_long_or_not_for_here(
    aws: AwsServer, ec2: Command, tag: str, made: Made, tmp_path
) -> None:
    file = tmp_path / "settings"
    file.write_text(f"MODELS={'x' * 4096}\n")
    refused = ec2.refuses(*UP, "--env-file", str(file))
    assert refused.startswith("/darkroom/environment would have 4")
    assert refused.endswith("bytes, and SSM takes 4096: fewer settings")
    for line in ("API_KEYS={}", "TAG=x"):
        file.write_text(f"{line}\n")
        assert "is not yours to set here" in ec2.refuses(*UP, "--env-file", str(file))
    file.write_text("MODELS\n")
    assert ec2.refuses(*UP, "--env-file", str(file)).endswith("line 1: not NAME=VALUE")
    assert "No such file" in ec2.refuses(*UP, "--env-file", str(tmp_path / "none"))
    assert made().keys() == {"repositories"}


def test_a_host_that_is_never_ready(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    del aws.after["CreateStack"]
    aws.run = None
    refused = ec2.refuses(*UP, "--wait-seconds", "0.3")
    assert refused.startswith("waited 0 s: the service is not ready (host i-")
    assert "`status` shows more, and docs/EC2.md where the logs are" in refused


def test_a_service_without_a_model_is_not_ready(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    host.serving = False
    assert "no worker serves a model yet" in ec2.refuses(*UP, "--wait-seconds", "0.3")


def test_exec_without_a_host_or_a_command(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    assert ec2.refuses("exec", "--", "true") == "darkroom has no host: run `up` first, or see `status`"
    assert ec2.refuses("exec", "--").startswith("exec: no command")
    assert ec2.up() == 0, ec2.errors
    aws.run = None
    assert "SSM does not reach" in ec2.refuses("exec", "--", "true")


def test_exec_that_is_interrupted_stops_its_command(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str, monkeypatch
) -> None:
    assert ec2.up() == 0, ec2.errors
    call, calls = BaseClient._make_api_call, []

    def interrupted(self, operation_name: str, api_params: dict) -> dict:
        calls.append(operation_name)
        if operation_name == "GetCommandInvocation":
            raise KeyboardInterrupt
        return {} if operation_name == "CancelCommand" else call(self, operation_name, api_params)

    monkeypatch.setattr(BaseClient, "_make_api_call", interrupted)
    assert ec2("exec", "--", "sleep", "0") == 130
    assert calls[-1] == "CancelCommand"


def test_a_call_that_is_not_allowed(aws: AwsServer, ec2: Command, tag: str) -> None:
    aws.denied = "DescribeInstanceTypes"
    assert ec2.refuses(*UP).startswith("the AWS credentials may not call DescribeInstanceTypes")
