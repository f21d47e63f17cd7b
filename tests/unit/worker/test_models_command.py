"""Packages of anyone's network: made, checked, served; and what is no such package."""

import json
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.errors import ModelPackageError
from jobs.models import Manifest
from tests.support.networks import is_bright, thousand_classes
from tests.support.pictures import LIMITS, encode, photo, samples
from tests.support.processes import ROOT
from worker import models
from worker.models import export, main, schema
from worker.package import load_package

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PHOTO = photo(samples()["0007-shirt.png"], size=(640, 480))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["models", *map(str, arguments)])
    monkeypatch.setattr(models, "SECONDS_MAX", 0.01)
    main()


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    export(
        thousand_classes(),
        tmp_path / "thousand",
        limits=LIMITS,
        classes=[f"class {number}" for number in range(1000)],
        input={"channels": 3, "height": 224, "width": 224},
        preprocessing={"mode": "center_crop", "shorter_side": 256, "mean": MEAN, "std": STD},
    )
    return tmp_path / "thousand"


def test_a_network_of_a_thousand_classes_answers_as_it_does_in_torch(thousand: Path) -> None:
    classifier = load_package(thousand, LIMITS)
    (outcome,) = classifier.classify([encode(PHOTO, "PNG")], [1000])
    assert isinstance(outcome, list)

    resized = PHOTO.convert("RGB").resize((341, 256), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized.crop((58, 16, 58 + 224, 16 + 224)), np.float32) / 255
    inputs = torch.from_numpy(((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)[np.newaxis])
    with torch.inference_mode():
        expected = torch.softmax(thousand_classes()(inputs), dim=1)[0].numpy()
    of = dict(outcome)
    np.testing.assert_allclose([of[number] for number in range(1000)], expected, atol=1e-4)
    assert outcome[0].class_index == expected.argmax()


def test_a_batch_of_any_size_gives_what_each_image_gives_alone(thousand: Path) -> None:
    classifier = load_package(thousand, LIMITS)
    uploads = [encode(PHOTO.rotate(7 * number), "PNG") for number in range(5)]
    together = classifier.classify(uploads, [3] * 5)
    for upload, outcome in zip(uploads, together, strict=True):
        (alone,) = classifier.classify([upload], [3])
        assert isinstance(outcome, list)
        assert isinstance(alone, list)
        assert [it.class_index for it in outcome] == [it.class_index for it in alone]


def test_two_classes_by_a_sigmoid_and_a_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state, golden = tmp_path / "state.pt", tmp_path / "night.png"
    torch.save(is_bright().state_dict(), state)
    golden.write_bytes(encode(Image.new("L", (50, 50), 10), "PNG"))
    folder = tmp_path / "brightness"
    options = ["--classes", "dark,bright", "--input", "1x32x32", "--mode", "resize", "--activation", "sigmoid"]
    arguments = ["tests.support.networks:is_bright", folder, "--state", state, *options, "--threshold", 0.9]
    run(monkeypatch, "export", *arguments, "--golden", golden)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "manifest.json: sound; exported, 2 classes"
    assert said[1].startswith("brightness@")
    assert said[2] == "1 golden images: as the manifest says"
    assert [line.partition(":")[0] for line in said[3:]] == ["forward of 1", "forward of 16", "forward of 64"]

    classifier = load_package(folder, LIMITS)
    levels = {10: "dark", 140: "dark", 180: "dark", 200: "bright", 250: "bright"}
    pictures = [encode(Image.new("RGB", (64, 48), (level,) * 3), "PNG") for level in levels]
    for outcome, expected in zip(classifier.classify(pictures, [2] * len(levels)), levels.values(), strict=True):
        assert isinstance(outcome, list)
        assert classifier.card.classes[outcome[0].class_index] == expected


def test_check_says_what_is_wrong_in_one_line(
    thousand: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "check", ROOT / "weights" / "fmnist-mlp")
    assert "3 golden images: as the manifest says" in capsys.readouterr().out
    (thousand / "program.pt2").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=r"^darkroom models: .*program.pt2: its sha256 is .*, the manifest says"):
        run(monkeypatch, "check", thousand)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("tests.support.networks:nothing", "has no attribute 'nothing'"),
        ("tests.support.nowhere:network", "No module named"),
        ("tests.support.networks:no_network", "gives a str, no torch.nn.Module"),
    ],
)
def test_what_makes_no_network_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str, message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, "export", factory, tmp_path / "mine", "--classes", "a,b", "--input", "1x8x8")


def changed(folder: Path, change: Callable[[str, bytes], bytes], **fields: object) -> Path:
    """The package with its program changed, member by member, and its hash put right."""
    copy = folder.parent / "changed"
    shutil.copytree(folder, copy)
    with zipfile.ZipFile(folder / "program.pt2") as given, zipfile.ZipFile(copy / "program.pt2", "w") as written:
        for name in given.namelist():
            written.writestr(name, change(name, given.read(name)))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["weights"].pop("sha256")
    (copy / "manifest.json").write_text(json.dumps(manifest | fields))
    return copy


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('the bomb went off')",))


def test_pickles_in_a_program_are_never_read(thousand: Path) -> None:
    bomb = pickle.dumps(_Bomb())
    package = changed(thousand, lambda name, data: bomb if "sample_inputs" in name else data)
    assert len(load_package(package, LIMITS).classify([encode(PHOTO, "PNG")], [1])) == 1


def test_a_program_whose_weights_are_pickles_is_refused(thousand: Path) -> None:
    def pickled(name: str, data: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            return data.replace(b'"use_pickle": false', b'"use_pickle": true')
        return pickle.dumps(_Bomb()) if "/weight_" in name else data

    with pytest.raises(ModelPackageError, match="names pickles, which can run code; only tensors are read"):
        load_package(changed(thousand, pickled), LIMITS)


def test_a_program_of_a_newer_format_is_told(thousand: Path) -> None:
    def newer(name: str, data: bytes) -> bytes:
        return data.replace(b'"schema_version": {"major": ', b'"schema_version": {"major": 9')

    with pytest.raises(ModelPackageError, match=r"exported by torch 2.13.0.*: .* does not match our current schema"):
        load_package(changed(thousand, newer), LIMITS)


@pytest.mark.parametrize("data", [b"", b"not a zip file", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_program_is_told(thousand: Path, data: bytes) -> None:
    package = changed(thousand, lambda _, it: it)
    (package / "program.pt2").write_bytes(data)
    with pytest.raises(ModelPackageError, match="cannot be read as exported"):
        load_package(package, LIMITS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ["a", "b"]}, r"classes: for 2 classes .* must have the shape \(1, 2\); it has \(1, 1000\)"),
        (
            {"input": {"channels": 3, "height": 1, "width": 1}, "classes": ["a", "b"]},
            "input: the network does not take",
        ),
        ({"architecture": "fmnist-cnn"}, "architecture: is in an exported program, and not to be named"),
        ({"output": {"activation": "sigmoid"}}, "the activation 'sigmoid' is of two classes, here are 1000"),
    ],
)
def test_a_manifest_that_does_not_fit_its_program_is_told(
    thousand: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelPackageError, match=message):
        load_package(changed(thousand, lambda _, data: data, **fields), LIMITS)


def test_the_published_schema_is_that_of_the_manifest() -> None:
    published = ROOT / "docs" / "manifest.schema.json"
    assert published.read_text() == schema(), "python -m worker.models schema > docs/manifest.schema.json"
    for manifest in (ROOT / "weights").glob("*/manifest.json"):
        assert set(json.loads(manifest.read_text())) <= set(json.loads(schema())["properties"])
        Manifest.model_validate_json(manifest.read_text())
