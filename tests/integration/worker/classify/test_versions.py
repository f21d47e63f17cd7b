"""Versions of a model side by side: each takes what asks for it, and the newest that is ready what asks for none."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.archives import make_tar
from tests.support.packages import classified, package
from tests.support.pictures import samples
from tests.support.processes import Api, Worker
from tests.support.stack import PNG, Stack
from tests.support.waiting import wait_until

SHIRT = samples()["0007-shirt.png"]
WRONG = [{"file": "golden/bag.png", "class_name": "Coat", "confidence": 0.9}]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    package(folder, "clothes@9")
    package(folder, "clothes@10")
    package(folder, "clothes@11", golden=WRONG)
    return folder


@pytest.fixture
def api(stack: Stack, packages: Path) -> Iterator[Api]:
    return stack.api(DEFAULT_MODEL="clothes", MODELS_DIR=str(packages))


def start(stack: Stack, packages: Path, models: str) -> Worker:
    return stack.worker(children=1, MODELS=models, MODELS_DIR=str(packages), REAP_SECONDS="0.3")


def answered_by(api: Api, model: str) -> str:
    job = classified(api, SHIRT, model)
    assert (job["model"], job["status"]) == (model, "completed")
    ref: str = job["result"]["model"]
    return ref


def models(api: Api, path: str = "") -> dict[str, dict[str, Any]]:
    found = httpx.get(f"{api.url}/v1/models{path}").json()["models"]
    return {model["id"]: model for model in found}


def default(api: Api) -> list[str]:
    return [ref for ref, model in models(api).items() if model["default"]]


def newest_is(api: Api, ref: str) -> None:
    """That it takes over alone is to be waited for: for some scans the version before takes some of it, too."""
    wait_until(
        lambda: all(answered_by(api, "clothes") == ref for _ in range(10)), what=f"{ref} to take what names no version"
    )


def test_each_version_takes_what_asks_for_it_and_the_newest_the_rest(stack: Stack, packages: Path, api: Api) -> None:
    start(stack, packages, "clothes@9")
    assert answered_by(api, "clothes") == "clothes@9"
    assert default(api) == ["clothes@9"]

    newer = start(stack, packages, "clothes@10")
    newest_is(api, "clothes@10")
    assert default(api) == ["clothes@10"]
    for ref in ("clothes@9", "clothes@10", "clothes@9"):
        assert answered_by(api, ref) == ref
    assert [answered_by(api, "clothes") for _ in range(5)] == ["clothes@10"] * 5

    newer.stop()
    newest_is(api, "clothes@9")
    assert classified(api, SHIRT, "clothes@10", seconds=1)["status"] == "queued"
    assert {ref: model["serving"]["processes"] for ref, model in models(api, "/clothes").items()} == {
        "clothes@9": 1,
        "clothes@10": 0,
        "clothes@11": 0,
    }


def test_what_a_killed_worker_leaves_goes_to_the_version_before(stack: Stack, packages: Path, api: Api) -> None:
    start(stack, packages, "clothes@9")
    newer = start(stack, packages, "clothes@10")
    newest_is(api, "clothes@10")
    newer.kill()
    assert answered_by(api, "clothes") == "clothes@9"


def test_a_version_whose_golden_images_fail_takes_no_traffic(stack: Stack, packages: Path, api: Api) -> None:
    start(stack, packages, "clothes@10,clothes@11")
    wait_until(lambda: httpx.get(f"{api.url}/v1/models").json()["faults"], what="what is told of it")
    (fault,) = httpx.get(f"{api.url}/v1/models/clothes").json()["faults"]
    assert fault["model"] == "clothes@11"
    assert "gives Bag at" in fault["detail"]
    assert [answered_by(api, "clothes") for _ in range(5)] == ["clothes@10"] * 5
    assert classified(api, SHIRT, "clothes@11", seconds=1)["status"] == "queued"
    assert default(api) == ["clothes@10"]


def test_a_worker_that_ends_for_it_leaves_word(stack: Stack, packages: Path, api: Api) -> None:
    worker = Worker(stack.valkey.url, packages / "log", MODELS="clothes@11", MODELS_DIR=str(packages))
    with pytest.raises(AssertionError, match="gives Bag at"):
        worker.start()
    worker.stop()
    (fault,) = httpx.get(f"{api.url}/v1/models/clothes@11").json()["faults"]
    assert (fault["model"], fault["workers"]) == ("clothes@11", 1)
    assert "gives Bag at" in fault["detail"]
    start(stack, packages, "clothes@10")
    assert httpx.get(f"{api.url}/v1/models").json()["faults"] == [], "whoever takes its place on this host is well"


def test_a_package_that_is_replaced_under_a_worker_is_not_served_as_what_it_was(
    stack: Stack, packages: Path, api: Api
) -> None:
    worker = start(stack, packages, "clothes@9")
    shutil.rmtree(packages / "clothes@9")
    (packages / "clothes@10").rename(packages / "clothes@9")
    (child,) = worker.children()
    os.kill(child, signal.SIGKILL)
    assert worker.wait(30) == 1
    assert "is not the clothes@9 any more with which this worker was started" in worker.output().splitlines()[-1]
    assert "not the clothes@9 any more" in httpx.get(f"{api.url}/v1/models").json()["faults"][0]["detail"]


def test_much_work_that_asks_for_a_version_holds_up_none_that_asks_for_none(
    stack: Stack, packages: Path, api: Api
) -> None:
    (child,) = start(stack, packages, "clothes@9").children()
    body = make_tar({f"{number}.png": SHIRT for number in range(20_000)})
    os.kill(child, signal.SIGSTOP)
    many, one = (
        httpx.post(
            f"{api.url}/v1/jobs?model={model}", content=content, headers={"Content-Type": kind}, timeout=60
        ).json()["links"]["self"]
        for model, content, kind in (("clothes@9", body, "application/x-tar"), ("clothes", SHIRT, "image/png"))
    )
    os.kill(child, signal.SIGCONT)
    assert httpx.get(f"{api.url}{one}?wait=20", timeout=40).json()["status"] == "completed"
    assert httpx.get(f"{api.url}{many}").json()["counts"]["pending"] > 0


def test_one_worker_serves_several_versions(stack: Stack, packages: Path, api: Api) -> None:
    start(stack, packages, "clothes@9,clothes@10")
    for asked, ref in (("clothes", "clothes@10"), ("clothes@9", "clothes@9"), ("clothes@10", "clothes@10")):
        assert answered_by(api, asked) == ref


def test_a_model_page_names_the_weights(stack: Stack, packages: Path, api: Api) -> None:
    assert list(models(api, "/clothes")) == ["clothes@9", "clothes@10", "clothes@11"]
    one = models(api, "/clothes@10")
    assert list(one) == ["clothes@10"]
    assert len(one["clothes@10"]["sha256"]) == 64
    assert default(api) == ["clothes@11"], "nobody serves any: the newest, whoever will"


def test_a_version_that_does_not_exist_is_refused(stack: Stack, api: Api) -> None:
    refused = httpx.post(f"{api.url}/v1/jobs?model=clothes@12", content=SHIRT, headers=PNG)
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model")
    assert httpx.get(f"{api.url}/v1/models/clothes@12").status_code == 404


def test_a_folder_of_another_version_is_no_package_of_this_one(stack: Stack, packages: Path) -> None:
    (packages / "clothes@10").rename(packages / "clothes")
    worker = Worker(stack.valkey.url, packages / "log", MODELS="clothes@12", MODELS_DIR=str(packages))
    with pytest.raises(AssertionError, match="describes clothes@10, not clothes@12"):
        worker.start()
    worker.stop()
