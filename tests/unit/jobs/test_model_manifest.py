import json
from pathlib import Path

import pytest

from jobs.errors import ModelPackageError
from jobs.model_manifest import Manifest, card_from_json, name_of, natural_sort_key
from jobs.model_packages import check_package, pinned_cards, read_manifest
from pretrained.names import PRETRAINED

PACKAGE = Path(__file__).parents[3] / "weights" / "fmnist-mlp"


def write(folder: Path, **changes: object) -> Path:
    """A package of the shipped manifest, with some fields changed or left out (...), and arbitrary bytes as weights."""
    folder.mkdir(exist_ok=True)
    manifest = json.loads((PACKAGE / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not ...}))
    (folder / "fmnist-mlp.safetensors").write_bytes(b"weights")
    return folder


def test_the_shipped_package_matches_its_manifest() -> None:
    manifest, card = check_package(PACKAGE)
    assert card.ref == "fmnist-mlp@1"
    assert manifest.test_accuracy is not None
    assert manifest.test_accuracy >= 0.885
    cards = [card.name for card in pinned_cards(PACKAGE.parent) if card.name not in PRETRAINED]  # may be built here
    assert cards == ["fmnist-cnn", "fmnist-mlp"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"classes": ...}, "classes: Field required"),
        ({"colour": "red"}, "manifest.json: colour: unknown field: misspelled, or of another version of Darkroom"),
        ({"second_look": {"below": 0.6}}, "manifest.json: second_look: unknown field: "),
        ({"preprocessing": {"mode": "book", "size": 28}}, "manifest.json: preprocessing.size: unknown field: "),
        ({"architecture": "fmnist-cnn"}, "architecture: Input should be 'fmnist-mlp' or 'fmnist-cnn-2'"),
        ({"classes": ["a", "a"]}, "manifest.json: classes: duplicate name: 'a' is class 0 and class 1"),
        ({"classes": ["a"]}, "classes: "),
        ({"architecture": "resnet"}, "architecture: "),
        ({"preprocessing": {"mode": "guess"}}, "preprocessing.mode: "),
        ({"preprocessing": {"mode": "resize", "mean": [float("nan")]}}, "preprocessing.mean.0: "),
        ({"output": {"familiar_min": float("inf")}}, "output.familiar_min: "),
        ({"weights": {"file": "../../etc/passwd", "format": "safetensors"}}, "weights.file: "),
        ({"weights": {"file": "/etc/passwd", "format": "safetensors"}}, "weights.file: "),
        ({"name": "Big Model"}, "name: "),
        ({"golden": [{"file": "a.png", "class_name": "Hat", "confidence": 1}]}, "'Hat', which is not in `classes`"),
        ({"test_accuracy": 89.9}, "test_accuracy: "),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_fields_name(
    tmp_path: Path, changes: dict[str, object], line: str
) -> None:
    with pytest.raises(ModelPackageError) as raised:
        check_package(write(tmp_path, **changes))
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelPackageError, match=r"manifest\.json: No such file"):
        read_manifest(tmp_path)


def test_other_weights_than_the_manifest_pins_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelPackageError, match="but the manifest says"):
        check_package(write(tmp_path))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "fmnist-mlp.safetensors").unlink()
    with pytest.raises(ModelPackageError, match=r"fmnist-mlp\.safetensors: No such file"):
        check_package(tmp_path)


def test_unpinned_weights_are_a_version_of_their_own(tmp_path: Path) -> None:
    package = write(tmp_path / "mine", weights={"file": "fmnist-mlp.safetensors", "format": "safetensors"}, version=...)
    _, card = check_package(package)
    assert card.version == card.sha256[:8]
    (package / "fmnist-mlp.safetensors").write_bytes(b"other weights")
    assert check_package(package)[1].ref != card.ref
    assert list(pinned_cards(tmp_path)) == [], (
        "the version of unpinned weights depends on their bytes, which this does not read"
    )


def test_a_wrong_manifest_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path / "bad", classes=...)
    write(tmp_path / "fmnist-mlp")
    assert [card.ref for card in pinned_cards(tmp_path)] == ["fmnist-mlp@1"]


def test_a_copy_in_another_folder_is_not_taken_for_the_version_that_it_was_copied_from(tmp_path: Path) -> None:
    for folder, version, number in (("backup", "1", "a"), ("fmnist-mlp", "1", "b"), ("fmnist-mlp@2", "2", "c")):
        weights = {"file": "fmnist-mlp.safetensors", "format": "safetensors", "sha256": number * 64}
        write(tmp_path / folder, version=version, weights=weights)
    known = [(card.ref, card.sha256[0]) for card in pinned_cards(tmp_path)]
    assert known == [("fmnist-mlp@1", "b"), ("fmnist-mlp@2", "c")]


def test_a_card_of_a_newer_version_is_still_read() -> None:
    card = Manifest.model_validate_json((PACKAGE / "manifest.json").read_bytes()).card("0" * 64)
    newer = card.model_dump() | {"thresholds": [1, 2]}
    assert card_from_json(json.dumps(newer).encode()) == card


def test_versions_are_in_the_order_of_their_numbers() -> None:
    versions = ["m@1", "m@1.2", "m@1.10", "m@2", "m@9", "m@10", "m@10-rc1", "m@a1", "m@a12", "m@b"]
    assert sorted(set(versions), key=natural_sort_key) == versions
    assert sorted(["m@1²2", "m@10", "m@1"], key=natural_sort_key) == ["m@1", "m@1²2", "m@10"], (
        "² is a digit, but not a decimal number"
    )


def test_the_name_of_a_model_is_before_its_version() -> None:
    assert [name_of(ref) for ref in ("m@1", "m", "@fetch", "@fetch@1")] == ["m", "m", "@fetch", "@fetch@1"]
