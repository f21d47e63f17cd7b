"""Another host behind this one, as the internet is."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.waiting import wait_until

_ADDRESS, _PORT = "203.0.113.2", 8099


@contextmanager
def other_host() -> Iterator[tuple[str, int]]:
    """Address and port of a server there, which has no way back into Docker's networks. Only root can make it."""
    name = f"darkroom-{os.getpid()}"
    device = name[-8:]
    commands = f"""ip netns add {name}
        ip link add {device}a type veth peer name {device}b netns {name}
        ip addr add 203.0.113.1/30 dev {device}a
        ip link set {device}a up
        ip -n {name} addr add {_ADDRESS}/30 dev {device}b
        ip -n {name} link set {device}b up"""
    try:
        for command in commands.splitlines():
            subprocess.run(command.split(), check=True)
        serve = f"ip netns exec {name} {sys.executable} -m http.server {_PORT} --bind {_ADDRESS}"
        with subprocess.Popen(serve.split(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                wait_until(_answers, what="the server")
                yield _ADDRESS, _PORT
            finally:
                server.kill()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)  # its device goes with it


def _answers() -> bool:
    with suppress(OSError), socket.create_connection((_ADDRESS, _PORT), timeout=1):
        return True
    return False
