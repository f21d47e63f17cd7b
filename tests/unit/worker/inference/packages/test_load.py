import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from jobs.errors import ModelPackageError
from jobs.item_codes import ItemCode
from jobs.model_manifest import Output
from jobs.records import Failure, Outcome
from tests.support.pictures import LIMITS, encode, samples
from worker.inference.classifier import Classifier
from worker.inference.head import Head
from worker.inference.images.preprocess import BOOK
from worker.inference.packages.load import load_package

SHIPPED = Path(__file__).parents[5] / "weights" / "fmnist-mlp"


@pytest.fixture(scope="module")
def shipped() -> Classifier:
    return load_package(SHIPPED, LIMITS)


def package(folder: Path, weights: bytes, file_format: str, *, golden: bool = False) -> Path:
    """A package named `mine` of these weights and the shipped manifest."""
    manifest = json.loads((SHIPPED / "manifest.json").read_text())
    manifest |= {"name": "mine", "version": None, "weights": {"file": "fmnist.weights.pth", "format": file_format}}
    if not golden:
        manifest["golden"] = []
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "fmnist.weights.pth").write_bytes(weights)
    return folder


def state_dict(tmp_path: Path, state: object) -> bytes:
    torch.save(state, tmp_path / "state.pth")
    return (tmp_path / "state.pth").read_bytes()


def shipped_weights() -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(SHIPPED / "fmnist-mlp.safetensors")


def assert_same_results(one: Classifier, other: Classifier) -> None:
    """Except for the last digits of confidences: each classifier chose its variant of the network by measuring."""
    uploads = list(samples().values())
    pairs = zip(one.classify(uploads, [10] * 30), other.classify(uploads, [10] * 30), strict=True)
    for outcome, expected in pairs:
        assert isinstance(outcome, list)
        assert isinstance(expected, list)
        assert [p.class_index for p in outcome] == [p.class_index for p in expected]
        np.testing.assert_allclose([p.confidence for p in outcome], [p.confidence for p in expected], atol=1e-6)


def test_the_shipped_package_loads_and_classifies_the_samples(shipped: Classifier) -> None:
    pictures = samples()
    outcomes = shipped.classify(list(pictures.values()), [1] * len(pictures))
    correct = 0
    for name, outcome in zip(pictures, outcomes, strict=True):
        assert isinstance(outcome, list)
        label = shipped.card.classes[outcome[0].class_index].lower().replace("/top", "").replace(" ", "-")
        correct += name.partition("-")[2] == f"{label}.png"
    assert len(pictures) == 30
    assert correct >= 26


def test_a_state_dict_is_loaded_as_the_same_network(tmp_path: Path, shipped: Classifier) -> None:
    mine = load_package(package(tmp_path, state_dict(tmp_path, shipped_weights()), "state_dict"), LIMITS)

    assert_same_results(mine, shipped)
    assert mine.card.version == hashlib.sha256((tmp_path / "fmnist.weights.pth").read_bytes()).hexdigest()[:8]


def test_a_state_dict_of_a_network_with_a_flatten_in_front_is_loaded(tmp_path: Path, shipped: Classifier) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 10))
    renumbered = {"0": "1", "2": "3"}
    shifted = {f"{renumbered[name[0]]}{name[1:]}": value for name, value in shipped_weights().items()}
    network.load_state_dict(shifted)
    mine = load_package(package(tmp_path, state_dict(tmp_path, network.state_dict()), "state_dict"), LIMITS)
    assert_same_results(mine, shipped)


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('the pickle was run')",)


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ({"weight": torch.zeros(2)}, "the network has 0.weight"),
        ({name: torch.zeros(3) for name in ("0.weight", "0.bias", "2.weight", "2.bias")}, "has the shape (3,)"),
        ([1, 2, 3], "not a state dict, but a list"),
        ({"epoch": 3, "model_state_dict": {}}, "not a state dict; its keys are epoch, model_state_dict"),
        (nn.Sequential(nn.Linear(784, 10)), "it is a whole model; save model.state_dict() instead"),
        (_Bomb(), "cannot be read as state_dict: it contains more than tensors: builtins.exec"),
    ],
    ids=["other names", "other shapes", "a list", "a checkpoint", "a whole model", "a pickle that runs code"],
)
def test_weights_of_another_kind_are_refused_in_one_line(tmp_path: Path, state: object, line: str) -> None:
    with pytest.raises(ModelPackageError) as raised:
        load_package(package(tmp_path, state_dict(tmp_path, state), "state_dict"), LIMITS)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("weights", [b"", b"no weights", bytes(range(256)), pickle.dumps(_Bomb())])
@pytest.mark.parametrize("file_format", ["safetensors", "state_dict"])
def test_files_that_are_not_weights_are_refused(tmp_path: Path, weights: bytes, file_format: str) -> None:
    with pytest.raises(ModelPackageError, match=f"cannot be read as {file_format}: .") as raised:
        load_package(package(tmp_path, weights, file_format), LIMITS)
    assert str(raised.value).isprintable(), "one line, no colours"
    assert len(str(raised.value)) < len(str(tmp_path)) + 150


def test_a_package_with_other_results_for_its_golden_images_is_refused(tmp_path: Path) -> None:
    weights = {name: -value for name, value in shipped_weights().items()}
    folder = package(tmp_path, safetensors.torch.save(weights), "safetensors", golden=True)
    (folder / "golden").mkdir()
    for image in (SHIPPED / "golden").iterdir():
        (folder / "golden" / image.name).write_bytes(image.read_bytes())
    with pytest.raises(ModelPackageError, match=r"gives .*; the manifest expects"):
        load_package(folder, LIMITS)


def test_a_missing_golden_image_is_named(tmp_path: Path) -> None:
    folder = package(tmp_path, safetensors.torch.save(shipped_weights()), "safetensors", golden=True)
    with pytest.raises(ModelPackageError, match=r"golden/trouser\.png: No such file"):
        load_package(folder, LIMITS)


def test_an_image_gets_the_same_classes_alone_and_in_a_batch(shipped: Classifier) -> None:
    uploads = list(samples().values())
    outcomes = shipped.classify(uploads, [10] * 30)
    for upload, outcome in zip(uploads, outcomes, strict=True):
        (alone,) = shipped.classify([upload], [10])
        assert isinstance(alone, list)
        assert isinstance(outcome, list)
        assert [p.class_index for p in alone] == [p.class_index for p in outcome]
        np.testing.assert_allclose([p.confidence for p in alone], [p.confidence for p in outcome], atol=1e-6)


def test_each_image_gets_its_top_k_classes(shipped: Classifier) -> None:
    upload = next(iter(samples().values()))
    outcomes = shipped.classify([upload] * 3, [1, 3, 100])
    assert [len(outcome) for outcome in outcomes if isinstance(outcome, list)] == [1, 3, 10]
    ranked = outcomes[2]
    assert isinstance(ranked, list)
    assert [p.confidence for p in ranked] == sorted((p.confidence for p in ranked), reverse=True)
    assert abs(sum(p.confidence for p in ranked) - 1) < 1e-5


class _FailsOn(nn.Module):
    """Raises an error, or returns NaN, for an input whose first value is the marked one."""

    def __init__(self, marked: float, *, with_nan: bool) -> None:
        super().__init__()
        self._marked, self._with_nan = marked, with_nan

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        marked = inputs[:, 0, 0, 0] == self._marked
        if marked.any() and not self._with_nan:
            raise RuntimeError("no such input")
        logits = torch.zeros(len(inputs), 10)
        logits[marked] = float("nan")
        return logits


def test_a_network_whose_output_is_nan_is_refused(tmp_path: Path) -> None:
    """Its training has diverged, for example; every image would fail."""
    state = shipped_weights()
    state["0.bias"][0] = float("nan")
    with pytest.raises(ModelPackageError, match=r"fmnist.weights.pth: the network's output is NaN$"):
        load_package(package(tmp_path, safetensors.torch.save(state), "safetensors"), LIMITS)


def test_a_network_whose_outputs_are_not_confidences_is_refused(tmp_path: Path) -> None:
    folder = package(tmp_path, safetensors.torch.save(shipped_weights()), "safetensors")
    manifest = json.loads((folder / "manifest.json").read_text()) | {"output": {"activation": "none"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    message = r"output.activation: with 'none', the network's output must be confidences from 0 to 1; one is -?\d"
    with pytest.raises(ModelPackageError, match=message):
        load_package(folder, LIMITS)


def test_a_network_may_return_bfloat16(shipped: Classifier, shirt: bytes) -> None:
    class Half(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.arange(10.0).expand(len(inputs), 10).bfloat16()

    half = Classifier(Half(), shipped.card, BOOK, Head(Output(), 10), LIMITS)
    (outcome,) = half.classify([shirt], [1])
    assert isinstance(outcome, list)
    assert outcome[0].class_index == 9


@pytest.mark.parametrize("with_nan", [True, False])
def test_an_image_on_which_the_network_fails_does_not_affect_others(shipped: Classifier, *, with_nan: bool) -> None:
    marked = encode(Image.new("L", (28, 28), 0), "PNG")
    other = encode(Image.new("L", (28, 28), 255), "PNG")
    broken = Classifier(_FailsOn(1.0, with_nan=with_nan), shipped.card, BOOK, Head(Output(), 10), LIMITS)

    outcomes: list[Outcome] = broken.classify([other, marked, other], [1, 3, 2])

    assert outcomes[1] == Failure(ItemCode.MODEL_FAILED)
    assert outcomes[0] == [(0, np.float32(0.1))]
    assert outcomes[2] == [(0, np.float32(0.1)), (1, np.float32(0.1))], (
        "of classes with equal confidences, the first ones"
    )
