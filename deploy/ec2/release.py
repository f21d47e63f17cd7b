"""What runs on a host: where it is on its way, and changing it in place."""

import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from deploy.ec2.aws import Aws, Deadline
from deploy.ec2.errors import DeployError
from deploy.ec2.kept import Environment
from deploy.ec2.remote import HOST_COMMAND, HostNotReachable, Remote
from deploy.ec2.stack import Stack

LINES_SHOWN_MAX = 20
NOTHING_HEALTHY = 3  # of `darkroom-host upgrade`
NOT_INSTALLED = 127  # the shell's exit code: the boot script has not come so far
_CURRENT = re.compile(r"current (\S+)\n(?:.*\n)*?.*settings ([0-9a-f]{64})")
_BOOT_LINE = "tail -n 1 /var/log/cloud-init-output.log; journalctl --unit darkroom --lines 1 --output cat --no-pager"
"""What the boot script printed last, and what the service that it starts did."""


class Release(NamedTuple):
    tag: str
    settings: str
    """SHA-256 of the file."""


def wanted_release(tag: str, environment: Environment) -> Release:
    return Release(tag, hashlib.sha256(environment.file().encode()).hexdigest())


def release_on(remote: Remote, instance_id: str) -> Release | None:
    """What runs there; None if nothing does yet.

    Raises:
        HostNotReachable: SSM does not reach it, or its boot script has not come so far.
    """
    done = remote.run(instance_id, [HOST_COMMAND, "status"])
    if done.exit_code == NOT_INSTALLED:
        raise HostNotReachable(f"the boot script of {instance_id} has not come so far")
    found = _CURRENT.search(done.output)
    return Release(found[1], found[2]) if found else None


def upgrade_host(
    remote: Remote, instance_id: str, running: Release, wanted: Release, *, say: Callable[[str], None], host: str = ""
) -> None:
    """Replace what runs there, in place. `host` begins each line about it.

    Raises:
        DeployError: the new release does not get healthy, and the former runs again; or SSM does not reach it.
    """
    same = running.tag == wanted.tag
    say(f"{host}starting {wanted.tag} with new settings" if same else f"{host}upgrading {running.tag} to {wanted.tag}")
    try:
        done = remote.run(instance_id, [HOST_COMMAND, "upgrade", wanted.tag])
    except HostNotReachable as error:
        raise DeployError(f"{error}: run `up` again") from None
    if done.exit_code:
        for line in (done.output + done.errors).splitlines()[-LINES_SHOWN_MAX:]:
            say(line)
        what = f"{host}{wanted.tag} with new settings" if same else f"{host}{wanted.tag}"
        if done.exit_code == NOTHING_HEALTHY:
            raise DeployError(f"{what} did not get healthy, and {running.tag} does not any more: see `status`")
        raise DeployError(f"{what} did not get healthy: {running.tag} runs again, as before")


class HostRelease:
    def __init__(self, aws: Aws, say: Callable[[str], None], *, wait_seconds: float) -> None:
        """`wait_seconds` bounds how long a host may take until SSM reaches it."""
        self._remote = Remote(aws)
        self._stack = Stack(aws, say)
        self._say = say
        self._wait_seconds = wait_seconds

    def where(self) -> str:
        """What the host is doing, in a line."""
        instance = self._remote.instance()
        if instance is None:
            state = self._stack.state()
            trouble = self._remote.trouble(state.group) if state is not None and state.group else ""
            return trouble or "no host yet"
        if instance.state != "running":
            return f"host {instance.id} is {instance.state}"
        try:
            lines = self._remote.run(instance.id, ["sh", "-c", _BOOT_LINE]).output.split("\n")
        except HostNotReachable as error:
            return f"host {instance.id} is running; {error}"
        return f"host {instance.id}: {next((line.strip() for line in reversed(lines) if line.strip()), 'boots')}"

    def change(self, wanted: Release) -> None:
        """Replace what runs, in place. A host on which nothing runs yet starts what the parameters name.

        Raises:
            DeployError: the new release does not get healthy, and the former runs again; or SSM does not reach it.
        """
        instance_id, running = self._running()
        if running is not None and running != wanted:
            upgrade_host(self._remote, instance_id, running, wanted, say=self._say)

    def _running(self) -> tuple[str, Release | None]:
        """The instance, once SSM reaches it and its boot script has come far enough, and what it runs."""
        deadline = Deadline(self._wait_seconds, "SSM does not reach the host: `status` shows more")
        said = ""
        while True:
            instance = self._remote.instance()
            if instance is not None and instance.state == "running":
                with suppress(HostNotReachable):
                    return instance.id, release_on(self._remote, instance.id)
            if (now_at := self.where()) != said:
                said = now_at
                self._say(said)
            deadline.wait()
