"""What the ledger of the fault suite calls lost, doubled, changed, wrong and cut short."""

import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from chaos.ledger import Accepted, Ledger
from chaos.readings import Expected, Reading
from jobs.ids import new_id, to_text


def item(index: int, **changes: Any) -> dict[str, Any]:
    return {"index": index, "name": f"{index}.png", "status": "succeeded", "class": "Bag", "confidence": 0.9} | changes


def reading(*items: dict[str, Any], **changes: Any) -> Reading:
    counts = {"pending": 0, "succeeded": len(items), "failed": 0, "canceled": 0, "total": len(items)}
    job = {"status": "completed", "counts": counts, "created_at": "1", "completed_at": "2", "expires_at": "3"}
    return Reading(job | changes, list(items))


def accepted(ledger: Ledger, images: int = 2) -> Accepted:
    expected = [Expected(f"{number}.png", "Bag", 0.9) for number in range(images)]
    job_id = to_text(new_id("alice", b"secret"))
    return ledger.accept(Accepted(job_id, "alice", expected, "a fault", time.monotonic()))


def counts(ledger: Ledger) -> dict[str, int]:
    names = ("lost", "doubled", "changed", "wrong", "cut_short")
    return {name: total for name in names if (total := getattr(ledger, name).total())}


def test_what_is_as_promised_is_nothing() -> None:
    ledger = Ledger()
    job = accepted(ledger)
    ledger.ended(job, reading(item(0), item(1)))
    ledger.read_again(job, reading(item(0), item(1)))
    ledger.read_otherwise(job, "in pages", [item(0), item(1)])
    assert (counts(ledger), ledger.broken, ledger.examples) == ({}, 0, [])
    assert ledger.items == {"a fault": 2}


@pytest.mark.parametrize(
    ("read", "found"),
    [
        (reading(item(0)), {"lost": 1}),
        (reading(item(0), item(1), item(2)), {"doubled": 1}),
        (reading(item(0), item(1, **{"class": "Shirt"})), {"wrong": 1}),
        (reading(item(0), item(1, confidence=0.8)), {"wrong": 1}),
        (reading(item(0), item(1, name="0.png")), {"wrong": 1}),
        (reading(item(1), item(0)), {"wrong": 4}),  # index and name of both
        (reading(item(0), item(1), status="failed"), {"wrong": 1}),
        (reading(item(0), item(1), completed_at="0"), {"wrong": 1}),
        (reading(item(0), item(1), counts={"total": 3}), {"wrong": 1}),
    ],
)
def test_each_difference_of_an_end_is_seen(read: Reading, found: dict[str, int]) -> None:
    ledger = Ledger()
    ledger.ended(accepted(ledger), read)
    assert counts(ledger) == found


def _of_an_item(read: Reading) -> None:
    read.items[0]["confidence"] = 0.90001


def _of_the_job(read: Reading) -> None:
    read.job["expires_at"] = "4"


@pytest.mark.parametrize("change", [_of_an_item, _of_the_job])
def test_whatever_changes_after_the_end_is_seen(change: Callable[[Reading], None]) -> None:
    ledger, first = Ledger(), reading(item(0), item(1))
    job = accepted(ledger)
    ledger.ended(job, first)
    second = deepcopy(first)
    change(second)
    ledger.read_again(job, second)
    assert counts(ledger) == {"changed": 1}


def test_a_job_that_two_submits_got_is_doubled() -> None:
    ledger = Ledger()
    ledger.accept(accepted(ledger))
    assert counts(ledger) == {"doubled": 1}


def test_canceled_images_are_right_only_if_somebody_canceled() -> None:
    canceled = reading(item(0), {"index": 1, "name": "1.png", "status": "canceled"}, status="canceled")
    canceled.job["counts"] |= {"succeeded": 1, "canceled": 1}
    found = list[dict[str, int]]()
    for may_be_canceled in (False, True):
        ledger = Ledger()
        job = accepted(ledger)
        job.may_be_canceled = may_be_canceled
        ledger.ended(job, canceled)
        found.append(counts(ledger))
    assert found == [{"wrong": 1}, {}]


def test_an_open_job_may_be_canceled_after_all_its_images_have_ended() -> None:
    found = list[dict[str, int]]()
    for may_be_canceled in (False, True):
        ledger = Ledger()
        job = accepted(ledger)
        job.may_be_canceled = may_be_canceled
        ledger.ended(job, reading(item(0), item(1), status="canceled"))
        found.append(counts(ledger))
    assert found == [{"wrong": 1}, {}]


def test_only_what_a_fault_made_the_store_forget_is_excused() -> None:
    ledger = Ledger()
    before = accepted(ledger)
    with ledger.store_loses(all_before=True):
        during = accepted(ledger)
    after = accepted(ledger)
    for job in (before, during, after):
        ledger.never_ended(job, "404")
    assert (counts(ledger), ledger.forgotten.total()) == ({"lost": 2}, 4)


def test_a_part_that_the_store_forgot_is_missing_and_no_other() -> None:
    ledger = Ledger()
    with ledger.store_loses(all_before=False):
        forgotten = accepted(ledger)
    whole = accepted(ledger)
    for job in (forgotten, whole):
        ledger.ended(job, reading(item(0)))
    assert (counts(ledger), ledger.forgotten.total()) == ({"lost": 1}, 1)


def test_a_job_of_which_all_was_confirmed_after_the_loss_lacks_nothing() -> None:
    ledger = Ledger()
    early, late = accepted(ledger), accepted(ledger)
    with ledger.store_loses(all_before=False):
        early.whole_at = time.monotonic()
    late.whole_at = time.monotonic()
    for job in (early, late):
        ledger.ended(job, reading(item(0)))
    assert (counts(ledger), ledger.forgotten.total()) == ({"lost": 1}, 1)


def test_a_deleted_upload_must_end_as_lost_and_no_other() -> None:
    lost: dict[str, Any] = {"index": 1, "name": "1.png", "status": "failed", "error": {"code": "upload_lost"}}
    read = reading(item(0), lost)
    read.job["counts"] |= {"succeeded": 1, "failed": 1}
    found = list[dict[str, int]]()
    for deleted in ([1], [0, 1], []):
        ledger = Ledger()
        job = accepted(ledger)
        ledger.uploads_deleted(job.job_id, deleted)
        ledger.ended(job, deepcopy(read))
        found.append(counts(ledger))
    assert found == [{}, {"wrong": 1}, {"wrong": 1}]


def test_a_stream_that_ends_short_is_seen_unless_the_store_forgot() -> None:
    ledger = Ledger()
    job = accepted(ledger)
    ledger.ended_short(job, "followed")
    assert counts(ledger) == {"cut_short": 1}


def test_only_the_text_of_an_error_may_differ_between_releases() -> None:
    def failed(code: str, detail: str) -> Reading:
        error: dict[str, Any] = {
            "index": 0,
            "name": "0.png",
            "status": "failed",
            "error": {"code": code, "detail": detail},
        }
        read = reading(error, status="failed", result=error)
        read.job["counts"] |= {"succeeded": 0, "failed": 1}
        return read

    found = list[dict[str, int]]()
    for mixed, second in (
        (True, failed("not_an_image", "another text")),
        (False, failed("not_an_image", "another text")),
        (True, failed("timeout", "a text")),
    ):
        ledger = Ledger()
        job = accepted(ledger, images=1)
        job.expected = [Expected("0.png", codes=("not_an_image",))]
        ledger.ended(job, failed("not_an_image", "a text"))
        if mixed:
            with ledger.releases_mixed():
                pass
        ledger.read_again(job, second)
        found.append(counts(ledger))
    assert found == [{}, {"changed": 1}, {"changed": 1}]
