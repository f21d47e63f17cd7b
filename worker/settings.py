"""The worker's settings. Each is an environment variable of the same name in capitals."""

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from jobs.metrics.settings import ServiceSettings
from jobs.settings import SHIPPED_MODEL, Bytes, ModelRef, Seconds, advanced
from worker.gpu_count import gpus
from worker.inference.settings import InferenceSettings

BLOCKED_LATE_SECONDS = 0.1  # by how much an idle Redis may exceed the timeout of a blocking call


class LeasingSettings(ServiceSettings):
    """Settings of classification workers and outbound workers alike."""

    lease_seconds: Seconds = advanced(
        3,
        description="Seconds after which a lease that is not renewed lapses; another worker then takes over its work.",
    )
    renew_seconds: Seconds = advanced(0.75, description="Seconds between two renewals of a lease.")
    task_time_limit_seconds: Seconds = advanced(
        60, description="Seconds after which a worker process that is still busy with one task is killed."
    )
    reap_seconds: Seconds = advanced(0.75, description="Seconds between two scans for lapsed leases.")
    crash_tries_max: Annotated[int, Field(ge=1, le=20)] = advanced(
        3, description="Tries after which an image that crashes the process that works on it fails."
    )
    losses_max: Annotated[int, Field(ge=1, le=1000)] = advanced(
        20, description="Lapsed leases after which an image fails with `worker_lost`."
    )
    watchdog_seconds: Seconds = advanced(
        18,
        description="Seconds without a ready process, or without taking a doorbell that waits while no work is in "
        "progress, after which a worker exits so that it is restarted.",
    )
    load_seconds_max: Seconds = advanced(
        120,
        description="Seconds that a worker may take until its first process is ready before it exits. Generous by "
        "default: processes load models while other services start on the same cores.",
    )
    store_timeout_seconds: Seconds = advanced(5, description="Seconds that a worker waits for a response of Redis.")
    alive_file: Path | None = advanced(
        None, description="File that is touched while the worker has ready processes, for a container's health check."
    )

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
    """All settings of a classification worker."""

    model: ModelRef = Field(
        SHIPPED_MODEL, description="Model package that this worker serves: `name` or `name@version`."
    )
    models: str = Field("", description="Several model packages, separated by commas. Replaces `MODEL`.")
    models_dir: Path = Field(Path("weights"), description="Folder of model packages.")
    child_memory_bytes_max: Bytes | None = Field(
        None,
        description="Maximum bytes of memory that one worker process may allocate; a process with a small model needs "
        "300 MB. An image that needs more fails with `out_of_memory`. Default: no limit but the machine's or the "
        "container's.",
    )
    worker_children: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=lambda checked: _children(checked["device"]),
        description="Processes that classify. Default: one per GPU, or one per CPU core (at least 2, so that a crash "
        "leaves a live process).",
    )
    batch_items: Annotated[int, Field(ge=1, le=256)] = advanced(
        64,
        description="Maximum images of the interactive lane that one process claims at once; of images that take "
        "longer, only as many as fit `BATCH_SECONDS_MAX`.",
    )
    bulk_slice_seconds: Seconds = advanced(
        0.02,
        description="Seconds of bulk work, as measured, between two checks for interactive work, which goes first.",
    )
    slice_seconds: Seconds = advanced(
        0.25, description="Seconds for which one task goes on claiming work before it returns to Celery."
    )
    linger_seconds: Annotated[float, Field(ge=0, le=1)] = advanced(
        0.1, description="Seconds that an idle task waits for more work before it returns to Celery."
    )

    @property
    def served(self) -> tuple[str, ...]:
        """The model packages that this worker serves, in the order of the setting."""
        names = [name.strip() for name in self.models.split(",")] if self.models else [self.model]
        return _REFS.validate_python(tuple(dict.fromkeys(names)))

    @model_validator(mode="after")
    def _models_are_names(self) -> Self:
        try:
            _ = self.served
        except ValidationError:
            raise ValueError("models: must be names of model packages, separated by commas") from None
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
