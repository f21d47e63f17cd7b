"""The hosts: which instances they are, and commands on them over SSM, without a port for them."""

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from deploy.ec2.aws import WORKERS_TAG, Aws, Deadline, code_of

HOST_COMMAND = "darkroom-host"
_PATH = "export PATH=/usr/local/sbin:/usr/local/bin:$PATH"  # where the boot script installs it
OUTPUT_CHARACTERS_MAX = 24_000
"""That SSM keeps of either stream."""
COMMAND_SECONDS_MAX = 3600
DELIVERY_SECONDS_MAX = 60
"""Until the agent on the host has taken a command."""
_RUNNING = ("Pending", "InProgress", "Delayed", "Cancelling")


class Instance(NamedTuple):
    id: str
    state: str
    type: str
    zone: str
    image_id: str


class Done(NamedTuple):
    exit_code: int
    output: str
    errors: str


class HostNotReachable(Exception):
    """SSM does not know the instance yet, or its agent does not answer."""


class Remote:
    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def instance(self) -> Instance | None:
        """The first host: the newest that has not ended; one that is ending if there is no other."""
        found = self._instances(self._aws.tagged, ["pending", "running", "stopping"])
        # CloudFormation puts the stack's tags, so the deployment's, on instances of every group.
        found = [it for it in found if not any(tag["Key"] == WORKERS_TAG for tag in it.get("Tags", []))]
        found.sort(key=lambda it: (it["State"]["Name"] != "stopping", it["LaunchTime"]))
        return _instance(found[-1]) if found else None

    def workers(self) -> list[Instance]:
        """The hosts with workers alone that have not ended, the oldest first."""
        tagged = [{"Name": f"tag:{WORKERS_TAG}", "Values": [self._aws.name]}]
        found = self._instances(tagged, ["pending", "running"])
        return [_instance(it) for it in sorted(found, key=lambda it: (it["LaunchTime"], it["InstanceId"]))]

    def _instances(self, tagged: list[dict[str, Any]], states: list[str]) -> list[dict[str, Any]]:
        filters = [*tagged, {"Name": "instance-state-name", "Values": states}]
        reservations = self._aws.ec2.describe_instances(Filters=filters)["Reservations"]
        return [instance for reservation in reservations for instance in reservation["Instances"]]

    def trouble(self, group: str) -> str:
        """Why the group could not start a host, as its newest activity says; empty if it could."""
        activities = self._aws.autoscaling.describe_scaling_activities(AutoScalingGroupName=group, MaxRecords=1)
        newest: dict[str, str] = next(iter(activities["Activities"]), {})
        return newest.get("StatusMessage", "") if newest.get("StatusCode") == "Failed" else ""

    def run(self, instance_id: str, command: Sequence[str], *, stop_if_interrupted: bool = False) -> Done:
        """Run a command as root on the host, with its arguments as they are. Without `stop_if_interrupted` it goes on.

        Raises:
            HostNotReachable: it did not run.
            DeployError: it did not end in time.
        """
        try:
            sent = self._aws.ssm.send_command(
                InstanceIds=[instance_id],
                DocumentName="AWS-RunShellScript",
                TimeoutSeconds=DELIVERY_SECONDS_MAX,
                Parameters={"commands": [_PATH, shlex.join(command)], "executionTimeout": [str(COMMAND_SECONDS_MAX)]},
            )
        except ClientError as error:
            if code_of(error) == "InvalidInstanceId":
                raise HostNotReachable(f"SSM does not reach {instance_id} yet") from None
            raise
        command_id = sent["Command"]["CommandId"]
        try:
            return self._result(command_id, instance_id)
        except KeyboardInterrupt:
            if stop_if_interrupted:
                self._aws.ssm.cancel_command(CommandId=command_id)
            raise

    def _result(self, command_id: str, instance_id: str) -> Done:
        deadline = Deadline(COMMAND_SECONDS_MAX + DELIVERY_SECONDS_MAX, f"the command on {instance_id} has not ended")
        while (found := self._invocation(command_id, instance_id)) is None or found["Status"] in _RUNNING:
            deadline.wait()
        if found["ResponseCode"] < 0:  # never started
            raise HostNotReachable(f"{instance_id} did not take the command: {found['StatusDetails']}")
        return Done(found["ResponseCode"], found["StandardOutputContent"], found["StandardErrorContent"])

    def _invocation(self, command_id: str, instance_id: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._aws.ssm.get_command_invocation(CommandId=command_id, InstanceId=instance_id)
        except ClientError as error:
            if code_of(error) == "InvocationDoesNotExist":  # for a moment after it was sent
                return None
            raise
        return found


def _instance(found: dict[str, Any]) -> Instance:
    return Instance(
        found["InstanceId"],
        found["State"]["Name"],
        found["InstanceType"],
        found["Placement"]["AvailabilityZone"],
        found["ImageId"],
    )
