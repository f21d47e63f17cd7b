"""The schema of `GET /v1/server`; `api/server_status.py` builds the response."""

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from api.schemas import StrictModel

_SERVER_EXAMPLE: dict[str, Any] = {
    "version": "0.1.0",
    "time": "2026-11-23T10:00:00.000Z",
    "default_model": "fmnist-cnn",
    "limits": {
        "image_bytes_max": 10_485_760,
        "items_max": 1_000_000,
        "open_job_idle_seconds": 3600,
        "results_kept_seconds": 86_400,
        "formats": ["png", "jpeg", "webp", "gif", "bmp", "avif", "heic", "tiff"],
    },
    "queue": {"interactive": {"images": 0, "oldest_seconds": None}, "bulk": {"images": 6400, "oldest_seconds": 12.5}},
    "images_per_second": 812.3,
    "workers": 1,
    "budgets": {
        "uploads": {"used_bytes": 26_214_400, "bytes_max": 536_870_912},
        "records": {"used_bytes": 1_048_576, "bytes_max": 322_122_547},
    },
}


class ServerLimits(StrictModel):
    image_bytes_max: int = Field(description="Bytes of one image.")
    items_max: int = Field(description="Images of one job.")
    open_job_idle_seconds: float = Field(description="How long an open job waits for its next part.")
    results_kept_seconds: float = Field(description="How long an ended job and its results are kept.")
    formats: list[str]


class LaneQueue(StrictModel):
    """Images of a lane that wait for a worker."""

    images: int = Field(description="Estimated, if an owner has a long queue.")
    oldest_seconds: float | None = Field(description="Since the oldest of them was submitted; null if none waits.")


class Queue(StrictModel):
    interactive: LaneQueue
    bulk: LaneQueue


class Budget(StrictModel):
    used_bytes: int
    bytes_max: int


class Budgets(StrictModel):
    """Used up, they refuse single submits with 503 `queue_full`, and delay streams."""

    uploads: Budget
    records: Budget


class ServerResource(StrictModel):
    """What the server is, what it takes, and how busy it is."""

    model_config = ConfigDict(json_schema_extra={"example": _SERVER_EXAMPLE})
    version: str
    time: datetime
    default_model: str | None = Field(description="The model of a submit that names none; null if it is unknown yet.")
    limits: ServerLimits
    queue: Queue
    images_per_second: float = Field(description="Images that have ended, over the last ten seconds.")
    workers: int = Field(description="Workers that serve a model now.")
    budgets: Budgets
