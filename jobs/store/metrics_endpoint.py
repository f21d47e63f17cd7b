"""Answers Prometheus on `METRICS_PORT`: the numbers of all processes of this service, and those of the store."""

import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, cast

from jobs.errors import SettingsError
from jobs.metrics.processes import metrics_folder
from jobs.metrics.settings import ServiceSettings
from jobs.store.store_figures import Figures, StoreFigures, with_store_up

_KEPT_SECONDS = 1.0  # however often it is scraped, Redis is read once in this time
_SAME = " The same at every instance: use max by, not sum."


class StoreCollector:
    """The store's figures, as prometheus_client asks for them in the threads of its server."""

    def __init__(self, store: StoreFigures) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._figures: list[Figures] = []
        self._read_at = -math.inf

    def collect(self) -> Iterable[object]:
        """Families of prometheus_client. Without Redis, only that it is away."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for figures in self._current():
            kind = CounterMetricFamily if figures.kind == "counter" else GaugeMetricFamily
            family = kind(figures.name, figures.description + _SAME, labels=figures.labels)
            for labels, value in figures.values.items():
                family.add_metric(labels, value)
            yield family

    def _current(self) -> list[Figures]:
        with self._lock:
            if time.monotonic() - self._read_at > _KEPT_SECONDS:
                self._figures = with_store_up(self._store)
                self._read_at = time.monotonic()
            return self._figures


@contextmanager
def metrics_served(settings: ServiceSettings) -> Iterator[None]:
    """Answer Prometheus within the context, in a thread; no effect without `METRICS_PORT`.

    Processes that are started within it can count by `join_metrics`.

    Raises:
        SettingsError: nothing can listen on the port.
    """
    if settings.metrics_port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    host, port = settings.metrics_host, settings.metrics_port
    registry = CollectorRegistry()
    with closing(StoreFigures(settings)) as store:
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            reason = error.strerror or error
            raise SettingsError(f"METRICS_PORT: port {port} on {host} cannot be used ({reason})") from None
        try:
            with metrics_folder() as folder:
                cast("Any", MultiProcessCollector)(registry, str(folder))
                registry.register(cast("Any", StoreCollector(store)))
                yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
