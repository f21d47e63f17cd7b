"""Two network namespaces and the link between them. Only root can make them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

FIRST, SECOND = "10.77.0.1", "10.77.0.2"
_LINK = "wire"


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """The names of two namespaces with nothing but the link between them."""
    first, second = (f"darkroom-{os.getpid()}-{host}" for host in ("first", "second"))
    made = list[str]()
    try:
        for name in (first, second):
            _run(f"ip netns add {name}")
            made.append(name)
            _run(f"ip -n {name} link set lo up")
        _run(f"ip -n {first} link add {_LINK} type veth peer name {_LINK} netns {second}")
        for name, address in ((first, FIRST), (second, SECOND)):
            _run(f"ip -n {name} addr add {address}/30 dev {_LINK}")
            _run(f"ip -n {name} link set {_LINK} up")
        yield first, second
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)  # the link goes with it


def run_on(name: str, command: Sequence[str]) -> list[str]:
    """The command line by which a command runs in a namespace, in the same process."""
    return ["ip", "netns", "exec", name, *command]


def python_on(name: str, *arguments: str) -> list[str]:
    return run_on(name, [sys.executable, *arguments])


def set_link(*, up: bool) -> None:
    """Heal or cut the link of the namespace that this process is in. While it is cut, packets vanish without a word."""
    _run(f"ip link set {_LINK} {'up' if up else 'down'}")
