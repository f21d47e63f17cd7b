"""`darkroom-admin status`: the figures of the store that Prometheus reads, in a terminal and without Prometheus."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing

import orjson

from jobs.errors import StoreUnavailable
from jobs.settings import StoreSettings
from jobs.store.store_figures import STORE_UP, Figures, StoreFigures, with_store_up
from jobs.times import iso_time

WATCH_SECONDS_MIN, WATCH_SECONDS_MAX = 1, 3600
_PREFIX = "darkroom_"
_QUEUE = "darkroom_queue_"
_CLEAR = "\x1b[H\x1b[2J"
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def show_status(settings: StoreSettings, *, as_json: bool, watch_seconds: int | None) -> None:
    """Write the figures once, or again and again until it is interrupted.

    Raises:
        StoreUnavailable: Redis does not answer, and nobody watches for it to come back.
    """
    with closing(StoreFigures(settings)) as store:
        while True:
            figures = with_store_up(store)
            if watch_seconds is None and len(figures) == 1:
                raise StoreUnavailable
            if watch_seconds is not None and sys.stdout.isatty():
                sys.stdout.write(_CLEAR)
            sys.stdout.write(_as_json(figures) if as_json else "\n".join(_lines(figures)) + "\n")
            sys.stdout.flush()
            if watch_seconds is None:
                return
            time.sleep(watch_seconds)


def _as_json(figures: list[Figures]) -> str:
    """One line: each figure under its name in Prometheus, as a list of labels and values."""
    view = {
        it.name: [
            {"labels": dict(zip(it.labels, labels, strict=True)), "value": value} for labels, value in it.values.items()
        ]
        for it in figures
    }
    return orjson.dumps(view, option=orjson.OPT_APPEND_NEWLINE).decode()


def _lines(figures: list[Figures]) -> Iterator[str]:
    """What waits as a table, then each other figure on a line of its own."""
    yield f"{'time':<34}{iso_time(time.time_ns() // 1_000_000)}"
    queue = [it for it in figures if it.name.startswith(_QUEUE)]
    for each in figures:
        if each in queue:
            if each is queue[0]:
                yield from _queue_lines(queue)
            continue
        for labels, value in each.values.items():
            name = " ".join([each.name.removeprefix(_PREFIX).replace("_", " ").removesuffix(" bytes"), *labels])
            yield f"{name:<34}{_shown(each, value)}"


def _queue_lines(queue: list[Figures]) -> Iterator[str]:
    names = [it.name.removeprefix(_QUEUE).replace("_", " ") for it in queue]
    waiting = [labels for labels in queue[0].values if any(it.values[labels] for it in queue)]
    rows = [["queue", "lane", *names]]
    rows += [[*labels, *(f"{it.values[labels]:g}" for it in queue)] for labels in waiting]
    if not waiting:
        yield f"{'queue':<34}nothing waits"
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _shown(figures: Figures, value: float) -> str:
    if figures.name == STORE_UP:
        return "yes" if value else "no: Redis does not answer"
    if figures.name.endswith("_bytes"):
        for size, unit in _UNITS:
            if value >= size:
                return f"{value / size:.1f} {unit}"
    return f"{value:.0f}"
