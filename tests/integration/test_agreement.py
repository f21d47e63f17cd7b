"""Through the HTTP API, a model gives the same results as when it is called in this process."""

from pathlib import Path

import aiohttp
import pytest

from tests.support.pictures import LIMITS, bad_pictures, good_pictures
from tests.support.processes import ROOT
from tests.support.stack import Stack, results_of, submit_all
from training.data import FashionMnist
from worker.inference.packages.load import load_package

IMAGES = 1000


async def test_a_thousand_test_images_get_the_same_classes_and_confidences(
    stack: Stack, test_images: list[bytes], fashion_mnist: FashionMnist
) -> None:
    images = test_images[:IMAGES]
    classifier = load_package(ROOT / "weights" / "fmnist-mlp", LIMITS)
    expected = classifier.classify(images, [10] * IMAGES)
    api = stack.api()
    stack.worker()

    results = await results_of(api.url, await submit_all(api.url, images))

    difference, correct = 0.0, 0
    for result, outcome, label in zip(results, expected, fashion_mnist.test.labels, strict=False):
        assert isinstance(outcome, list)
        assert result["class"] == classifier.card.classes[outcome[0].class_index]
        difference = max(difference, abs(result["confidence"] - outcome[0].confidence))
        correct += result["class"] == classifier.card.classes[label]
    print(f"largest difference in confidence: {difference:.1e}; correct: {correct} of {IMAGES}")
    assert difference <= 1e-5
    assert correct >= 0.87 * IMAGES


async def test_files_of_many_formats_in_one_upload_each_get_their_own_outcome(
    stack: Stack, shirt: bytes, tmp_path: Path
) -> None:
    """Valid and invalid images through the whole stack; the worker's processes survive all of them."""
    api, worker = stack.api(), stack.worker()
    children = worker.children()
    good, bad = good_pictures(shirt), bad_pictures(shirt)
    expected = dict.fromkeys(good, "succeeded") | {name: code for name, (_, code) in bad.items()}
    form = aiohttp.FormData(quote_fields=False)
    for name, upload in (good | {name: upload for name, (upload, _) in bad.items()}).items():
        form.add_field("files", upload, filename=name)
    async with aiohttp.ClientSession(api.url) as client:
        async with client.post("/v1/jobs", data=form, headers={"Prefer": "wait=20"}) as answer:
            job = await answer.json()
        async with client.get(job["links"]["results"]) as answer:
            items = (await answer.json())["items"]

    assert job["counts"] == {
        "total": len(expected), "pending": 0, "succeeded": len(good), "failed": len(bad), "canceled": 0
    }  # fmt: skip
    outcomes = {item["name"]: item["error"]["code"] if "error" in item else item["status"] for item in items}
    assert outcomes == {name.rpartition("/")[2]: outcome for name, outcome in expected.items()}
    assert worker.children() == children
    assert stack.stat("uploads") == 0


@pytest.mark.parametrize("top_k", [1, 10, 100])
async def test_a_result_has_the_top_k_classes(stack: Stack, shirt: bytes, top_k: int) -> None:
    api = stack.api()
    stack.worker(children=1)
    async with aiohttp.ClientSession(api.url) as client:
        headers = {"Content-Type": "image/png", "Prefer": "wait=20"}
        async with client.post(f"/v1/jobs?top_k={top_k}", data=shirt, headers=headers) as answer:
            result = (await answer.json())["result"]
    assert len(result["top_k"]) == min(top_k, 10)
    assert abs(sum(ranked["confidence"] for ranked in result["top_k"]) - 1) < 1e-4 or top_k == 1
