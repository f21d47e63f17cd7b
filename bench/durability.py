"""What `appendfsync always` costs, against `everysec`: throughput, and the latency of one in flight.

    .venv/bin/python -m bench.durability

The server is switched between runs that take turns, so that a machine's drift meets both alike.
"""

import asyncio
import itertools
import statistics
from collections import defaultdict

from bench.closed_loop import closed_loop
from bench.services import darkroom
from tests.support.pictures import samples

ROUNDS, SECONDS = 5, 6
IN_FLIGHT = (1, 128)


def main() -> None:
    images = itertools.cycle(samples().values())
    rates, medians = defaultdict[tuple[str, int], list[float]](list), defaultdict[tuple[str, int], list[float]](list)
    with darkroom({}) as service:
        asyncio.run(closed_loop(service.url, images, in_flight=32, seconds=3))  # warm
        for _ in range(ROUNDS):
            for policy, in_flight in itertools.product(("always", "everysec"), IN_FLIGHT):
                service.stack.redis.config_set("appendfsync", policy)
                rate, took = asyncio.run(closed_loop(service.url, images, in_flight=in_flight, seconds=SECONDS))
                rates[policy, in_flight].append(rate)
                medians[policy, in_flight].append(1000 * took[len(took) // 2])
    for policy, in_flight in rates:
        rate, median = (statistics.median(found[policy, in_flight]) for found in (rates, medians))
        print(f"{policy}, {in_flight} in flight: {rate:.0f} images/s, p50 {median:.2f} ms")
    for in_flight in IN_FLIGHT:
        ratio = statistics.median(rates["always", in_flight]) / statistics.median(rates["everysec", in_flight])
        print(f"{in_flight} in flight: always has {ratio:.2f} of the throughput of everysec")


if __name__ == "__main__":
    main()
