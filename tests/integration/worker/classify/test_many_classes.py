"""A thousand classes, and the most of them that a client may ask for, for many images."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.records import TOP_K_MAX
from jobs.store import keys
from tests.support.claim_loops import MakeClaimLoop, outcomes_of
from tests.support.networks import of_classes
from tests.support.pictures import LIMITS
from tests.support.stack import Stack
from tests.support.store import MODEL, Store
from worker.classify.claim_loop import ClaimLoop
from worker.inference.classifier import Classifier
from worker.inference.packages.export import export
from worker.inference.packages.load import load_package


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    """Of a thousand classes, under the name of the model that the store's tests submit for."""
    size = {"channels": 1, "height": 8, "width": 8}
    classes = [f"class {number}" for number in range(1000)]
    fields: dict[str, Any] = {"classes": classes, "input": size, "preprocessing": {"mode": "resize"}}
    export(of_classes(1000), tmp_path / MODEL, limits=LIMITS, version="1", **fields)
    return load_package(tmp_path / MODEL, LIMITS)


def test_more_classes_than_allowed_are_refused(stack: Stack, shirt: bytes) -> None:
    api = stack.api()
    headers = {"Content-Type": "image/png"}
    response = httpx.post(f"{api.url}/v1/jobs?top_k=1000", content=shirt, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert stack.redis.keys(keys.JOB + "*") == []


async def test_many_images_get_as_many_classes_as_allowed(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes
) -> None:
    submission = await store.submission(*[shirt] * 64)
    submission.top_k = TOP_K_MAX
    await store.submitter.enqueue(submission)
    claim_loop: ClaimLoop = make_claim_loop(slice_seconds=30)
    claim_loop.run_slice("task", MODEL)
    outcomes = await outcomes_of(store, submission.id)
    assert len(outcomes) == 64
    for outcome in outcomes:
        assert isinstance(outcome, list)
        assert len({best.class_index for best in outcome}) == TOP_K_MAX == len(outcome)
        assert [best.confidence for best in outcome] == sorted((it.confidence for it in outcome), reverse=True)
    assert store.stat("records") == store.record_bytes(submission.id)
