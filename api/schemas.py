"""The schemas of responses, for the OpenAPI document. `api/presenters.py` builds the responses; tests validate them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs.item_codes import ItemCode
from jobs.model_manifest import ModelCard
from jobs.records import ItemState, JobState, Lane

JobId = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
_JOB_ID = "019254a0-7b11-7cc0-8000-3f1d5a2b9c4e"
_RESULT_EXAMPLE: dict[str, Any] = {
    "index": 0,
    "name": "shirt.png",
    "status": "succeeded",
    "class": "Shirt",
    "confidence": 0.648812,
    "model": "fmnist-cnn@2",
    "top_k": [{"class": "Shirt", "confidence": 0.648812}, {"class": "Coat", "confidence": 0.201134}],
}
_JOB_EXAMPLE: dict[str, Any] = {
    "id": _JOB_ID,
    "status": "completed",
    "model": "fmnist-cnn",
    "lane": "interactive",
    "created_at": "2026-11-23T10:00:00.000Z",
    "completed_at": "2026-11-23T10:00:00.009Z",
    "expires_at": "2026-11-24T10:00:00.009Z",
    "counts": {"total": 1, "pending": 0, "succeeded": 1, "failed": 0, "canceled": 0},
    "eta_seconds": None,
    "links": {
        "self": f"/v1/jobs/{_JOB_ID}",
        "results": f"/v1/jobs/{_JOB_ID}/results",
        "events": f"/v1/jobs/{_JOB_ID}/events",
    },
    "result": _RESULT_EXAMPLE,
}
_MODEL_EXAMPLE: dict[str, Any] = {
    "id": "fmnist-mlp@1",
    "name": "fmnist-mlp",
    "version": "1",
    "description": "The book's 784-1000-10 network. Expects a dark object on a white background.",
    "classes": ["T-shirt/top", "Trouser"],
    "input": {"channels": 1, "height": 28, "width": 28},
    "preprocessing": "book",
    "sha256": "858aa44bb9d971b16f2361268a40059330f758a688a64e72fee424b698ec567d",
    "test_accuracy": 0.8936,
    "test_set": "Fashion-MNIST, 10,000 test images",
    "default": True,
    "serving": {"workers": 1, "processes": 2},
    "paces": [{"device": "the CPU, in float32", "batch": 64, "image_ms": 0.021}],
}


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Ranked(StrictModel):
    class_name: str = Field(alias="class")
    confidence: float = Field(ge=0, le=1)


class ItemProblem(StrictModel):
    code: ItemCode
    detail: str


class ItemResult(StrictModel):
    """One image of a job."""

    model_config = ConfigDict(json_schema_extra={"example": _RESULT_EXAMPLE})
    index: int
    name: str | None
    status: ItemState
    class_name: str | None = Field(None, alias="class")
    confidence: float | None = Field(None, ge=0, le=1)
    model: str | None = Field(None, description="name@version of the model that classified the image.")
    top_k: list[Ranked] | None = None
    warnings: list[Literal["unfamiliar"]] | None = Field(
        None,
        description="`unfamiliar`: the image is unlike the model's training data. Absent if there are no warnings.",
    )
    error: ItemProblem | None = None


class Counts(StrictModel):
    total: int
    pending: int
    succeeded: int
    failed: int
    canceled: int


class Links(StrictModel):
    self: str
    results: str
    events: str


class JobResource(StrictModel):
    """One submission. A job of one image has its `result` here."""

    model_config = ConfigDict(json_schema_extra={"example": _JOB_EXAMPLE})
    id: JobId
    status: JobState
    model: str
    lane: Lane
    created_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None
    counts: Counts
    eta_seconds: float | None = Field(description="Estimated from the measured rate; null if that is unknown.")
    links: Links
    notice: str | None = Field(None, description="That no worker serves the model at the moment.")
    skipped: int | None = Field(
        None,
        description="Archive members that were ignored, such as `.DS_Store`, or form fields without a file.",
    )
    retry_of: JobId | None = Field(None, description="The job whose failed images this job retries.")
    result: ItemResult | None = None


class JobPage(StrictModel):
    model_config = ConfigDict(json_schema_extra={"example": {"jobs": [_JOB_EXAMPLE], "next_cursor": None}})
    jobs: list[JobResource]
    next_cursor: str | None


class ItemPage(StrictModel):
    model_config = ConfigDict(json_schema_extra={"example": {"items": [_RESULT_EXAMPLE], "next_cursor": "0-1-1"}})
    items: list[ItemResult]
    next_cursor: str | None


class Serving(StrictModel):
    workers: int
    processes: int


class Pace(StrictModel):
    """How fast a worker process computes the network, measured when it loaded it."""

    device: str
    batch: int = Field(description="Images of one forward pass: in larger batches an image is no cheaper.")
    image_ms: float = Field(description="Milliseconds of an image in such a batch, without decoding.")


class ModelResource(ModelCard):
    """One version of a model, and how many workers serve it now."""

    id: str
    default: bool = Field(description="Whether a job that names the model without a version gets this version now.")
    serving: Serving
    paces: list[Pace]


class ModelFault(StrictModel):
    """A model that workers are configured to serve and could not load."""

    model: str
    detail: str
    workers: int


class ModelList(StrictModel):
    model_config = ConfigDict(json_schema_extra={"example": {"models": [_MODEL_EXAMPLE], "faults": []}})
    models: list[ModelResource]
    faults: list[ModelFault]


class BookPrediction(StrictModel):
    model_config = ConfigDict(json_schema_extra={"example": {"class": "Coat", "confidence": "0.6488"}})
    class_name: str = Field(alias="class")
    confidence: str


class Health(StrictModel):
    model_config = ConfigDict(json_schema_extra={"example": {"status": "ok"}})
    status: Literal["ok"]


_PENDING_EXAMPLE = {
    "status": "queued",
    "completed_at": None,
    "expires_at": None,
    "counts": {"total": 1, "pending": 1, "succeeded": 0, "failed": 0, "canceled": 0},
    "result": {"index": 0, "name": "shirt.png", "status": "pending"},
}
_LOCATION = {"description": "The job's path.", "schema": {"type": "string"}}
_APPLIED = {"description": "The `wait` that was applied, if the request asked for one.", "schema": {"type": "string"}}
_RETRY_AFTER = {"description": "Seconds to wait before the next request.", "schema": {"type": "integer"}}
ACCEPTED: dict[str, Any] = {
    "description": "Accepted: the job is certain to end",
    "headers": {"Location": _LOCATION, "Retry-After": _RETRY_AFTER, "Preference-Applied": _APPLIED},
    "content": {"application/json": {"example": _JOB_EXAMPLE | _PENDING_EXAMPLE}},
}
ENDED: dict[str, Any] = {
    "model": JobResource,
    "description": "The job ended within the wait that `Prefer` asked for",
    "headers": {"Location": _LOCATION, "Preference-Applied": _APPLIED},
}

_DETAILS = {
    401: "`unauthorized`",
    403: "`read_only_key`; on a server without keys `cross_site_request`",
    404: "`job_not_found`: the job never existed, or belongs to another owner",
    408: "`upload_timeout`",
    410: "`job_expired`: the job has expired or was deleted",
    413: "`upload_too_large`",
    415: "`unsupported_media_type`",
    421: "`wrong_host`: a server without keys, asked by a name that is not of its machine",
    422: "`invalid_request`",
    429: "`quota_exceeded`, `daily_quota_exceeded` or `rate_limited`, with `Retry-After`",
    503: "`store_unavailable`, with `Retry-After`",
    504: "`wait_timeout`",
}


ResponseDescriptions = Mapping[int, str | dict[str, Any]]


def responses(*problems: int, also: ResponseDescriptions | None = None) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: its problems by status, and in `also` descriptions that only this route has.

    `api/asgi/openapi.py` adds the schema of a problem.
    """
    described = {status: _DETAILS[status] for status in problems} | dict(also or {})
    if 401 in problems:
        described.setdefault(421, _DETAILS[421])
        described.setdefault(429, "`rate_limited`, with `Retry-After`")
    return {status: {"description": text} if isinstance(text, str) else text for status, text in described.items()}


SUBMIT_PROBLEMS: ResponseDescriptions = {
    409: "`idempotency_in_progress`",
    422: "`invalid_request`, `unknown_model` or `idempotency_key_reused`",
    503: "`queue_full` or `store_unavailable`, with `Retry-After`; with a `job_id` if the job may have been accepted",
}
_PREFER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N`: wait up to N seconds (30 at most) for the end of the job before answering.",
    "schema": {"type": "string"},
    "example": "wait=10",
}


_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A repeat with the same key returns the first job, for as long as the job is stored.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_IMAGES: dict[str, Any] = {
    "content": {
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "application/x-tar": _BINARY,
        "application/zip": _BINARY,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["urls"],
                "properties": {"urls": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
            },
            "example": {"urls": ["https://example.com/shirt.png", "s3://bucket/prefix/"]},
        },
    },
}
UPLOAD: dict[str, Any] = {"parameters": [_PREFER, _KEY], "requestBody": _IMAGES}
PART: dict[str, Any] = {"parameters": [_KEY], "requestBody": _IMAGES | {"required": True}}
RETRY: dict[str, Any] = {"parameters": [_KEY]}
RETRY_CONFLICTS = "`job_not_ended`, `nothing_to_retry` or `idempotency_in_progress`"
PART_CONFLICTS = "`job_sealed`, `job_ended` or `idempotency_in_progress`"
PREDICT_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
