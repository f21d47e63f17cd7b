import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import botocore.loaders
import pytest

import deploy.ec2.aws
from deploy.ec2.__main__ import main
from tests.support.deploy.aws import AwsServer, put_images
from tests.support.deploy.aws_host import StandInHost
from tests.support.deploy.aws_workers import StandInWorkers

CIDR = "203.0.113.7/32"


@pytest.fixture(scope="module")
def _server() -> Iterator[AwsServer]:
    with AwsServer() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def _descriptions() -> Iterator[None]:
    """Every command makes its own session; reading botocore's descriptions of the services takes it half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.loaders, "create_loader", cache(botocore.loaders.create_loader))
        yield


@pytest.fixture
def aws(_server: AwsServer, monkeypatch: pytest.MonkeyPatch) -> AwsServer:
    """An empty account, in which the command's credentials are."""
    _server.reset()
    for name, value in _server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(deploy.ec2.aws, "POLL_SECONDS", 0.01)
    return _server


class Checkout:
    """A repository of its own in the place of this one, so that tests choose what is checked out."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("GIT_DIR", str(folder / ".git"))
        monkeypatch.setenv("GIT_WORK_TREE", str(folder))
        self._git("init", "--quiet")
        self.commit()

    def commit(self) -> str:
        """Make a commit. Returns its tag for amd64."""
        self._git("-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "--quiet", "--allow-empty", "-m", "a")
        return self._git("rev-parse", "--short=12", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=True, timeout=60
        ).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    folder = tmp_path / "checkout"
    folder.mkdir()
    return Checkout(folder, monkeypatch)


@pytest.fixture
def tag(aws: AwsServer, checkout: Checkout) -> str:
    """A commit whose images are in ECR."""
    tag = checkout.commit()
    put_images(aws, tag)
    return tag


@pytest.fixture
def host(aws: AwsServer, tmp_path: Path) -> Iterator[StandInHost]:
    folder = tmp_path / "host"
    folder.mkdir()
    host = StandInHost(aws, folder)
    yield host
    host.close()


@pytest.fixture
def workers(aws: AwsServer, host: StandInHost, tmp_path: Path) -> StandInWorkers:
    folder = tmp_path / "workers"
    folder.mkdir()
    return StandInWorkers(aws, host, folder)


class Command:
    """`python -m deploy.ec2`, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.output = self.errors = ""

    def __call__(self, *arguments: str) -> int:
        exit_code = main(arguments)
        self.output, self.errors = self._capsys.readouterr()
        return exit_code

    def up(self, *arguments: str) -> int:
        return self("up", "--cidr", CIDR, *arguments)

    def refuses(self, *arguments: str) -> str:
        """The one line with which it ends."""
        assert self(*arguments) == 1, self.output
        assert self.output == ""
        *_, line = self.errors.splitlines()
        assert line.startswith("darkroom ec2: ")
        return line.removeprefix("darkroom ec2: ")


@pytest.fixture
def ec2(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def parameter(aws: AwsServer, name: str) -> str:
    found = aws.client("ssm").get_parameter(Name=f"/darkroom/{name}", WithDecryption=True)
    return found["Parameter"]["Value"]


def values(text: str) -> dict[str, str]:
    """Of an environment's lines."""
    return dict(line.split("=", 1) for line in text.splitlines())


def stack_parameters(aws: AwsServer) -> dict[str, str]:
    (stack,) = aws.client("cloudformation").describe_stacks(StackName="darkroom")["Stacks"]
    return {it["ParameterKey"]: it["ParameterValue"] for it in stack["Parameters"]}


def launch_template(aws: AwsServer) -> dict:
    ec2 = aws.client("ec2")
    (template,) = ec2.describe_launch_templates()["LaunchTemplates"]
    (version,) = ec2.describe_launch_template_versions(
        LaunchTemplateId=template["LaunchTemplateId"], Versions=["$Latest"]
    )["LaunchTemplateVersions"]
    return version["LaunchTemplateData"]


def open_ports(aws: AwsServer) -> set[tuple[int, str]]:
    groups = aws.client("ec2").describe_security_groups()["SecurityGroups"]
    return {
        (rule["FromPort"], ip["CidrIp"])
        for group in groups
        if group["GroupName"] != "default"
        for rule in group["IpPermissions"]
        for ip in rule["IpRanges"]
    }


Made = Callable[[], dict[str, list[str]]]


@pytest.fixture
def made(aws: AwsServer) -> Made:
    return aws.made
