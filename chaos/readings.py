"""What a client reads of an ended job, and what in it is not as it must be."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

CONFIDENCE_TOLERANCE = 0.001


@dataclass(frozen=True, slots=True)
class Expected:
    """What one image must become."""

    name: str | None = None
    class_name: str = ""
    confidence: float = 0
    codes: tuple[str, ...] = ()
    """Of errors, in place of the class."""


class Reading(NamedTuple):
    """An ended job as a client has read it."""

    job: dict[str, Any]
    items: list[dict[str, Any]]


def problems_of_items(wanted: list[Expected], items: list[dict[str, Any]], *, may_be_canceled: bool) -> list[str]:
    """What is wrong with the items of an ended job: order, names, classes, confidences, codes."""
    found = list[str]()
    for index, (item, expected) in enumerate(zip(items, wanted, strict=True)):
        if item["index"] != index:
            found.append(f"image {index} has the index {item['index']}")
        if item["name"] != expected.name:
            found.append(f"image {index} has the name {item['name']}, not {expected.name}")
        if not (may_be_canceled and item["status"] == "canceled") and (problem := _problem(item, expected)):
            found.append(f"image {index} {problem}")
    return found


def _problem(item: dict[str, Any], expected: Expected) -> str:
    if item["status"] == "failed":
        code = item["error"]["code"]
        return "" if code in expected.codes else f"failed: {code}"
    if item["status"] != "succeeded":
        return f"is {item['status']}"
    if expected.codes and not expected.class_name:
        return f"is {item['class']}, not {' or '.join(expected.codes)}"
    if item["class"] != expected.class_name:
        return f"is {item['class']}, not {expected.class_name}"
    if abs(item["confidence"] - expected.confidence) > CONFIDENCE_TOLERANCE:
        return f"has the confidence {item['confidence']}, not {expected.confidence}"
    return ""


def problem_of_job(reading: Reading, *, odd_times: bool, may_be_canceled: bool) -> str:
    """What in the job contradicts its items, or, unless a fault has moved the clock, its times each other."""
    job, items = reading
    statuses = Counter(item["status"] for item in items)
    counts = {name: statuses[name] for name in ("pending", "succeeded", "failed", "canceled")} | {"total": len(items)}
    if job["counts"] != counts:
        return f"counts {job['counts']}, but its items are {counts}"
    allowed = {"completed"} if statuses["succeeded"] else {"failed"}
    if statuses["canceled"]:
        allowed = {"canceled"}
    elif may_be_canceled:  # while it was open, and all that it had so far had ended
        allowed.add("canceled")
    if job["status"] not in allowed:
        return f"is {job['status']}, with {dict(statuses)}"
    if len(items) == 1 and job["result"] != items[0]:
        return f"result {job['result']}, but /results {items[0]}"
    if job["completed_at"] is None or (job["completed_at"] < job["created_at"] and not odd_times):
        return f"created at {job['created_at']}, completed at {job['completed_at']}"
    return ""


def difference(one: Reading, other: Reading) -> str:
    if one.job != other.job:
        return str(
            {name: (one.job.get(name), other.job.get(name)) for name in one.job if one.job[name] != other.job.get(name)}
        )
    return str(
        next(((a, b) for a, b in zip(one.items, other.items, strict=False) if a != b), "another number of items")
    )


def without_details(value: Any) -> Any:
    """The same without the texts of errors, which a release may word in another way. Their codes stay."""
    if isinstance(value, dict):
        return {name: without_details(each) for name, each in value.items() if name != "detail"}
    return list(map(without_details, value)) if isinstance(value, list | tuple) else value
