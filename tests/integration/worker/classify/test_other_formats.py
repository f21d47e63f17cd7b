"""Uploads in a format that is not taken: the error names the format, and what to send instead."""

import pytest

from jobs.records import Failure
from jobs.store.for_workers.leases import LeaseStore
from tests.support.archives import make_zip
from tests.support.claim_loops import MakeClaimLoop, outcomes_of
from tests.support.pictures import OTHER_FORMATS
from tests.support.store import MODEL, Store


async def details_of(
    store: Store, leases: LeaseStore, make_claim_loop: MakeClaimLoop, *images: bytes
) -> list[tuple[str, str]]:
    job_id = await store.submit(*images)
    make_claim_loop(store=leases).run_slice("task", MODEL)
    outcomes = await outcomes_of(store, job_id)
    return [(outcome.code, outcome.detail) for outcome in outcomes if isinstance(outcome, Failure)]


async def test_a_zip_among_the_files_of_a_form_is_told_from_a_broken_image(
    store: Store, leases: LeaseStore, make_claim_loop: MakeClaimLoop, shirt: bytes
) -> None:
    details = await details_of(store, leases, make_claim_loop, shirt, make_zip({"a.png": shirt}), shirt)
    assert details == [
        ("unsupported_format", "The upload is a zip archive. Send an archive as the body of a request of its own.")
    ]


@pytest.mark.parametrize("name", OTHER_FORMATS)
async def test_the_error_names_the_format_and_those_that_are_taken(
    store: Store, leases: LeaseStore, make_claim_loop: MakeClaimLoop, name: str
) -> None:
    upload = OTHER_FORMATS[name] + bytes(100)
    details = await details_of(store, leases, make_claim_loop, upload)
    assert details == [
        ("unsupported_format", f"The upload's format is not supported here: {name}. Send JPEG, PNG, WebP, GIF or BMP.")
    ]
