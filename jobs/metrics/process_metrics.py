"""Every metric that a process counts or measures itself; those of the store are in `jobs/store/store_figures.py`.

Until `open_metrics` they do nothing, and a call costs a look at an attribute. An open one costs 1 to 2 µs: count a
request or a batch, never an image. A label has few values, and none that a client can choose.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

from jobs.item_codes import ItemCode

Kind = Literal["api", "worker", "outbound"]
API: tuple[Kind, ...] = ("api",)
WORKER: tuple[Kind, ...] = ("worker",)
OUTBOUND: tuple[Kind, ...] = ("outbound",)
WORKERS = WORKER + OUTBOUND

OTHER = "other"
"""The label of whatever has none of its own."""
LABEL_SETS_MAX = 1000  # of one metric in one process; what comes later counts as OTHER
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_ALL = list["_Metric"]()


class _Metric:
    def __init__(
        self,
        name: str,
        description: str,
        labels: Sequence[str] = (),
        *,
        of: tuple[Kind, ...],
        known: Sequence[tuple[str, ...]] = (),
    ) -> None:
        """`of`: the services that have it. `known`: values of the labels that are shown before the first count."""
        self.name = name
        self.description = description
        self.labels = tuple(labels)
        self.of = of
        self._known = known if labels else ((),)
        self._children = dict[tuple[str, ...], Any]()
        self._metric: Any = None
        _ALL.append(self)

    def open(self, metric: Any) -> None:
        """Keep what is counted from now on in this metric of prometheus_client."""
        self._metric = metric
        self._children = {}
        for labels in self._known:
            self._child(labels)

    @property
    def is_open(self) -> bool:
        """Whether the process counts; to save the work of finding out what."""
        return self._metric is not None

    def _child(self, labels: tuple[str, ...]) -> Any:
        """The time series of these labels. A dictionary of them is faster than `labels()`, which takes a lock."""
        child = self._children.get(labels)
        if child is None:
            if len(self._children) >= LABEL_SETS_MAX:
                labels = (OTHER,) * len(labels)
            child = self._metric.labels(*labels) if labels else self._metric
            self._children[labels] = child
        return child


class Count(_Metric):
    """Only grows."""

    def add(self, *labels: str, amount: float = 1) -> None:
        if self._metric is not None:
            self._child(labels).inc(amount)


class Distribution(_Metric):
    """How often, how much in total, and how often at most so much."""

    def __init__(self, *args: Any, buckets: Sequence[float] = _SECONDS, **options: Any) -> None:
        super().__init__(*args, **options)
        self.buckets = buckets

    def measured(self, value: float, *labels: str) -> None:
        if self._metric is not None:
            self._child(labels).observe(value)


class Level(_Metric):
    """The last value that any process has set."""

    def set(self, value: float, *labels: str) -> None:
        if self._metric is not None:
            self._child(labels).set(value)


REQUEST_SECONDS = Distribution(
    "darkroom_request_seconds",
    "Requests that reached a route, until the response was sent; those with ?wait= wait in it. status 0: the client "
    "was gone before the response began.",
    ("method", "route", "status"),
    of=API,
)
ITEMS = Count(
    "darkroom_items",
    "Images that a process has worked on, by result: succeeded, or an item code; again if their lease was lost.",
    ("model", "result"),
    of=WORKER,
)
BATCH_ITEMS = Distribution("darkroom_batch_items", "Images of one forward pass.", ("model",), of=WORKER, buckets=_ITEMS)
BATCH_SECONDS = Distribution(
    "darkroom_batch_seconds",
    "Seconds of a batch of images, by stage: decode (and prepare), forward (through the network).",
    ("model", "stage"),
    of=WORKER,
)
QUEUE_SECONDS = Distribution(
    "darkroom_queue_seconds",
    "Seconds from the submit of the oldest job in a claim until the claim, by the clocks of API and worker.",
    ("model",),
    of=WORKER,
)
STORE_CALL_SECONDS = Distribution(
    "darkroom_store_call_seconds", "Seconds of a worker's calls of the job store.", ("call",), of=WORKERS
)
CRASHES = Count(
    "darkroom_crashes",
    "Leases that a crash ended, by the code that is charged for it.",
    ("code",),
    of=WORKERS,
    known=[(code,) for code in (ItemCode.WORKER_CRASHED, ItemCode.TIMEOUT, ItemCode.OUT_OF_MEMORY)],
)
LAPSED_LEASES = Count(
    "darkroom_lapsed_leases", "Lapsed leases, of any worker, that this worker has released.", of=WORKERS
)
CHILD_RESTARTS = Count(
    "darkroom_child_restarts", "Children that were started in place of one that had ended.", of=WORKERS
)
GPU_MEMORY_USED = Level("darkroom_gpu_memory_used_bytes", "Memory of a GPU that is in use.", ("device",), of=WORKER)
GPU_MEMORY = Level("darkroom_gpu_memory_bytes", "Memory of a GPU.", ("device",), of=WORKER)
FETCHES = Count(
    "darkroom_fetches",
    "Images fetched by reference, by result: ok, or an item code.",
    ("result",),
    of=OUTBOUND,
    known=[("ok",), (ItemCode.FETCH_FAILED,)],
)
WEBHOOK_ATTEMPTS = Count(
    "darkroom_webhook_attempts",
    "Calls of webhooks, by result: delivered, the class of another status, or why there was none.",
    ("result",),
    of=OUTBOUND,
    known=[("delivered",), ("connection_failed",)],
)


def open_metrics(kind: Kind) -> None:
    """Open the metrics of a service in this process, once the values' files are chosen: `jobs/metrics/processes.py`."""
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    registry = CollectorRegistry()  # of this process; scrapes read the files of all processes
    for metric in _ALL:
        if kind not in metric.of:
            continue
        what = (metric.name, metric.description, metric.labels)
        if isinstance(metric, Count):
            metric.open(Counter(*what, registry=registry))
        elif isinstance(metric, Distribution):
            metric.open(Histogram(*what, registry=registry, buckets=cast("Any", metric.buckets)))
        else:  # children see the same GPU
            metric.open(Gauge(*what, registry=registry, multiprocess_mode="mostrecent"))
