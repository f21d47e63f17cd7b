"""The part of `up` that is about worker hosts: their parameters, and what runs on them."""

from collections.abc import Callable

from deploy.ec2.aws import Aws
from deploy.ec2.errors import DeployError
from deploy.ec2.kept import Address, Environment, Kept
from deploy.ec2.options import UpOptions
from deploy.ec2.plan import Plan
from deploy.ec2.release import wanted_release
from deploy.ec2.workers.hosts import WorkerHosts
from deploy.ec2.workers.parameters import WorkerParameters


class WorkerRollout:
    """Does nothing where there are to be no worker hosts."""

    def __init__(self, aws: Aws, kept: Kept, options: UpOptions, say: Callable[[str], None]) -> None:
        self.parameters = WorkerParameters(aws, kept)
        self._options = options
        self._hosts = WorkerHosts(aws, say)
        self._environment: Environment | None = None
        self._environment_before: Environment | None = None

    def prepare(self, plan: Plan, address: Address, tag: str) -> None:
        """Write what worker hosts read at their first boot."""
        if plan.worker is None:
            return
        before = self.parameters.environment()
        wanted = self.parameters.wanted(plan.environment, address, plan.worker, gpu=self._options.gpu)
        self.parameters.make_certificate(address, before)
        if before is None or before.lines != wanted.lines:
            self.parameters.write_environment(wanted)
        if self.parameters.tag() is None:
            self.parameters.write_tag(tag)
        self._environment, self._environment_before = wanted, before

    def change(self, tag: str) -> None:
        """Run this release on the hosts that are there, one after the other.

        Raises:
            DeployError: one does not get healthy. It is as before, those before it keep the new release, and a host
                that is started later has the former.
        """
        if self._environment is None:
            return
        try:
            self._hosts.change(wanted_release(tag, self._environment))
        except DeployError:
            self.restore()
            raise
        if self.parameters.tag() != tag:
            self.parameters.write_tag(tag)
        self._environment_before = self._environment

    def restore(self) -> None:
        """Let a host that is started later have the settings of the last release that ran."""
        if self._environment_before is not None:
            self.parameters.write_environment(self._environment_before)

    def finish(self, tag: str) -> None:
        """Wait until all run this release. Without worker hosts, delete what is left of former ones."""
        if self._environment is not None:
            wanted, seconds_max = wanted_release(tag, self._environment), self._options.wait_seconds
            self._hosts.wait(wanted, self._options.workers, seconds_max=seconds_max)
        elif self.parameters.environment() is not None:
            self.parameters.delete()
