"""`up`, `status`, `exec` and the group, against moto's server with a stand-in for the host."""

import base64
import json

from tests.integration.deploy.conftest import (
    CIDR,
    Command,
    Made,
    launch_template,
    open_ports,
    parameter,
    stack_parameters,
)
from tests.support.deploy.aws import AwsServer
from tests.support.deploy.aws_host import StandInHost


def test_up_makes_a_host_that_classifies(aws: AwsServer, ec2: Command, host: StandInHost, tag: str, made: Made) -> None:
    assert ec2.up() == 0, ec2.errors
    kinds = made()
    (ip,) = kinds["addresses"]
    key = json.loads(dict(line.split("=", 1) for line in parameter(aws, "environment").splitlines())["API_KEYS"])
    assert list(key) == ["admin"]
    assert ec2.output.splitlines() == [
        f"ready: {tag} at http://{ip}:5000",
        f"curl -H 'Authorization: Bearer {key['admin']}' -F file=@tests/data/0007-shirt.png http://{ip}:5000/predict",
    ]
    assert kinds["parameters"] == ["/darkroom/environment", "/darkroom/tag"]
    assert {kind: len(names) for kind, names in kinds.items()} == {
        "stacks": 1,
        "instances": 1,
        "volumes": 1,
        "addresses": 1,
        "security groups": 1,
        "launch templates": 1,
        "groups": 1,
        "roles": 1,
        "profiles": 1,
        "parameters": 2,
        "repositories": 1,
    }


def test_what_up_makes_is_closed_and_encrypted(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    assert ec2.up() == 0, ec2.errors
    data = launch_template(aws)
    assert open_ports(aws) == {(5000, CIDR)}
    assert data["MetadataOptions"] == {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
    }
    (disk,) = data["BlockDeviceMappings"]
    assert (disk["Ebs"]["VolumeType"], disk["Ebs"]["Encrypted"]) == ("gp3", True)
    (volume,) = aws.client("ec2").describe_volumes(Filters=[{"Name": "tag:Name", "Values": ["darkroom-data"]}])[
        "Volumes"
    ]
    assert (volume["VolumeType"], volume["Encrypted"], volume["Size"]) == ("gp3", True, 20)
    (group,) = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (1, 1, 1)
    (environment,) = aws.client("ssm").get_parameters(Names=["/darkroom/environment"])["Parameters"]
    assert environment["Type"] == "SecureString"


def test_no_secret_is_in_the_stack_or_the_user_data(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    assert ec2.up() == 0, ec2.errors
    text = parameter(aws, "environment")
    values = dict(line.split("=", 1) for line in text.splitlines())
    secrets = [json.loads(values["API_KEYS"])["admin"], values["REDIS_PASSWORD"], values["REDIS_WORKER_PASSWORD"]]
    assert min(map(len, secrets)) >= 43, "256 bits in base64"
    script = base64.b64decode(launch_template(aws)["UserData"]).decode()
    assert "darkroom-host" in script
    body = aws.client("cloudformation").get_template(StackName="darkroom")["TemplateBody"]
    for secret in secrets:
        assert secret not in script + str(body) + str(stack_parameters(aws))


def test_up_again_changes_nothing(aws: AwsServer, ec2: Command, host: StandInHost, tag: str, made: Made) -> None:
    assert ec2.up() == 0, ec2.errors
    before, text, output = made(), parameter(aws, "environment"), ec2.output
    assert ec2.up() == 0, ec2.errors
    assert (made(), parameter(aws, "environment"), ec2.output) == (before, text, output)
    assert ec2.errors == ""


def test_the_group_replaces_a_host_that_died(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str, made: Made
) -> None:
    assert ec2.up() == 0, ec2.errors
    before = made()
    (first,) = before["instances"]
    aws.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=first, ShouldDecrementDesiredCapacity=False
    )
    host.boot()
    assert ec2("status") == 0, ec2.output
    after = made()
    (second,) = after["instances"]
    assert second != first
    assert second in ec2.output
    assert (after["volumes"], after["addresses"]) == (before["volumes"], before["addresses"])


def test_status_says_what_is_missing(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    assert ec2("status") == 1
    assert "stack      none of the name darkroom" in ec2.output
    assert ec2.up() == 0, ec2.errors
    host.serving = False
    aws.run = None
    assert ec2("status") == 1
    assert "SSM does not reach" in ec2.output
    assert "the API is ready, and no worker serves a model yet" in ec2.output


def test_exec_passes_output_and_exit_code_through(aws: AwsServer, ec2: Command, host: StandInHost, tag: str) -> None:
    assert ec2.up() == 0, ec2.errors
    script = "echo \"$1\"; echo 'to stderr' >&2; exit 7"
    assert ec2("exec", "--", "sh", "-c", script, "x", "two  words; $HOME") == 7
    assert (ec2.output, ec2.errors) == ("two  words; $HOME\n", "to stderr\n")
    assert ec2("exec", "--name", "darkroom", "--", "darkroom-host", "status") == 0
    assert ec2.output.startswith(f"darkroom-host: current {tag}\n")
    assert ec2("exec", "darkroom-host", "status") == 0, "-- may be left out"
    ec2("exec", "--", "sh", "-c", "head -c 30000 /dev/zero | tr '\\0' x")
    assert "the output is cut" in ec2.errors
