"""Packages of anyone's network: made, checked, served; and what is no such package."""

import json
import pickle
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.errors import ModelPackageError
from jobs.model_manifest import Manifest
from jobs.model_packages import check_packages, read_manifest
from tests.support.networks import is_bright, thousand_classes
from tests.support.pictures import LIMITS, encode, photo, samples
from tests.support.processes import ROOT
from worker.inference import __main__ as models
from worker.inference.__main__ import main, schema
from worker.inference.classifier import Classifier
from worker.inference.images.decode import ImageLimits
from worker.inference.networks.device import Device
from worker.inference.packages.export import export
from worker.inference.packages.load import load_package

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PHOTO = photo(samples()["0007-shirt.png"], size=(640, 480))
SMALL = ("--classes", "a,b", "--input", "1x8x8")


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
    submit_concurrently = classifier.classify(uploads, [3] * 5)
    for upload, outcome in zip(uploads, submit_concurrently, strict=True):
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


def refused(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """The one line that the command ends with."""
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    said = str(ended.value)
    assert said.startswith("darkroom models: ")
    assert "\n" not in said
    return said


def made(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: object) -> Manifest:
    run(monkeypatch, "export", "tests.support.networks:two_classes", folder, *SMALL, *options)
    return read_manifest(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_check_says_what_is_wrong_in_one_line(
    thousand: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "check", ROOT / "weights" / "fmnist-mlp")
    assert "3 golden images: as the manifest says" in capsys.readouterr().out
    (thousand / "program.pt2").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=r"^darkroom models: .*program.pt2: the sha256 is .*, but the manifest says"):
        run(monkeypatch, "check", thousand)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("nothing", "has no attribute 'nothing'"),
        ("no_network", "gives a str, no torch.nn.Module"),
        ("of_classes", "missing 1 required positional argument: 'classes'"),
        ("branches", "torch.export does not take it: .*data-dependent"),
        ("one_at_a_time", "does not take 2 images of 1 × 8 × 8: "),
        ("two_at_a_time", "torch.export does not take it: .*constant"),
        ("thousand_classes", "does not take 2 images of 1 × 8 × 8: "),
    ],
)
def test_a_factory_of_which_no_package_can_be_made_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    network: str,
    message: str,
) -> None:
    factory = f"tests.support.networks:{network}"
    said = refused(monkeypatch, "export", factory, tmp_path / "mine", *SMALL)
    assert re.search(f"{factory}: .*{message}", said), said
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, "export", "tests.support.nowhere:network", tmp_path / "mine", *SMALL)
    assert "tests.support.nowhere:network: ModuleNotFoundError: No module named" in said


def test_a_state_that_does_not_fit_the_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state.pt"
    arguments = ["export", "tests.support.networks:two_classes", tmp_path / "mine", *SMALL, "--state", state]
    assert f"{state}: there is no such file" in refused(monkeypatch, *arguments)
    torch.save(is_bright().state_dict(), state)
    said = refused(monkeypatch, *arguments)
    assert f"{state}: does not fit tests.support.networks:two_classes: RuntimeError: Error(s) in loading" in said


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DEVICE": "gpu"}, "DEVICE: "),
        ({"DEVICE": "cuda"}, "DEVICE is cuda, but torch .* finds no GPUs here"),
    ],
)
def test_a_wrong_setting_is_told(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert re.search(message, refused(monkeypatch, "check", ROOT / "weights" / "fmnist-mlp"))


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_a_wrong_number_of_threads_is_told(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    said = refused(monkeypatch, "check", ROOT / "weights" / "fmnist-mlp", "--threads", threads)
    assert said == f"darkroom models: --threads: must be from 1 to 256 (got {threads})"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--golden", "nothere.jpg"), "nothere.jpg"),
        (("--golden", ROOT / "LICENSE"), "LICENSE: not_an_image"),
        (("--classes", "a,b,c"), r"darkroom models: manifest.json: classes: for 3 classes .* it has \(1, 2\)"),
        (("--classes", "a"), "--classes: a: neither a list with commas nor a file"),
        (("--classes", "a,a"), "classes: duplicate name"),
        (("--input", "2x8x8"), "manifest.json: input.channels: "),
        (("--mode", "stretch"), "manifest.json: preprocessing.mode: "),
        (("--version", "1/2"), "manifest.json: version: "),
    ],
)
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], message: str
) -> None:
    made(monkeypatch, tmp_path / "mine")
    before = files(tmp_path)
    for folder in (tmp_path / "mine", tmp_path / "weights" / "other"):
        said = refused(monkeypatch, "export", "tests.support.networks:two_classes", folder, *SMALL, *options)
        assert re.search(message, said), said
        assert "pydantic" not in said
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_cannot_take_its_place_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch, tmp_path / "mine")
    before, rename = files(tmp_path), Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.name == "package":
            raise OSError("no room")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    arguments = ["export", "tests.support.networks:two_classes", tmp_path / "mine", *SMALL]
    assert refused(monkeypatch, *arguments) == "darkroom models: no room"
    assert files(tmp_path) == before


def test_a_package_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = tmp_path / "one.png"
    golden.write_bytes(encode(PHOTO, "PNG"))
    made(monkeypatch, tmp_path / "mine", "--golden", golden)
    assert set(files(tmp_path / "mine")) == {"manifest.json", "program.pt2", "golden/1.png"}
    made(monkeypatch, tmp_path / "mine")
    assert set(files(tmp_path / "mine")) == {"manifest.json", "program.pt2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "one.png"]


def test_a_folder_with_anything_else_in_it_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch, tmp_path / "weights" / "mine")
    (tmp_path / "weights" / "mine" / "mine.py").touch()
    (tmp_path / "file").touch()
    before = files(tmp_path)
    for folder, message in {
        "weights": "weights: holds mine/",
        "weights/mine": "mine: holds mine.py, which is no part of a package",
        "file": "file: is there, and is no folder",
    }.items():
        arguments = ["export", "tests.support.networks:two_classes", tmp_path / folder, *SMALL]
        assert message in refused(monkeypatch, *arguments)
    assert files(tmp_path) == before


def test_golden_pictures_may_have_any_names_and_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [tmp_path / name for name in ("my cat.png", "a/cat.png", "b/cat.png", "cat.p~g", "cat")]
    for number, path in enumerate(pictures):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(PHOTO.rotate(number), "PNG"))
    manifest = made(monkeypatch, tmp_path / "mine", "--golden", *pictures)
    names = ["golden/1.png", "golden/2.png", "golden/3.png", "golden/4", "golden/5"]
    assert [image.file for image in manifest.golden] == names
    assert [(tmp_path / "mine" / name).read_bytes() for name in names] == [path.read_bytes() for path in pictures]


def test_a_long_list_of_classes(tmp_path: Path) -> None:
    names = [f"class number {number}" for number in range(100)]
    assert models._classes(",".join(names)) == names
    (tmp_path / "classes.txt").write_text("\n".join(names) + "\n")
    assert models._classes(str(tmp_path / "classes.txt")) == names


def test_the_examples_of_the_help_are_right() -> None:
    examples = [line.split()[3:] for line in str(models.__doc__).splitlines() if line.startswith("    python")]
    parsed = [models._arguments().parse_args(example) for example in examples]
    assert [options.command for options in parsed] == ["check", "export", "schema"]
    assert (parsed[1].state, parsed[1].package) == (Path("state.pt"), Path("weights/mine"))


@pytest.mark.parametrize(
    ("folder", "options", "version"),
    [
        ("mine", (), None),
        ("mine", ("--version", "2"), "2"),
        ("mine@2", (), "2"),
        ("mine@2", ("--version", "2"), "2"),
    ],
)
def test_the_version_is_the_folders_or_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, options: tuple[str, ...], version: str | None
) -> None:
    manifest = made(monkeypatch, tmp_path / folder, *options)
    assert (manifest.name, manifest.version) == ("mine", version)
    run(monkeypatch, "check", tmp_path / folder)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("mine@2", "mine@2: is for version 2, but --version is 3"),
        ("mine@", "mine@: is for version , but --version is 3"),
        ("Mine", "manifest.json: name: "),
    ],
)
def test_a_folder_that_does_not_go_with_name_and_version_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, message: str
) -> None:
    arguments = ["export", "tests.support.networks:two_classes", tmp_path / folder, *SMALL, "--version", 3]
    said = refused(monkeypatch, *arguments)
    assert message in said
    assert "pydantic" not in said


@pytest.mark.parametrize("folder", ["other", "mine@3", "other@2"])
def test_check_refuses_a_folder_that_a_worker_would_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    made(monkeypatch, tmp_path / "mine@2")
    (tmp_path / "mine@2").rename(tmp_path / folder)
    (fault,) = check_packages(tmp_path, [folder])[1].values()
    assert refused(monkeypatch, "check", tmp_path / folder) == f"darkroom models: {fault}"
    assert fault.endswith(f"manifest.json: describes mine@2, not {folder}")


def test_a_package_is_checked_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch, tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    run(monkeypatch, "check", ".")


def test_check_measures_cpu_time_on_a_processor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEVICE", "cpu")
    run(monkeypatch, "check", ROOT / "weights" / "fmnist-mlp")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(" ms of CPU time an image, on 1 threads of the processor, in float32")


def test_check_computes_on_the_device_and_measures_the_time_that_passes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = list[Device]()

    def load_on(folder: Path, limits: ImageLimits, device: Device) -> Classifier:
        asked.append(device)
        return load_package(folder, limits)

    monkeypatch.setattr(models, "load_package", load_on)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    monkeypatch.setattr(time, "process_time", time.monotonic_ns)
    monkeypatch.setenv("DEVICE", "cuda:1")
    run(monkeypatch, "check", ROOT / "weights" / "fmnist-mlp", "--precision", "float32")
    assert asked == [Device(torch.device("cuda:1"), half=False)]
    *_, last = capsys.readouterr().out.splitlines()
    measured = re.fullmatch(r"forward of 64: (\S+) ms an image, on a GPU, cuda:1, in float32", last)
    assert measured is not None, last
    assert float(measured[1]) < 10_000


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
        ({"architecture": "fmnist-cnn-2"}, "architecture: not allowed: the program has its own"),
        ({"output": {"activation": "sigmoid"}}, "activation 'sigmoid' needs two classes, not 1000"),
    ],
)
def test_a_manifest_that_does_not_fit_its_program_is_told(
    thousand: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelPackageError, match=message):
        load_package(changed(thousand, lambda _, data: data, **fields), LIMITS)


def test_the_published_schema_is_that_of_the_manifest() -> None:
    published = ROOT / "docs" / "manifest.schema.json"
    assert published.read_text() == schema(), "python -m worker.inference schema > docs/manifest.schema.json"
    for manifest in (ROOT / "weights").glob("*/manifest.json"):
        assert set(json.loads(manifest.read_text())) <= set(json.loads(schema())["properties"])
        Manifest.model_validate_json(manifest.read_text())
