"""The worker's settings. Each is an environment variable of the same name in capitals."""

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from jobs.settings import SHIPPED_MODEL, Bytes, ModelRef, Seconds, StoreSettings
from worker.gpu_count import gpus
from worker.inference.settings import InferenceSettings

BLOCKED_LATE_SECONDS = 0.1  # an idle Redis ends a call that waits for work so much later


class LeasingSettings(StoreSettings):
    """What every kind of worker has."""

    lease_seconds: Seconds = Field(4, description="How long a claim is held without renewal.")
    renew_seconds: Seconds = Field(1, description="How often a claim is renewed.")
    task_time_limit_seconds: Seconds = Field(60, description="A child that is busy for longer is killed.")
    reap_seconds: Seconds = Field(1, description="How often overdue leases are looked for.")
    crash_tries_max: Annotated[int, Field(ge=1, le=20)] = Field(
        3, description="Tries of an image that kills its process."
    )
    losses_max: Annotated[int, Field(ge=1, le=1000)] = Field(20, description="Lapsed leases before an image fails.")
    watchdog_seconds: Seconds = Field(
        18,
        description="How long a worker may leave doorbells lying with no lease of its own, or have no ready child any "
        "more, before it exits, to be started again.",
    )
    load_seconds_max: Seconds = Field(
        120,
        description="How long a worker may take until its first child is ready, before it exits: children load their "
        "models, and share the cores with all that starts beside them.",
    )
    store_timeout_seconds: Seconds = Field(5, description="How long a worker waits for an answer of Redis.")
    alive_file: Path | None = Field(None, description="A file that is touched while the worker's children are ready.")

    @model_validator(mode="after")
    def _leases_fit(self) -> Self:
        if not self.renew_seconds * 3 < self.lease_seconds < self.task_time_limit_seconds:
            raise ValueError("renew_seconds × 3 < lease_seconds < task_time_limit_seconds must hold")
        return self


_REFS = TypeAdapter(Annotated[tuple[ModelRef, ...], Field(min_length=1, max_length=100)])


def _children(device: str) -> int:
    found = 0 if device == "cpu" else gpus()
    if found:
        return 1 if ":" in device else found
    return max(2, os.cpu_count() or 1)


class WorkerSettings(InferenceSettings, LeasingSettings):
    model: ModelRef = Field(SHIPPED_MODEL, description="The model package that this worker serves, or name@version.")
    models: str = Field("", description="Several packages, with commas between, in place of `MODEL`.")
    models_dir: Path = Field(Path("weights"), description="The folder of model packages.")
    child_memory_bytes_max: Bytes | None = Field(
        None,
        description="Memory that one of them may allocate; it needs 300 MB for itself and a small model. An image for "
        "which it is not enough fails with `out_of_memory`. None: as much as the machine or container gives.",
    )
    worker_children: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=lambda checked: _children(checked["device"]),
        description="Processes that classify. As it is, one a GPU; without one, one a core, and two at least, so that "
        "one may die unnoticed.",
    )
    batch_items: Annotated[int, Field(ge=1, le=256)] = Field(
        64, description="Images of one claim of the interactive lane, and of its forward."
    )
    batch_items_max: Annotated[int, Field(ge=1, le=256)] = Field(
        256, description="Images of one claim of the bulk lane, as far as they fit `BULK_SLICE_SECONDS`."
    )
    bulk_slice_seconds: Seconds = Field(
        0.02,
        description="Measured work of the bulk lane in one go; interactive work that waits goes before the next.",
    )
    batch_bytes_max: Bytes = Field(16 << 20, description="Upload bytes of one claim; one chunk may be larger.")
    slice_seconds: Seconds = Field(0.25, description="How long one task goes on claiming before it returns to Celery.")
    linger_seconds: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="How long an idle task waits for more work before it returns."
    )

    @property
    def served(self) -> tuple[str, ...]:
        """The packages that this worker serves, in the order in which they are named."""
        names = [name.strip() for name in self.models.split(",")] if self.models else [self.model]
        return _REFS.validate_python(tuple(dict.fromkeys(names)))

    @model_validator(mode="after")
    def _models_are_names(self) -> Self:
        try:
            _ = self.served
        except ValidationError:
            raise ValueError("models: must be names of model packages, with commas between") from None
        if "model" in self.model_fields_set and self.model not in self.served:
            raise ValueError(f"model is {self.model}, which is not among models ({self.models}): set one of the two")
        return self

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if not self.slice_seconds + self.linger_seconds < self.task_time_limit_seconds:
            raise ValueError("slice_seconds + linger_seconds must be less than task_time_limit_seconds")
        if not self.linger_seconds + BLOCKED_LATE_SECONDS < self.store_timeout_seconds:
            raise ValueError(f"linger_seconds + {BLOCKED_LATE_SECONDS:g} must be less than store_timeout_seconds")
        if not self.bulk_slice_seconds * 4 < self.task_time_limit_seconds:
            raise ValueError("bulk_slice_seconds × 4 must be less than task_time_limit_seconds")
        return self
