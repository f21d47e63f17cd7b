"""Versions of a model side by side: each gets the jobs that name it, and the newest that is ready gets the others."""

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


def classified_by(api: Api, model: str) -> str:
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
    """Waits until this version gets all jobs: for some scans the version before gets some of them, too."""
    wait_until(
        lambda: all(classified_by(api, "clothes") == ref for _ in range(10)),
        what=f"all jobs to go to {ref}",
    )


def test_each_version_gets_jobs_that_name_it_and_the_newest_the_others(stack: Stack, packages: Path, api: Api) -> None:
    start(stack, packages, "clothes@9")
    assert classified_by(api, "clothes") == "clothes@9"
    assert default(api) == ["clothes@9"]

    newer = start(stack, packages, "clothes@10")
    newest_is(api, "clothes@10")
    assert default(api) == ["clothes@10"]
    for ref in ("clothes@9", "clothes@10", "clothes@9"):
        assert classified_by(api, ref) == ref
    assert [classified_by(api, "clothes") for _ in range(5)] == ["clothes@10"] * 5

    newer.stop()
    newest_is(api, "clothes@9")
    assert classified(api, SHIRT, "clothes@10", seconds=1)["status"] == "queued"
    assert {ref: model["serving"]["processes"] for ref, model in models(api, "/clothes").items()} == {
        "clothes@9": 1,
        "clothes@10": 0,
        "clothes@11": 0,
    }


def test_the_version_before_takes_over_from_a_killed_worker(stack: Stack, packages: Path, api: Api) -> None:
    start(stack, packages, "clothes@9")
    newer = start(stack, packages, "clothes@10")
    newest_is(api, "clothes@10")
    newer.kill()
    assert classified_by(api, "clothes") == "clothes@9"


def test_a_version_whose_golden_images_fail_takes_no_traffic(stack: Stack, packages: Path, api: Api) -> None:
    start(stack, packages, "clothes@10,clothes@11")
    wait_until(lambda: httpx.get(f"{api.url}/v1/models").json()["faults"], what="its load error")
    (load_error,) = httpx.get(f"{api.url}/v1/models/clothes").json()["faults"]
    assert load_error["model"] == "clothes@11"
    assert "gives Bag at" in load_error["detail"]
    assert [classified_by(api, "clothes") for _ in range(5)] == ["clothes@10"] * 5
    assert classified(api, SHIRT, "clothes@11", seconds=1)["status"] == "queued"
    assert default(api) == ["clothes@10"]


def test_a_worker_that_serves_no_version_leaves_its_load_errors(stack: Stack, packages: Path, api: Api) -> None:
    worker = Worker(stack.valkey.url, packages / "log", MODELS="clothes@11", MODELS_DIR=str(packages))
    with pytest.raises(AssertionError, match="gives Bag at"):
        worker.start()
    worker.stop()
    (load_error,) = httpx.get(f"{api.url}/v1/models/clothes@11").json()["faults"]
    assert (load_error["model"], load_error["workers"]) == ("clothes@11", 1)
    assert "gives Bag at" in load_error["detail"]
    start(stack, packages, "clothes@10")
    assert httpx.get(f"{api.url}/v1/models").json()["faults"] == [], "removed by the next worker of the host"


def test_a_package_that_is_replaced_under_a_worker_is_not_served_as_what_it_was(
    stack: Stack, packages: Path, api: Api
) -> None:
    worker = start(stack, packages, "clothes@9")
    shutil.rmtree(packages / "clothes@9")
    (packages / "clothes@10").rename(packages / "clothes@9")
    (child,) = worker.children()
    os.kill(child, signal.SIGKILL)
    assert worker.wait(120) == 1
    assert "is no longer the clothes@9 with which this worker was started" in worker.output().splitlines()[-1]
    assert "no longer the clothes@9" in httpx.get(f"{api.url}/v1/models").json()["faults"][0]["detail"]


def test_much_work_for_one_version_does_not_delay_jobs_that_name_none(stack: Stack, packages: Path, api: Api) -> None:
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
    for name, ref in (("clothes", "clothes@10"), ("clothes@9", "clothes@9"), ("clothes@10", "clothes@10")):
        assert classified_by(api, name) == ref


def test_a_model_page_names_the_weights(stack: Stack, packages: Path, api: Api) -> None:
    assert list(models(api, "/clothes")) == ["clothes@9", "clothes@10", "clothes@11"]
    one = models(api, "/clothes@10")
    assert list(one) == ["clothes@10"]
    assert len(one["clothes@10"]["sha256"]) == 64
    assert default(api) == ["clothes@11"], "no version is served: the newest is the default"


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
