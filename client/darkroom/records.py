"""What the server answers, as frozen records. Fields that a record does not know are passed over; `raw` has them."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, NamedTuple, Self


class Ranked(NamedTuple):
    class_name: str
    confidence: float


@dataclass(frozen=True, slots=True)
class ItemError:
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Item:
    """One image's result. Without a class, `status` is not `succeeded`, and `error` says why it failed."""

    index: int
    name: str | None
    status: str
    class_name: str | None = None
    confidence: float | None = None
    model: str | None = None
    top_k: list[Ranked] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """`unfamiliar`: the image is unlike the training data."""
    error: ItemError | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False)
    """The API's own object."""

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        ranked = [Ranked(it["class"], it["confidence"]) for it in data.get("top_k") or ()]
        error = data.get("error")
        return cls(
            data["index"],
            data["name"],
            data["status"],
            data.get("class"),
            data.get("confidence"),
            data.get("model"),
            ranked,
            data.get("warnings") or [],
            ItemError(error["code"], error["detail"]) if error else None,
            data,
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """Images of a job by state."""

    total: int
    pending: int
    succeeded: int
    failed: int
    canceled: int


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model."""

    id: str
    name: str
    version: str
    classes: list[str]
    default: bool
    workers: int
    """That serve this version now."""
    raw: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """A server's state. `limits`, `queue` (by lane) and `budgets` are as the API has them."""

    version: str
    time: datetime
    default_model: str | None
    limits: dict[str, Any]
    queue: dict[str, dict[str, Any]]
    images_per_second: float
    workers: int
    budgets: dict[str, dict[str, int]]
    raw: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a submit the server has."""

    job_id: str
    images: int
    sent_bytes: int
    sealed: bool
    """Whether that is all."""


def known(record: type, data: dict[str, Any]) -> dict[str, Any]:
    """The fields of `data` that the record has, with times as datetimes, and `raw`."""
    names = {it.name for it in fields(record)}
    found = {name: data[name] for name in names & data.keys()}
    for name in found.keys() & {"time", "created_at", "completed_at", "expires_at"}:
        found[name] = found[name] and datetime.fromisoformat(found[name])
    return found | {"raw": data}
