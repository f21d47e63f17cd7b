"""What another owner notices of an attacker: a single submit-and-wait after the other, beside each attack.

    .venv/bin/python -m bench.hostile [--seconds 10] [--only WORDS]

Prints a Markdown table. Exits with 1 if beside an attack the other's p99 is 10 times its p99 without one or more, if
the other is refused, or if a process takes more memory than compose gives its container.
"""

import argparse
import http.client
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from bench.bulk.archives import images
from bench.hostile.attacks import ATTACKS
from bench.services import Darkroom, darkroom

_KEYS = {"attacker": "attacker-key-0123456789", "other": "other-key-0123456789"}
_SETTINGS = {"API_KEYS": orjson.dumps(_KEYS).decode()}
_AUTHORIZATION = {owner: f"Bearer {key}" for owner, key in _KEYS.items()}
_TIMES_MAX = 10
_MEMORY_BYTES_MAX = {"api": 2 << 30, "worker": 2 << 30, "valkey": 2304 << 20}  # docker-compose.yml
_IDLE = "none"
_WAIT_SECONDS = 30


@dataclass
class Row:
    attack: str
    milliseconds: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    peak_bytes: dict[str, int] = field(default_factory=dict)

    def quantile(self, percent: int) -> float:
        return statistics.quantiles(self.milliseconds, n=100, method="inclusive")[percent - 1]


def submit_and_wait(port: int, image: bytes, seconds: float, row: Row) -> None:
    """One submit after the other, each on a connection of its own: an attack on connections is to be noticed."""
    headers = {
        "Content-Type": "image/png",
        "Prefer": f"wait={_WAIT_SECONDS}",
        "Authorization": _AUTHORIZATION["other"],
    }
    ends = time.monotonic() + seconds
    while time.monotonic() < ends or len(row.milliseconds) < 2:
        began = time.perf_counter()
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_SECONDS + 10)
        try:
            client.request("POST", "/v1/jobs", image, headers)
            answer = client.getresponse()
            body = answer.read()
            if answer.status != 200:
                row.refused.append(f"{answer.status} {body[:100].decode(errors='replace')}")
        except (OSError, http.client.HTTPException) as error:
            row.refused.append(repr(error))
        finally:
            client.close()
        row.milliseconds.append(1000 * (time.perf_counter() - began))


def measure(service: Darkroom, attack: str, image: bytes, seconds: float) -> Row:
    row = Row(attack)
    for name in _MEMORY_BYTES_MAX:
        service.servers.reset_peak(name)
    if attack == _IDLE:
        submit_and_wait(service.port, image, seconds, row)
    else:
        command = [sys.executable, "-m", "bench.hostile.attacks", attack, str(service.port)]
        arguments = [*command, _AUTHORIZATION["attacker"], str(seconds)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as attacker:
            try:
                assert attacker.stdout is not None
                attacker.stdout.readline()  # it begins
                submit_and_wait(service.port, image, seconds, row)
            finally:
                attacker.terminate()
    row.peak_bytes = service.servers.peak_bytes()
    return row


def breaks_the_rule(row: Row, idle: Row) -> bool:
    too_slow = row is not idle and row.quantile(99) >= _TIMES_MAX * idle.quantile(99)
    too_large = any(row.peak_bytes[name] > limit for name, limit in _MEMORY_BYTES_MAX.items())
    return too_slow or too_large or bool(row.refused)


def table(rows: Sequence[Row]) -> str:
    idle = rows[0]
    names = list(_MEMORY_BYTES_MAX)
    peaks = " | ".join(f"{name} peak" for name in names)
    lines = [
        f"| attack | p50 | p99 | × idle p99 | submits | refused | {peaks} | within |",
        f"|---|{'---:|' * (5 + len(names))}---|",
    ]
    for row in rows:
        peaks = " | ".join(f"{row.peak_bytes[name] >> 20} MiB" for name in names)
        lines.append(
            f"| {row.attack} | {row.quantile(50):.1f} ms | {row.quantile(99):.1f} ms | "
            f"{row.quantile(99) / idle.quantile(99):.1f} | {len(row.milliseconds)} | {len(row.refused)} | {peaks} | "
            f"{'**no**' if breaks_the_rule(row, idle) else 'yes'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each attack")
    parser.add_argument("--only", default="", help="attacks whose name has these words")
    options = parser.parse_args()
    image = images()[0]
    with darkroom(_SETTINGS) as service:
        submit_and_wait(service.port, image, 2, Row("warm-up"))
        attacks = [_IDLE, *(name for name in ATTACKS if options.only in name)]
        rows = [measure(service, attack, image, options.seconds) for attack in attacks]
    print(table(rows))
    for row in rows:
        for refusal in sorted(set(row.refused))[:3]:
            print(f"{row.attack}: {refusal}")
    sys.exit(any(breaks_the_rule(row, rows[0]) for row in rows))


if __name__ == "__main__":
    main()
