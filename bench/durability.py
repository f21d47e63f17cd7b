"""What `appendfsync always` costs, against `everysec`: throughput, and the latency of one in flight.

    .venv/bin/python -m bench.durability

The server alternates between the two policies, so that drift of the machine affects both equally.
"""

import itertools
import statistics
from collections import defaultdict

from bench.__main__ import MODES, SHORT_TTL, Row, measure, shots
from bench.bulk.archives import images
from bench.services import SECURED, darkroom

ROUNDS, SECONDS = 5, 5
IN_FLIGHT = (1, 128)
POLICIES = ("always", "everysec")
MODE = "submit and wait"


def main() -> None:
    load = shots(images()[:2000], "image/png")
    rows = defaultdict[tuple[int, str], list[Row]](list)
    with darkroom(SECURED | SHORT_TTL) as service:
        for _ in range(ROUNDS):
            for in_flight, policy in itertools.product(IN_FLIGHT, POLICIES):
                service.stack.redis.config_set("appendfsync", policy)
                row = measure("Darkroom", service, MODE, MODES[MODE], "PNG", load, in_flight, SECONDS)
                assert not row.wrong, f"{row.wrong} wrong classes"
                assert not row.failures, f"{row.failures} failures"
                rows[in_flight, policy].append(row)
    rates = {case: statistics.median(row.images_per_second for row in found) for case, found in rows.items()}
    for (in_flight, policy), found in rows.items():
        p50, p99 = (statistics.median(getattr(row, name) for row in found) for name in ("p50_ms", "p99_ms"))
        print(
            f"{in_flight} in flight, {policy}: {rates[in_flight, policy]:,.0f} images/s, "
            f"p50 {p50:.2f} and p99 {p99:.2f} ms"
        )
    for in_flight in IN_FLIGHT:
        always, everysec = (rates[in_flight, policy] for policy in POLICIES)
        print(f"{in_flight} in flight: always has {always / everysec:.2f} of the throughput of everysec")


if __name__ == "__main__":
    main()
