"""The arguments of `sweep.lua`, for either side of the store."""

from collections.abc import Iterable, Iterator

from jobs.settings import StoreSettings

_MODELS_A_SWEEP = 2  # so that one call touches 256 keys at most


def sweep_args(settings: StoreSettings, models: Iterable[str]) -> Iterator[list[str | int]]:
    """What `sweep.lua` is called with, for some models after others. Room for records is made before they need it."""
    common = [
        int(settings.result_ttl_seconds * 1000),
        int(settings.min_result_ttl_seconds * 1000),
        int(settings.records_budget_bytes * 0.9),
        int(settings.queue_deadline_seconds * 1000),
    ]
    names = list(models)
    for first in range(0, max(1, len(names)), _MODELS_A_SWEEP):
        yield [*common, *names[first : first + _MODELS_A_SWEEP]]
