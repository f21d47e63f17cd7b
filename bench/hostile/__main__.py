"""What another owner notices of an attacker: a single submit-and-wait after the other, beside each attack.

    .venv/bin/python -m bench.hostile [--seconds 10] [--only WORDS]

Prints a Markdown table. Exits with 1 if beside an attack the other's p99 is 10 times its p99 without one or more, if
the other is refused, if a process takes more memory than compose gives its container, or if another server sees more
connections than it may.

The longest turn is what `/livez` took at most, asked every 10 ms on one connection: a turn of the API's event loop, and
the wait for one of the machine's cores.
"""

import argparse
import signal
import sys
from collections.abc import Sequence

from bench.hostile.attacks import ATTACKS
from bench.hostile.rows import IDLE, MEMORY_BYTES_MAX, Row, measure, submit_and_wait
from bench.hostile.stack import attacked

_WARM_SECONDS = 2


def table(rows: Sequence[Row]) -> str:
    idle = rows[0]
    names = list(MEMORY_BYTES_MAX)
    peaks = " | ".join(f"{name} peak" for name in names)
    lines = [
        f"| attack | p50 | p99 | × idle p99 | submits | refused | longest turn | {peaks} | within |",
        f"|---|{'---:|' * (6 + len(names))}---|",
    ]
    for row in rows:
        peaks = " | ".join(f"{row.peak_bytes[name] >> 20} MiB" for name in names)
        lines.append(
            f"| {row.attack} | {row.quantile(50):.1f} ms | {row.quantile(99):.1f} ms | "
            f"{row.quantile(99) / idle.quantile(99):.1f} | {len(row.milliseconds)} | {row.refused.total()} | "
            f"{row.turn_milliseconds:.0f} ms | {peaks} | {'**no**' if row.faults(idle) else 'yes'} |"
        )
    return "\n".join(lines)


def remarks(rows: Sequence[Row]) -> list[str]:
    found = [f"{row.attack}: {fault}" for row in rows for fault in row.faults(rows[0])]
    for row in rows:
        if row.seen.requests:
            found.append(
                f"{row.attack}: the other server saw {row.seen.requests} requests, on {row.seen.connections} "
                "connections at a time at most"
            )
        if row.left:
            found.append(f"{row.attack}: {row.left} or more of its jobs remain for the next row")
    return found


def _end(*_: object) -> None:
    """As by Ctrl-C: attackers and services are ended on the way out."""
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each attack")
    parser.add_argument("--only", default="", help="attacks whose name has these words")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    with attacked() as stack:
        submit_and_wait(stack.service.port, _WARM_SECONDS, Row("warm-up"))
        attacks = [IDLE, *(name for name in ATTACKS if options.only in name)]
        rows = [measure(stack, attack, options.seconds) for attack in attacks]
    print(table(rows))
    print(*remarks(rows), sep="\n")
    sys.exit(any(row.faults(rows[0]) for row in rows))


if __name__ == "__main__":
    main()
