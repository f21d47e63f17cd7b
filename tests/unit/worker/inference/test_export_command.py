import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.networks import is_bright
from tests.support.pictures import LIMITS, encode, photo, samples
from tests.support.processes import ROOT
from tests.unit.worker.inference.commands import SMALL, error_of, export_two_classes, run_command
from worker.inference import command
from worker.inference.command import argument_parser, class_names
from worker.inference.packages.load import load_package

PHOTO = photo(samples()["0007-shirt.png"], size=(640, 480))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_classes_by_a_sigmoid_and_a_threshold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, golden = tmp_path / "state.pt", tmp_path / "night.png"
    torch.save(is_bright().state_dict(), state)
    golden.write_bytes(encode(Image.new("L", (50, 50), 10), "PNG"))
    folder = tmp_path / "brightness"
    options = ["--classes", "dark,bright", "--input", "1x32x32", "--mode", "resize", "--activation", "sigmoid"]
    arguments = ["tests.support.networks:is_bright", folder, "--state", state, *options, "--threshold", 0.9]
    run_command("export", *arguments, "--golden", golden)
    valid, loaded, golden_images, *measured, chosen = capsys.readouterr().out.splitlines()
    assert valid == "manifest.json: valid; exported, 2 classes"
    assert loaded.startswith("brightness@")
    assert golden_images == "1 golden images: results as in the manifest"
    assert [line.partition(":")[0] for line in measured] == [f"forward pass of {batch}" for batch in (1, 16, 64)]
    assert re.match(r"a worker computes batches of \d+", chosen)

    classifier = load_package(folder, LIMITS)
    levels = {10: "dark", 140: "dark", 180: "dark", 200: "bright", 250: "bright"}
    pictures = [encode(Image.new("RGB", (64, 48), (level,) * 3), "PNG") for level in levels]
    for outcome, expected in zip(classifier.classify(pictures, [2] * len(levels)), levels.values(), strict=True):
        assert isinstance(outcome, list)
        assert classifier.card.classes[outcome[0].class_index] == expected


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("nothing", "has no attribute 'nothing'"),
        ("no_network", "returns a str, not a torch.nn.Module"),
        ("of_classes", "missing 1 required positional argument: 'classes'"),
        ("branches", "torch.export does not support it: .*data-dependent"),
        ("one_at_a_time", "does not accept 2 images of 1 × 8 × 8: "),
        ("two_at_a_time", "torch.export does not support it: .*constant"),
        ("thousand_classes", "does not accept 2 images of 1 × 8 × 8: "),
    ],
)
def test_a_network_that_cannot_be_exported_is_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], network: str, message: str
) -> None:
    factory = f"tests.support.networks:{network}"
    line = error_of("export", factory, tmp_path / "mine", *SMALL)
    assert re.search(f"{factory}: .*{message}", line), line
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_module_is_reported(tmp_path: Path) -> None:
    line = error_of("export", "tests.support.nowhere:network", tmp_path / "mine", *SMALL)
    assert "tests.support.nowhere:network: ModuleNotFoundError: No module named" in line


def test_a_state_that_does_not_fit_the_network_is_reported(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    arguments = ["export", "tests.support.networks:two_classes", tmp_path / "mine", *SMALL, "--state", state]
    assert f"{state}: no such file" in error_of(*arguments)
    torch.save(is_bright().state_dict(), state)
    line = error_of(*arguments)
    assert f"{state}: does not fit tests.support.networks:two_classes: RuntimeError: Error(s) in loading" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--golden", "nothere.jpg"), "nothere.jpg"),
        (("--golden", ROOT / "LICENSE"), "LICENSE: not_an_image"),
        (("--classes", "a,b,c"), r"darkroom inference: manifest.json: classes: for 3 classes .* but has \(1, 2\)"),
        (("--classes", "a"), "--classes: a: neither names separated by commas nor a file"),
        (("--classes", "a,a"), "classes: duplicate name: 'a' is class 0 and class 1"),
        (("--input", "2x8x8"), "manifest.json: input.channels: "),
        (("--mode", "stretch"), "manifest.json: preprocessing.mode: "),
        (("--version", "1/2"), "manifest.json: version: "),
    ],
)
def test_a_failed_export_changes_no_file(tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    export_two_classes(tmp_path / "mine")
    before = files(tmp_path)
    for folder in (tmp_path / "mine", tmp_path / "weights" / "other"):
        line = error_of("export", "tests.support.networks:two_classes", folder, *SMALL, *options)
        assert re.search(message, line), line
        assert "pydantic" not in line
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_package_that_cannot_be_moved_into_place_changes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_two_classes(tmp_path / "mine")
    before, rename = files(tmp_path), Path.rename

    def fail_for_the_package(path: Path, target: Path) -> Path:
        if path.name == "package":
            raise OSError("disk full")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_package)
    arguments = ["export", "tests.support.networks:two_classes", tmp_path / "mine", *SMALL]
    assert error_of(*arguments) == "darkroom inference: disk full"
    assert files(tmp_path) == before


def test_a_package_is_replaced_as_a_whole(tmp_path: Path) -> None:
    golden = tmp_path / "one.png"
    golden.write_bytes(encode(PHOTO, "PNG"))
    export_two_classes(tmp_path / "mine", "--golden", golden)
    assert set(files(tmp_path / "mine")) == {"manifest.json", "program.pt2", "golden/1.png"}
    export_two_classes(tmp_path / "mine")
    assert set(files(tmp_path / "mine")) == {"manifest.json", "program.pt2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "one.png"]


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    export_two_classes(tmp_path / "weights" / "mine")
    (tmp_path / "weights" / "mine" / "mine.py").touch()
    (tmp_path / "file").touch()
    before = files(tmp_path)
    for folder, message in {
        "weights": "weights: contains mine/",
        "weights/mine": "mine: contains mine.py, which is not part of a package",
        "file": "file: exists and is not a folder",
    }.items():
        arguments = ["export", "tests.support.networks:two_classes", tmp_path / folder, *SMALL]
        assert message in error_of(*arguments)
    assert files(tmp_path) == before


def test_golden_images_may_have_any_file_names_also_equal_ones(tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("my cat.png", "a/cat.png", "b/cat.png", "cat.p~g", "cat")]
    for number, path in enumerate(pictures):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(PHOTO.rotate(number), "PNG"))
    manifest = export_two_classes(tmp_path / "mine", "--golden", *pictures)
    names = ["golden/1.png", "golden/2.png", "golden/3.png", "golden/4", "golden/5"]
    assert [image.file for image in manifest.golden] == names
    assert [(tmp_path / "mine" / name).read_bytes() for name in names] == [path.read_bytes() for path in pictures]


def test_a_long_list_of_classes(tmp_path: Path) -> None:
    names = [f"class number {number}" for number in range(100)]
    assert class_names(",".join(names)) == names
    (tmp_path / "classes.txt").write_text("\n".join(names) + "\n")
    assert class_names(str(tmp_path / "classes.txt")) == names


def test_the_examples_of_the_help_are_right() -> None:
    examples = [line.split()[3:] for line in str(command.__doc__).splitlines() if line.startswith("    python")]
    parsed = [argument_parser().parse_args(example) for example in examples]
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
def test_the_version_is_in_the_folders_name_or_an_option(
    tmp_path: Path, folder: str, options: tuple[str, ...], version: str | None
) -> None:
    manifest = export_two_classes(tmp_path / folder, *options)
    assert (manifest.name, manifest.version) == ("mine", version)
    run_command("check", tmp_path / folder)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("mine@2", "mine@2: is for version 2, but --version is 3"),
        ("mine@", "mine@: is for version , but --version is 3"),
        ("Mine", "manifest.json: name: "),
    ],
)
def test_a_folder_that_does_not_match_name_and_version_is_reported(tmp_path: Path, folder: str, message: str) -> None:
    arguments = ["export", "tests.support.networks:two_classes", tmp_path / folder, *SMALL, "--version", 3]
    line = error_of(*arguments)
    assert message in line
    assert "pydantic" not in line
