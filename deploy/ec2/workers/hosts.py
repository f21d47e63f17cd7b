"""The hosts with workers alone: what runs there, and changing it, one host after the other."""

from collections.abc import Callable, Iterator

from deploy.ec2.aws import Aws, Deadline
from deploy.ec2.errors import DeployError
from deploy.ec2.release import Release, release_on, upgrade_host
from deploy.ec2.remote import HostNotReachable, Instance, Remote


class WorkerHosts:
    def __init__(self, aws: Aws, say: Callable[[str], None]) -> None:
        self._remote = Remote(aws)
        self._say = say

    def change(self, wanted: Release) -> int:
        """Replace what runs, in place. A host that still boots is left alone: it starts what the parameters name.

        Returns:
            How many run it now.

        Raises:
            DeployError: it does not get healthy on one of them, whose former release runs again.
        """
        changed = 0
        for instance in self._remote.workers():
            try:
                running = release_on(self._remote, instance.id)
            except HostNotReachable:
                continue
            if running is None:
                continue
            if running != wanted:
                self._upgrade(instance, running, wanted, changed)
            changed += 1
        return changed

    def wait(self, wanted: Release, count: int, *, seconds_max: float) -> None:
        """Wait until so many run it. One that comes up with the former release is changed.

        Raises:
            DeployError: not in time, or as `change`.
        """
        deadline = Deadline(seconds_max, "")
        said = ""
        while (running := self.change(wanted)) < count:
            now_at = f"{running} of {count} worker hosts run {wanted.tag}"
            if now_at != said:
                said = now_at
                self._say(now_at)
            deadline.problem = f"{now_at}: `status` shows them, and `exec --host ID` runs a command on one"
            deadline.wait()

    def lines(self, count: int) -> Iterator[str]:
        """For `status`: how many there are, and what each runs."""
        instances = self._remote.workers()
        yield f"{len(instances)} of {count} hosts"
        for instance in instances:
            yield f"{instance.id}, {instance.type}, {instance.zone}, {instance.state}: {self._state(instance)}"

    def _state(self, instance: Instance) -> str:
        try:
            running = release_on(self._remote, instance.id)
        except HostNotReachable as error:
            return str(error)
        return "nothing runs yet" if running is None else f"runs {running.tag}"

    def _upgrade(self, instance: Instance, running: Release, wanted: Release, changed: int) -> None:
        try:
            upgrade_host(self._remote, instance.id, running, wanted, say=self._say, host=f"worker host {instance.id}: ")
        except DeployError as error:
            if not changed:
                raise
            others = "another worker host runs" if changed == 1 else f"{changed} other worker hosts run"
            raise DeployError(f"{error}; {others} {wanted.tag}") from None
