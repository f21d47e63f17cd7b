"""What is measured beside an attack: another owner's submits, turns of the API's event loop, and memory."""

import http.client
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import orjson

from bench.hostile.stack import ATTACKERS, OTHER, Attacked, clear
from bench.hostile.victim import Seen
from tests.support.processes import ROOT
from worker.outbound.settings import FetchSettings

IDLE = "none"
TIMES_MAX = 10
MEMORY_BYTES_MAX = {"api": 4 << 30, "worker": 2 << 30, "outbound": 2 << 30, "valkey": 2304 << 20}  # docker-compose.yml
HOST_CONNECTIONS_MAX = FetchSettings.model_fields["fetch_host_connections"].default
IMAGE = (ROOT / "tests/data/0007-shirt.png").read_bytes()
_WAIT_SECONDS = 30
_END_SECONDS_MAX = 90  # of one submit
_LATE_SECONDS_MAX = 300  # the last submit may take long: the attack goes on until it has ended
_TICK_SECONDS = 0.01


@dataclass
class Row:
    attack: str
    milliseconds: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    turn_milliseconds: float = 0
    """The longest that the API took for `/livez`, which needs nothing but a turn of its event loop."""
    seen: Seen = field(default_factory=lambda: Seen(0, 0))
    """By the other server."""
    left: int = 0
    """Jobs of attackers which could not be deleted after the row."""

    def quantile(self, percent: int) -> float:
        return statistics.quantiles(self.milliseconds, n=100, method="inclusive")[percent - 1]

    def faults(self, idle: "Row | None" = None) -> list[str]:
        """What is not as it has to be. Times are looked at if they can be compared."""
        found = [f"refused {count} times: {what}" for what, count in self.refused.most_common(5)]
        for name, limit in MEMORY_BYTES_MAX.items():
            if self.peak_bytes[name] > limit:
                found.append(f"{name} took {self.peak_bytes[name] >> 20} of {limit >> 20} MiB")
        if self.seen.connections > HOST_CONNECTIONS_MAX:
            found.append(f"{self.seen.connections} connections to one host; {HOST_CONNECTIONS_MAX} are allowed")
        if idle is not None and idle is not self and self.quantile(99) >= TIMES_MAX * idle.quantile(99):
            found.append(f"p99 is {self.quantile(99):.0f} ms, and {idle.quantile(99):.0f} ms without an attack")
        return found


def measure(stack: Attacked, attack: str, seconds: float, *, size: float = 1) -> Row:
    """Another owner's submits beside this attack, or beside none."""
    row, servers, port = Row(attack), stack.service.servers, stack.service.port
    stack.victim.seen()
    for name in MEMORY_BYTES_MAX:
        servers.reset_peak(name)
    attacker: AbstractContextManager[None] = nullcontext()
    if attack != IDLE:
        attacker = stack.attackers.attacking(
            attack, port, *ATTACKERS, seconds=seconds + _LATE_SECONDS_MAX, victim=stack.victim.url, size=size
        )
    with _ticking(port, row), attacker:
        submit_and_wait(port, seconds, row)
    row.peak_bytes = servers.peak_bytes()
    row.seen = stack.victim.seen()
    row.left = 0 if attack == IDLE else clear(port)
    return row


def submit_and_wait(port: int, seconds: float, row: Row) -> None:
    """One submit after the other, each on a connection of its own: an attack on connections is to be noticed."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends or len(row.milliseconds) < 2:
        began = time.perf_counter()
        if refusal := _submit(port):
            row.refused[refusal] += 1
        row.milliseconds.append(1000 * (time.perf_counter() - began))


def _submit(port: int) -> str:
    """Returns why it did not end as completed, if so."""
    headers = {"Authorization": OTHER}
    submits = {"Content-Type": "image/png", "Prefer": f"wait={_WAIT_SECONDS}"}
    ends = time.monotonic() + _END_SECONDS_MAX
    try:
        status, body = _exchange(port, "POST", "/v1/jobs", headers | submits, IMAGE)
        while status in (200, 202):
            job = orjson.loads(body)
            if job["status"] in ("completed", "failed"):
                return "" if job["status"] == "completed" else body.decode()
            if time.monotonic() > ends:
                return f"has not ended after {_END_SECONDS_MAX} s"
            status, body = _exchange(port, "GET", f"{job['links']['self']}?wait={_WAIT_SECONDS}", headers)
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    return f"{status} {body[:200].decode(errors='replace')}"


def _exchange(port: int, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_SECONDS + 10)
    try:
        client.request(method, path, body, headers)
        answer = client.getresponse()
        return answer.status, answer.read()
    finally:
        client.close()


@contextmanager
def _ticking(port: int, row: Row) -> Iterator[None]:
    """Ask for `/livez` every 10 ms on one connection meanwhile."""
    over = threading.Event()

    def tick() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_SECONDS)
        while not over.wait(_TICK_SECONDS):
            began = time.perf_counter()
            try:
                client.request("GET", "/livez")
                client.getresponse().read()
            except (OSError, http.client.HTTPException):
                client.close()  # it is opened again by the next request
            row.turn_milliseconds = max(row.turn_milliseconds, 1000 * (time.perf_counter() - began))
        client.close()

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
