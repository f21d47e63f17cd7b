"""What metrics cost: `python -m bench.metrics`. Microseconds of CPU, the best of many rounds, in one process."""

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from api.asgi.endpoint import ROUTE, EndpointRoute
from api.asgi.request_id import RESPONSE, Sent
from api.asgi.request_metrics import RequestMetrics
from jobs.metrics.process_metrics import BATCH_ITEMS, BATCH_SECONDS, ITEMS, QUEUE_SECONDS, STORE_CALL_SECONDS
from jobs.metrics.processes import join_metrics, metrics_folder

ROUNDS = 200
CALLS = 500  # of one round


async def _endpoint() -> None:
    """Never called."""


async def _app(scope: Scope, _: Receive, send: Send) -> None:
    scope[ROUTE] = ROUTE_OF_ALL
    await send({"type": "http.response.start", "status": 202})
    await send({"type": "http.response.body"})


async def _receive() -> Message:
    raise AssertionError


async def _send(_: Message) -> None:
    pass


ROUTE_OF_ALL = EndpointRoute("/v1/jobs", _endpoint, methods=["POST"])


def requests_us(app: Any) -> float:
    """Of one request."""

    async def run() -> float:
        began = time.process_time()
        for _ in range(CALLS):
            await app({"type": "http", "method": "POST", RESPONSE: Sent()}, _receive, _send)
        return (time.process_time() - began) / CALLS * 1e6

    return min(asyncio.run(run()) for _ in range(ROUNDS))


def calls_us(call: Callable[[], None]) -> float:
    """Of one call."""
    rounds = list[float]()
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(CALLS):
            call()
        rounds.append((time.process_time() - began) / CALLS * 1e6)
    return statistics.quantiles(rounds, n=10)[0]


def batch() -> None:
    """All that a worker counts of one claim with one batch."""
    QUEUE_SECONDS.measured(0.01, "m")
    BATCH_SECONDS.measured(0.001, "m", "decode")
    BATCH_SECONDS.measured(0.002, "m", "forward")
    BATCH_ITEMS.measured(16, "m")
    ITEMS.add("m", "succeeded", amount=16)
    STORE_CALL_SECONDS.measured(0.001, "finish_and_claim")


def main() -> None:
    bare, off = requests_us(_app), calls_us(batch)
    with metrics_folder():
        join_metrics("api")
        print(f"a request: {requests_us(RequestMetrics(_app)) - bare:.2f} µs more")
        join_metrics("worker")
        print(f"a claim with one batch: {calls_us(batch):.2f} µs; {off:.2f} µs without METRICS_PORT")
        print(f"one count: {calls_us(lambda: ITEMS.add('m', 'succeeded')):.2f} µs")


if __name__ == "__main__":
    main()
