"""An account with hosts that are containers, and a clone from which it is deployed to."""

import base64
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

from tests.support.deploy.aws import AwsServer
from tests.support.deploy.checkout import Checkout
from tests.support.deploy.ec2_host import COMPOSE_FROM, Account, Host, started_host
from tests.support.deploy.ecr import Ecr

CIDR = "127.0.0.0/8"
COMMAND_SECONDS_MAX = 1800


class UpAccount(Account):
    """What `up` has made."""

    def __init__(self, aws: AwsServer, ecr: Ecr) -> None:
        self.ecr = ecr
        self.ec2 = aws.client("ec2")
        self.ssm = aws.client("ssm")
        self._autoscaling = aws.client("autoscaling")
        (volume,) = self.ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": ["darkroom-data"]}])["Volumes"]
        (address,) = self.ec2.describe_addresses()["Addresses"]
        self.volume_id = volume["VolumeId"]
        self.allocation_id = address["AllocationId"]
        self.ip = address["PublicIp"]

    def start_instance(self) -> str:
        """The one that the group has started."""
        (group,) = self._autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        (instance,) = group["Instances"]
        return str(instance["InstanceId"])

    def user_data(self) -> str:
        (template,) = self.ec2.describe_launch_templates()["LaunchTemplates"]
        (version,) = self.ec2.describe_launch_template_versions(
            LaunchTemplateId=template["LaunchTemplateId"], Versions=["$Latest"]
        )["LaunchTemplateVersions"]
        return base64.b64decode(version["LaunchTemplateData"]["UserData"]).decode()


class Cloud:
    """AWS's part beside its API: it boots a container as the host, runs SSM's commands on it, and ends it."""

    def __init__(self, aws: AwsServer, ecr: Ecr, device: str, compose_from: str) -> None:
        self._aws, self._ecr, self._device, self._compose_from = aws, ecr, device, compose_from
        self._hosts = ExitStack()
        self.host: Host | None = None
        self._booting: Thread | None = None
        self.log = ""
        aws.run = None
        aws.after["CreateStack"] = self.boot
        aws.after["DeleteStack"] = self.end

    def boot(self) -> None:
        """Start a host meanwhile, as the group does. Until then SSM reaches none."""
        self._booting = Thread(target=self._boot)
        self._booting.start()

    def _boot(self) -> None:
        account = UpAccount(self._aws, self._ecr)
        publish = ("--publish", f"{account.ip}:5000:5000")  # moto's addresses are of this machine: 127.a.b.c
        host = self._hosts.enter_context(started_host(account, self._device, *publish))
        self.host = host
        self._aws.run = self._run
        script = account.user_data()
        assert COMPOSE_FROM in script
        script = script.replace(COMPOSE_FROM, self._compose_from)
        done = host.run("sh", "-c", "bash >/var/log/cloud-init-output.log 2>&1", stdin=script, check=False)
        self.log = host.run("cat", "/var/log/cloud-init-output.log").stdout
        print(f"boot: {done.returncode}\n{self.log}")

    def _run(self, instance_id: str, lines: list[str]) -> subprocess.CompletedProcess[str]:
        assert self.host is not None
        assert instance_id == self.host.instance
        return self.host.run("sh", "-c", "\n".join(lines), check=False)

    def end(self) -> None:
        """As a host that dies, with or without its group."""
        self._aws.run = None
        if self._booting is not None:
            self._booting.join()
        self._hosts.close()
        self.host = None


class Clone:
    """A clone of this tree, in which an operator works."""

    def __init__(self, folder: Path, aws: AwsServer, ecr: Ecr) -> None:
        self.checkout = Checkout(folder)
        self._ecr = ecr
        self._environment = {
            **os.environ,
            **aws.environment,
            "DOCKER_BUILDKIT": "0",
            "TORCH_PIP_OPTIONS": "",
            "AWS_CONFIG_FILE": "/nonexistent",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `python -m deploy.ec2`."""
        done = subprocess.run(
            [sys.executable, "-m", "deploy.ec2", *arguments],
            cwd=self.checkout.root,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
        print(f"$ python -m deploy.ec2 {shlex.join(arguments)}\n{done.stdout}{done.stderr}exit {done.returncode}")
        assert not check or done.returncode == 0, done.stderr
        return done

    def push(self) -> str:
        pushed = re.fullmatch(r"pushed (\w+) for amd64 to (\S+)\n", self("push").stdout)
        assert pushed
        assert pushed[2] == self._ecr.host
        self._ecr.sync()
        return pushed[1]

    def up(self, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self("up", "--cidr", CIDR, check=check)

    def shell(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.checkout.root, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout
