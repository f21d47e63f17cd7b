"""The CloudFormation stack of one deployment."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from deploy.ec2.aws import TAG, Aws, Deadline, code_of
from deploy.ec2.errors import DeployError

TEMPLATE = Path(__file__).with_name("template.yaml")
STACK_SECONDS_MAX = 1800
"""For a change that replaces the host: the old one is given its time to end."""
_USER_DATA, _WORKER_USER_DATA = '"@USER_DATA@"', '"@WORKER_USER_DATA@"'
_GOOD = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")
_REPLACING = ("ImageId", "InstanceType", "Spot", "RootGiB", "KeyName", "S3Bucket", "SubnetId")
"""Parameters of the launch template: a change replaces the host."""
_REPLACING_WORKERS = ("ImageId", "Spot", "RootGiB", "SubnetId", "WorkerType")


class Change(NamedTuple):
    parameter: str
    before: str
    after: str

    @property
    def text(self) -> str:
        return f"{self.parameter}: {self.before or 'none'} → {self.after or 'none'}"


def tell(changes: list[Change], *, has_workers: bool) -> list[str]:
    """Lines for the operator. A new template may have another boot script, and then the host is replaced as well."""
    lines = [change.text for change in changes]
    if any(change.parameter in (*_REPLACING, "template") for change in changes):
        lines.append("the host is replaced: some minutes without the service, and no job is lost")
    if has_workers and any(change.parameter in (*_REPLACING_WORKERS, "template") for change in changes):
        lines.append("worker hosts are replaced, one after the other")
    return lines


class StackState(NamedTuple):
    status: str
    parameters: Mapping[str, str]
    ours: bool
    group: str
    """Name of the Auto Scaling group; empty until the stack is complete."""
    worker_group: str
    """That of the worker hosts; empty without any."""

    @property
    def workers(self) -> int:
        """How many worker hosts there are to be."""
        return int(self.parameters.get("Workers", "0"))

    @property
    def busy(self) -> bool:
        return self.status.endswith("_IN_PROGRESS")


def template(user_data: str, worker_user_data: str) -> str:
    """The stack's template, with the boot scripts in it: as text, as both in base64 would be too long for a request."""
    text = TEMPLATE.read_text()
    for placeholder, script in ((_USER_DATA, user_data), (_WORKER_USER_DATA, worker_user_data)):
        text = text.replace(placeholder, json.dumps({"Fn::Base64": script}))
    return text


class Stack:
    def __init__(self, aws: Aws, say: Callable[[str], None]) -> None:
        self._aws = aws
        self._cfn = aws.cloudformation
        self._say = say

    def state(self) -> StackState | None:
        """None if there is no stack of the name."""
        try:
            (stack,) = self._cfn.describe_stacks(StackName=self._aws.name)["Stacks"]
        except ClientError as error:
            if code_of(error) == "ValidationError" and "does not exist" in str(error):
                return None
            raise
        if stack["StackStatus"] == "DELETE_COMPLETE":
            return None
        outputs = {it["OutputKey"]: it["OutputValue"] for it in stack.get("Outputs", [])}
        return StackState(
            stack["StackStatus"],
            {it["ParameterKey"]: it["ParameterValue"] for it in stack.get("Parameters", [])},
            any(it["Key"] == TAG and it["Value"] == self._aws.name for it in stack.get("Tags", [])),
            outputs.get("Group", ""),
            outputs.get("WorkerGroup", ""),
        )

    def ours(self) -> StackState | None:
        """The state; None if there is no stack of the name. Raises `DeployError` if it is not of Darkroom."""
        state = self.state()
        if state is not None and not state.ours:
            raise DeployError(
                f"the stack {self._aws.name} is not of Darkroom (it lacks the tag {TAG}={self._aws.name}): "
                "choose another --name"
            )
        return state

    def settled(self) -> StackState | None:
        """The state once nothing is in progress: an `up` or `down` that was interrupted, or another one.

        Raises:
            DeployError: the stack is not of Darkroom, or it is busy for too long.
        """
        state = self.ours()
        deadline = Deadline(STACK_SECONDS_MAX, f"the stack {self._aws.name} is still busy: see its events")
        said = ""
        while state is not None and state.busy:
            if state.status != said:
                said = state.status
                self._say(f"stack {self._aws.name}: {said}")
            deadline.wait()
            state = self.ours()
        return state

    def usable(self) -> StackState | None:
        """As `settled`, for `up`. Raises `DeployError` for a stack that can only be taken down."""
        state = self.settled()
        if state is not None and state.status not in _GOOD:
            raise DeployError(
                f"the stack {self._aws.name} is {state.status}{self._reason()}: run `down`, which keeps the data, "
                "then `up` again"
            )
        return state

    def changes(self, state: StackState, parameters: Mapping[str, str], body: str) -> list[Change]:
        """What an update with these parameters would change."""
        found = [
            Change(name, state.parameters.get(name, ""), value)
            for name, value in parameters.items()
            if state.parameters.get(name, "") != value
        ]
        if self._cfn.get_template(StackName=self._aws.name, TemplateStage="Original")["TemplateBody"] != body:
            found.append(Change("template", "of the last `up`", "of this release"))
        return found

    def apply(self, state: StackState | None, parameters: Mapping[str, str], body: str) -> StackState:
        """Create or update, and wait for its end.

        Raises:
            DeployError: it was rolled back, with the first reason that CloudFormation gives.
        """
        request: dict[str, Any] = {
            "StackName": self._aws.name,
            "TemplateBody": body,
            "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
            "Capabilities": ["CAPABILITY_IAM"],
            "Tags": self._aws.tags,
        }
        if state is None:
            self._cfn.create_stack(**request)
        else:
            try:
                self._cfn.update_stack(**request)
            except ClientError as error:
                if "No updates are to be performed" in str(error):
                    return state
                raise
        done = self.usable()
        if done is None:
            raise DeployError(f"the stack {self._aws.name} was deleted meanwhile: run `up` again")
        if done.status == "UPDATE_ROLLBACK_COMPLETE":
            raise DeployError(f"the change was rolled back{self._reason()}: the stack is as it was")
        return done

    def delete(self) -> bool:
        """Delete the stack and wait. Returns whether there was one.

        Raises:
            DeployError: it is not of Darkroom, or something in it cannot be deleted.
        """
        if self.settled() is None:
            return False
        self._cfn.delete_stack(StackName=self._aws.name)
        if (left := self.settled()) is not None:
            raise DeployError(
                f"the stack {self._aws.name} is {left.status}{self._reason()}: mend that, then `down` again"
            )
        return True

    def _reason(self) -> str:
        """Why the newest operation failed: the first failure of it, as the later ones follow from that."""
        events = self._cfn.describe_stack_events(StackName=self._aws.name)["StackEvents"]  # the newest first
        reason = ""
        for event in events:
            status, why = event.get("ResourceStatus", ""), event.get("ResourceStatusReason", "")
            if status.endswith("_FAILED") and why and "cancelled" not in why:
                reason = f" ({event['LogicalResourceId']}: {' '.join(why.split())})"
            if (
                reason
                and event["LogicalResourceId"] == self._aws.name
                and status in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS")
            ):
                break
        return reason
