"""Packages of networks that `torch.export` has exported: their results, and what is refused when they are loaded."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.errors import ModelPackageError
from tests.support.networks import flattens_by_view, thousand_classes
from tests.support.pictures import LIMITS, encode, photo, samples
from tests.unit.worker.inference.conftest import IMAGENET_MEAN, IMAGENET_STD
from worker.inference.networks.optimize import fastest_equivalent
from worker.inference.packages.export import export
from worker.inference.packages.load import load_package

PHOTO = photo(samples()["0007-shirt.png"], size=(640, 480))


def test_a_network_of_a_thousand_classes_answers_as_it_does_in_torch(thousand: Path) -> None:
    classifier = load_package(thousand, LIMITS)
    (outcome,) = classifier.classify([encode(PHOTO, "PNG")], [1000])
    assert isinstance(outcome, list)

    resized = PHOTO.convert("RGB").resize((341, 256), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized.crop((58, 16, 58 + 224, 16 + 224)), np.float32) / 255
    inputs = torch.from_numpy(
        ((pixels - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)).transpose(2, 0, 1)[np.newaxis]
    )
    with torch.inference_mode():
        expected = torch.softmax(thousand_classes()(inputs), dim=1)[0].numpy()
    confidences = dict(outcome)
    np.testing.assert_allclose([confidences[number] for number in range(1000)], expected, atol=1e-4)
    assert outcome[0].class_index == expected.argmax()


def test_a_batch_of_any_size_gives_what_each_image_gives_alone(thousand: Path) -> None:
    classifier = load_package(thousand, LIMITS)
    uploads = [encode(PHOTO.rotate(7 * number), "PNG") for number in range(5)]
    outcomes = classifier.classify(uploads, [3] * 5)
    for upload, outcome in zip(uploads, outcomes, strict=True):
        (alone,) = classifier.classify([upload], [3])
        assert isinstance(outcome, list)
        assert isinstance(alone, list)
        assert [best.class_index for best in outcome] == [best.class_index for best in alone]


def test_a_network_that_accepts_only_contiguous_inputs_is_given_them(tmp_path: Path) -> None:
    """Decoded colour images have channels last."""
    size = {"channels": 3, "height": 8, "width": 8}
    fields = {"classes": ["a", "b"], "input": size, "preprocessing": {"mode": "resize"}}
    export(flattens_by_view(), tmp_path / "mine", limits=LIMITS, version="1", **fields)
    for optimize in (fastest_equivalent, lambda network, *_, **__: network):
        classifier = load_package(tmp_path / "mine", LIMITS, optimize=optimize)
        outcomes = classifier.classify([encode(PHOTO, "PNG")] * 2, [1] * 2)
        assert all(isinstance(outcome, list) for outcome in outcomes)


def changed(folder: Path, change: Callable[[str, bytes], bytes], **fields: object) -> Path:
    """A copy of a package with each member of its program changed, other manifest fields, and no sha256."""
    copy = folder.parent / "changed"
    shutil.copytree(folder, copy)
    with zipfile.ZipFile(folder / "program.pt2") as source, zipfile.ZipFile(copy / "program.pt2", "w") as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
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

    with pytest.raises(ModelPackageError, match="refers to pickles, which can run code; only plain tensors are read"):
        load_package(changed(thousand, pickled), LIMITS)


def test_a_program_of_a_newer_format_is_reported(thousand: Path) -> None:
    def newer(name: str, data: bytes) -> bytes:
        return data.replace(b'"schema_version": {"major": ', b'"schema_version": {"major": 9')

    with pytest.raises(ModelPackageError, match=r"exported by torch 2.13.0.*: .* does not match our current schema"):
        load_package(changed(thousand, newer), LIMITS)


@pytest.mark.parametrize("data", [b"", b"not a zip file", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_not_a_program_is_reported(thousand: Path, data: bytes) -> None:
    package = changed(thousand, lambda _, data: data)
    (package / "program.pt2").write_bytes(data)
    with pytest.raises(ModelPackageError, match="cannot be read as exported"):
        load_package(package, LIMITS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ["a", "b"]}, r"classes: for 2 classes .* must have the shape \(1, 2\), but has \(1, 1000\)"),
        (
            {"input": {"channels": 3, "height": 1, "width": 1}, "classes": ["a", "b"]},
            "input: the network does not accept",
        ),
        ({"architecture": "fmnist-cnn-2"}, "architecture: not allowed: the program has its own"),
        ({"output": {"activation": "sigmoid"}}, "activation 'sigmoid' needs two classes, not 1000"),
    ],
)
def test_a_manifest_that_does_not_fit_its_program_is_reported(
    thousand: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelPackageError, match=message):
        load_package(changed(thousand, lambda _, data: data, **fields), LIMITS)
