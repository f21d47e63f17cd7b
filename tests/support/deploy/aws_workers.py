"""Stand-ins for hosts with workers alone: each boots when SSM first reaches it, with what the parameters say then."""

import subprocess
from pathlib import Path

from tests.support.deploy.aws import AwsServer
from tests.support.deploy.aws_host import StandInCommand, StandInHost


class StandInWorkers:
    """Takes SSM's commands for worker hosts, and leaves others to the first host."""

    def __init__(self, aws: AwsServer, first: StandInHost, folder: Path) -> None:
        self._aws, self._first, self._folder = aws, first, folder
        self.by_id: dict[str, StandInCommand] = {}
        """Those that have booted, the first one first."""
        self.upgrades: list[str] = []
        """The hosts that were told to upgrade, in order; the first host is `first`."""
        self.boots = True
        """Whether SSM reaches hosts that are new."""
        aws.run = self.run

    def instances(self) -> list[str]:
        """As AWS has them."""
        found = self._aws.client("ec2").describe_instances(
            Filters=[
                {"Name": "tag-key", "Values": ["darkroom-workers"]},
                {"Name": "instance-state-name", "Values": ["running"]},
            ]
        )
        return [it["InstanceId"] for reservation in found["Reservations"] for it in reservation["Instances"]]

    def boot(self, instance_id: str) -> StandInCommand:
        folder = self._folder / instance_id
        folder.mkdir()
        host = self.by_id[instance_id] = StandInCommand(folder)
        host.pretend(self._parameter("tag"), self._environment())
        return host

    def run(self, instance_id: str, lines: list[str]) -> subprocess.CompletedProcess[str]:
        is_worker = instance_id in self.instances()
        if any("darkroom-host upgrade" in line for line in lines):
            self.upgrades.append(instance_id if is_worker else "first")
        if not is_worker:
            return self._first.run(instance_id, lines)
        if instance_id not in self.by_id:
            if not self.boots:
                return subprocess.CompletedProcess(lines, 127, "", "darkroom-host: not found")
            self.boot(instance_id)
        return self.by_id[instance_id].execute(lines, self._environment())

    def _environment(self) -> str:
        return f"{self._parameter('environment')}\n"

    def _parameter(self, name: str) -> str:
        found = self._aws.client("ssm").get_parameter(Name=f"/darkroom/workers/{name}", WithDecryption=True)
        return str(found["Parameter"]["Value"])
