"""The shapes of answers, for the OpenAPI document. `api/views.py` fills them; a test holds the two together."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs.models import Card
from jobs.records import ItemState, JobState, Lane

_JOB_ID = "019254a0-7b11-7cc0-8000-3f1d5a2b9c4e"
_RESULT_EXAMPLE: dict[str, Any] = {
    "index": 0,
    "name": "shirt.png",
    "status": "succeeded",
    "class": "Shirt",
    "confidence": 0.648812,
    "model": "fmnist-mlp@1",
    "top_k": [{"class": "Shirt", "confidence": 0.648812}, {"class": "Coat", "confidence": 0.201134}],
}
_JOB_EXAMPLE: dict[str, Any] = {
    "id": _JOB_ID,
    "status": "completed",
    "model": "fmnist-mlp",
    "lane": "interactive",
    "created_at": "2026-11-23T10:00:00.000Z",
    "completed_at": "2026-11-23T10:00:00.009Z",
    "expires_at": "2026-11-24T10:00:00.009Z",
    "counts": {"total": 1, "pending": 0, "succeeded": 1, "failed": 0, "canceled": 0},
    "eta_seconds": None,
    "links": {"self": f"/v1/jobs/{_JOB_ID}", "results": f"/v1/jobs/{_JOB_ID}/results"},
    "result": _RESULT_EXAMPLE,
}


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Problem(BaseModel):
    """RFC 9457, with a stable `code`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "There is no such job",
                "status": 404,
                "code": "job_not_found",
                "detail": "There is no such job",
            }
        }
    )
    type: str
    title: str
    status: int
    code: str
    detail: str


class Ranked(_Shape):
    class_name: str = Field(alias="class")
    confidence: float = Field(ge=0, le=1)


class ItemProblem(_Shape):
    code: str
    detail: str


class ItemResult(_Shape):
    """One image of a job."""

    model_config = ConfigDict(json_schema_extra={"example": _RESULT_EXAMPLE})
    index: int
    name: str | None
    status: ItemState
    class_name: str | None = Field(None, alias="class")
    confidence: float | None = Field(None, ge=0, le=1)
    model: str | None = Field(None, description="name@version of the model that gave this class.")
    top_k: list[Ranked] | None = None
    error: ItemProblem | None = None


class Counts(_Shape):
    total: int
    pending: int
    succeeded: int
    failed: int
    canceled: int


class Links(_Shape):
    self: str
    results: str


class JobResource(_Shape):
    """One submission. `result` stands there when it has one image."""

    model_config = ConfigDict(json_schema_extra={"example": _JOB_EXAMPLE})
    id: str
    status: JobState
    model: str
    lane: Lane
    created_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None
    counts: Counts
    eta_seconds: float | None
    links: Links
    result: ItemResult | None = None


class JobPage(_Shape):
    jobs: list[JobResource]
    next_cursor: str | None


class ItemPage(_Shape):
    items: list[ItemResult]
    next_cursor: str | None


class Serving(_Shape):
    workers: int
    processes: int


class ModelResource(Card):
    """One version of a model, and who serves it now."""

    id: str
    serving: Serving


class ModelList(_Shape):
    models: list[ModelResource]


class BookPrediction(_Shape):
    model_config = ConfigDict(json_schema_extra={"example": {"class": "Coat", "confidence": "0.6488"}})
    class_name: str = Field(alias="class")
    confidence: str


class Health(_Shape):
    status: Literal["ok"]


_DETAILS = {
    401: "`unauthorized`",
    404: "`job_not_found`: it never existed, or is not yours",
    408: "`upload_timeout`",
    410: "`job_expired`: it was yours, and is gone",
    413: "`upload_too_large`",
    415: "`unsupported_media_type`",
    422: "`invalid_request` or `unknown_model`",
    429: "`quota_exceeded`",
    503: "`queue_full` or `store_unavailable`, with `Retry-After`",
    504: "`wait_timeout`",
}


def problems(*statuses: int, **others: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: the problems it can answer with, and what else it says of a status (`_200=…`)."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": _DETAILS[status], "content": {"application/problem+json": {}}}
        for status in statuses
    }
    return responses | {int(status.removeprefix("_")): other for status, other in others.items()}


UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}
PREDICT_BODY: dict[str, Any] = {
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
