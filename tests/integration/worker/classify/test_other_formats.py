"""Uploads in a format that is not taken: the error names the format, and what to send instead."""

import asyncio
from typing import Any

import httpx
import pytest

from jobs.records import Failure
from jobs.store.for_workers.leases import LeaseStore
from tests.support.archives import make_tar, make_zip
from tests.support.claim_loops import MakeClaimLoop, outcomes_of
from tests.support.pictures import OTHER_FORMATS, heic, photo
from tests.support.stack import Stack
from tests.support.store import MODEL, Store

ALL_FORMATS = "JPEG, PNG, WebP, GIF, BMP, AVIF, HEIC or TIFF"


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
        ("unsupported_format", f"The upload's format is not supported here: {name}. Send {ALL_FORMATS}.")
    ]


async def test_archives_and_a_format_that_is_turned_off_over_http(stack: Stack, shirt: bytes) -> None:
    api = stack.api()
    await asyncio.to_thread(stack.worker, children=1, IMAGE_FORMATS="[]")
    form = {"a.png": shirt, "photos.zip": make_zip({"a.png": shirt}), "phone.heic": heic(photo(shirt))}
    files = [("files", (name, data)) for name, data in form.items()]
    tar_gz = make_tar({"a.png": shirt, "b.png": shirt}, mode="w:gz")
    async with httpx.AsyncClient(base_url=api.url, timeout=90) as http:

        async def items(**body: Any) -> list[dict[str, Any]]:
            job = (await http.post("/v1/jobs", **body)).json()
            async with asyncio.timeout(60):
                while job["completed_at"] is None:
                    job = (await http.get(job["links"]["self"], params={"wait": "5"})).json()
            found: list[dict[str, Any]] = (await http.get(job["links"]["results"])).json()["items"]
            return found

        shirts, zipped, phone = await items(files=files)
        unpacked = await items(content=tar_gz, headers={"Content-Type": "application/gzip"})
    assert shirts["class"] == "Shirt"
    assert zipped["error"]["detail"].startswith("The upload is a zip archive. Send an archive as the body")
    assert phone["error"] == {
        "code": "unsupported_format",
        "detail": "The upload's format is not supported here: HEIC. Send JPEG, PNG, WebP, GIF or BMP.",
    }
    assert [(item["name"], item["class"]) for item in unpacked] == [("a.png", "Shirt"), ("b.png", "Shirt")]
