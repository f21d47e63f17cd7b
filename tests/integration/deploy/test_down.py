import io

import pytest

from tests.integration.deploy.conftest import CIDR, Command, Made
from tests.support.deploy.aws import AwsServer, put_images
from tests.support.deploy.aws_host import StandInHost

LEFT = {"volumes", "parameters", "repositories"}


def test_down_leaves_the_data_and_delete_data_leaves_nothing(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str, made: Made
) -> None:
    assert ec2.up() == 0, ec2.errors
    before = made()
    assert ec2("down") == 0, ec2.errors
    left = made()
    assert left.keys() == LEFT
    assert left["volumes"] == before["volumes"]
    assert left["parameters"] == ["/darkroom/environment"]
    assert f"the data volume {left['volumes'][0]} (20 GiB)" in ec2.output

    assert ec2("down") == 0, ec2.errors
    assert "there is no stack darkroom" in ec2.errors
    assert made() == left, "`down` twice"

    assert ec2("down", "--delete-data", "--yes", "darkroom") == 0, ec2.errors
    assert made() == {}
    assert ec2("down", "--delete-data", "--yes", "darkroom") == 0, ec2.errors
    assert ec2.output == "nothing is left\n"


def test_delete_data_takes_down_what_runs(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str, made: Made
) -> None:
    assert ec2.up() == 0, ec2.errors
    assert ec2("down", "--delete-data", "--yes", "darkroom") == 0, ec2.errors
    assert made() == {}


def test_up_after_down_finds_its_data_and_its_keys(
    aws: AwsServer, ec2: Command, host: StandInHost, tag: str, made: Made
) -> None:
    assert ec2.up() == 0, ec2.errors
    volumes, key = made()["volumes"], ec2.output.split("Bearer ")[1].split("'")[0]
    assert ec2("down") == 0, ec2.errors
    assert ec2.up() == 0, ec2.errors
    assert made()["volumes"] == volumes
    assert key in ec2.output


@pytest.mark.parametrize("typed", ["", "yes\n", "darkroom2\n"])
def test_another_name_deletes_nothing(
    aws: AwsServer,
    ec2: Command,
    host: StandInHost,
    tag: str,
    made: Made,
    typed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ec2.up() == 0, ec2.errors
    before = made()
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert ec2("down", "--delete-data") == 1
    assert ec2("down", "--delete-data", "--yes", "darkroom2") == 1
    assert made() == before


def test_the_typed_name_deletes(aws: AwsServer, ec2: Command, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("darkroom\n"))
    assert ec2("down", "--delete-data") == 0, ec2.errors
    assert made() == {}


def test_images_stay_while_another_deployment_uses_them(aws: AwsServer, ec2: Command, tag: str, made: Made) -> None:
    aws.run = None
    for name in ("darkroom", "second"):
        ec2.refuses("up", "--name", name, "--cidr", CIDR, "--wait-seconds", "0.1")
    assert ec2("down", "--delete-data", "--yes", "darkroom") == 0, ec2.errors
    assert ec2.output == "images in ECR are kept for second\n"
    left = made()
    assert (left["stacks"], left["repositories"]) == (["second"], ["darkroom-api"])
    put_images(aws, "x", repository="darkroom-of-somebody-else", tags=[])
    assert ec2("down", "--name", "second", "--delete-data", "--yes", "second") == 0, ec2.errors
    assert made() == {"repositories": ["darkroom-of-somebody-else"]}


def test_down_leaves_a_stack_that_is_not_ours(aws: AwsServer, ec2: Command, made: Made) -> None:
    body = '{"Resources": {"Queue": {"Type": "AWS::EC2::EIP"}}}'
    aws.client("cloudformation").create_stack(StackName="darkroom", TemplateBody=body)
    assert "the stack darkroom is not of Darkroom" in ec2.refuses("down", "--delete-data", "--yes", "darkroom")
    assert made()["stacks"] == ["darkroom"]
