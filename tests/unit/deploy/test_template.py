"""The CloudFormation template, without AWS."""

import subprocess
import sys
from pathlib import Path

import pytest
from cfnlint.decode import decode

from deploy.ec2.host.user_data import BootValues, user_data
from deploy.ec2.stack import TEMPLATE, template

TEMPLATE_BYTES_MAX = 51_200
"""That CloudFormation takes without a bucket."""


@pytest.fixture(scope="module")
def body() -> str:
    values = BootValues(
        name="darkroom-of-a-long-name-32-letters",
        region="ap-southeast-1",
        registry="123456789012.dkr.ecr.ap-southeast-1.amazonaws.com",
        tag_parameter="/darkroom/tag",
        environment_parameter="/darkroom/environment",
        volume_id="vol-0123456789abcdef0",
        allocation_id="eipalloc-0123456789abcdef0",
        gpu=True,
        s3=True,
    )
    worker_values = values._replace(
        tag_parameter="/darkroom/workers/tag",
        environment_parameter="/darkroom/workers/environment",
        volume_id="",
        allocation_id="",
    )
    return template(user_data(values), user_data(worker_values))


def test_cfn_lint_finds_nothing(body: str, tmp_path: Path) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(body)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("cfn-lint")), "--regions", "us-east-1", "eu-central-1", "--", str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_template_with_its_boot_script_fits_a_request(body: str) -> None:
    assert len(body.encode()) < TEMPLATE_BYTES_MAX
    assert "USER_DATA@" not in body


def test_the_role_may_do_what_the_host_does_and_no_more() -> None:
    found, problems = decode(str(TEMPLATE))
    assert not problems
    role = found["Resources"]["Role"]["Properties"]
    assert "ManagedPolicyArns" not in role, "SSM's own policy reads every parameter of the account"
    policies = [*role["Policies"], found["Resources"]["SsmPolicy"]["Properties"]]
    statements = [it for policy in policies for it in policy["PolicyDocument"]["Statement"]]
    allowed = [(action, it) for it in statements for action in _list(it["Action"])]
    assert not [action for action, _ in allowed if "*" in action]
    everywhere = {action for action, it in allowed if it["Resource"] == "*"}
    prefixes = ("ssm:", "ssmmessages:", "ec2messages:")
    assert {it for it in everywhere if not it.startswith(prefixes)} == {
        "ecr:GetAuthorizationToken",
        "ec2:DescribeVolumes",
    }
    assert not everywhere & {"ssm:GetParameter", "ssm:GetParameters", "ssm:PutParameter"}
    assert {action for action, _ in allowed if action.startswith("ec2:")} == {
        "ec2:AttachVolume",
        "ec2:AssociateAddress",
        "ec2:DescribeVolumes",
    }


def test_a_worker_host_pulls_images_and_reads_its_own_parameters() -> None:
    """No key of the API's clients, no volume, no address; what decodes strangers' pictures runs there."""
    found, _ = decode(str(TEMPLATE))
    role = found["Resources"]["WorkerRole"]["Properties"]
    assert "ManagedPolicyArns" not in role
    statements = [it for policy in role["Policies"] for it in policy["PolicyDocument"]["Statement"]]
    (parameters,) = [it for it in statements if it["Action"] == "ssm:GetParameter"]
    assert parameters["Resource"]["Fn::Sub"].endswith(":parameter/${AWS::StackName}/workers/*")
    assert {action for it in statements for action in _list(it["Action"])} == {
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "ssm:GetParameter",
    }


def test_redis_is_open_to_worker_hosts_alone_and_they_to_nobody() -> None:
    found, _ = decode(str(TEMPLATE))
    resources = found["Resources"]
    rules = {name: it["Properties"] for name, it in resources.items() if it["Type"].endswith("SecurityGroupIngress")}
    redis = rules.pop("RedisIngress")
    assert (redis["FromPort"], redis["ToPort"]) == (6380, 6380)
    assert redis["SourceSecurityGroupId"] == {"Fn::GetAtt": ["WorkerSecurityGroup", "GroupId"]}
    assert "CidrIp" not in redis
    assert {rule["GroupId"]["Fn::GetAtt"][0] for rule in rules.values()} == {"SecurityGroup"}
    assert "SecurityGroupIngress" not in resources["WorkerSecurityGroup"]["Properties"]


def test_without_workers_the_template_has_nothing_of_them() -> None:
    found, _ = decode(str(TEMPLATE))
    of_workers = [it for name, it in found["Resources"].items() if name.startswith("Worker") or name == "RedisIngress"]
    assert len(of_workers) == 6
    assert {it.get("Condition") for it in of_workers} == {"HasWorkers"}


def test_the_host_calls_what_the_role_allows() -> None:
    """Each `aws` command of the host's script has its action in the role."""
    found, _ = decode(str(TEMPLATE))
    policies = found["Resources"]["Role"]["Properties"]["Policies"]
    allowed = {
        action.lower()
        for policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
        for action in _list(statement["Action"])
    }
    script = (TEMPLATE.parent / "host" / "darkroom-host.sh").read_text()
    words = script.replace("\\\n", " ").split()
    calls = {(words[at + 1], words[at + 2]) for at, word in enumerate(words) if word.strip('"$(<') == "aws"}
    assert ("ec2", "attach-volume") in calls
    renamed = {"get-login-password": "get-authorization-token"}
    for service, command in calls:
        assert f"{service}:{renamed.get(command, command).replace('-', '')}" in allowed


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
