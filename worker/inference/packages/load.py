"""Loading a model package: a folder with `manifest.json` and weights."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from jobs.errors import ModelPackageError, one_line
from jobs.model_manifest import Manifest, natural_sort_key
from jobs.model_packages import MANIFEST, check_package
from worker.inference.classifier import Classifier
from worker.inference.head import Head
from worker.inference.images.decode import ImageLimits
from worker.inference.images.preprocess import preprocessor_for
from worker.inference.networks.architectures import ARCHITECTURES
from worker.inference.networks.device import FULL, Device, Placed
from worker.inference.networks.optimize import fastest_equivalent
from worker.inference.packages.exported_program import load_exported

GOLDEN_TOLERANCE = 1e-3  # confidences differ in the last digits between processors
HALF_TOLERANCE = 1e-2  # and more in bfloat16
_ROUNDED = 1e-2  # above or below, a confidence is only rounded
KEYS_NAMED = 8  # of a file that is no state dict


def load_package(folder: Path, limits: ImageLimits, device: Device = FULL) -> Classifier:
    """A model that is ready to serve: weights loaded, golden images classified.

    Raises:
        ModelPackageError: one line that says what is wrong.
    """
    manifest, card = check_package(folder)
    network = _load_network(folder, manifest, device.device)
    mode = preprocessor_for(manifest.preprocessing, card.input)
    head = Head(manifest.output, len(manifest.classes))
    if device.device.type != "cpu":
        network = Placed(network, device)
    _check_outputs(network, manifest, head, folder)
    if device.device.type == "cpu":
        network = fastest_equivalent(network, card.input, head.confidences, half=device.half)
    classifier = Classifier(network, card, mode, head, limits)
    _check_golden(classifier, manifest, folder, HALF_TOLERANCE if device.half else GOLDEN_TOLERANCE)
    return classifier


def _load_network(folder: Path, manifest: Manifest, device: torch.device) -> nn.Module:
    path = folder / manifest.weights.file
    if manifest.architecture is None:
        return load_exported(path, device)
    network = ARCHITECTURES[manifest.architecture](len(manifest.classes))
    _load_weights(network, read_weights(path, manifest.weights.format), path)
    return network.eval()


def _check_outputs(network: nn.Module, manifest: Manifest, head: Head, folder: Path) -> None:
    """Try the network on a few images of noise."""
    wanted, draw = manifest.input, torch.Generator().manual_seed(0)
    for images in (1, 3):
        try:
            with torch.inference_mode():
                outputs = network(torch.rand(images, wanted.channels, wanted.height, wanted.width, generator=draw))
        except Exception as error:
            raise ModelPackageError(
                f"{folder / MANIFEST}: input: the network does not take {images} × {wanted.channels} "
                f"× {wanted.height} × {wanted.width}: {one_line(error)}"
            ) from None
        shape = tuple(getattr(outputs, "shape", ()))
        if shape != (images, head.width):
            raise ModelPackageError(
                f"{folder / MANIFEST}: classes: for {len(manifest.classes)} classes and the activation "
                f"{manifest.output.activation!r}, the network's output for {images} images must have the shape "
                f"{(images, head.width)}; it has {shape}"
            )
        confidences = head.confidences(outputs.float().numpy())
        if not np.isfinite(confidences).all():
            raise ModelPackageError(f"{folder / manifest.weights.file}: the network puts out no numbers, but NaN")
        if confidences.min() < -_ROUNDED or confidences.max() > 1 + _ROUNDED:
            raise ModelPackageError(
                f"{folder / MANIFEST}: output.activation: with {manifest.output.activation!r} the network must put out "
                f"confidences, from 0 to 1; it has one of {confidences.flat[abs(confidences).argmax()]:.3g}"
            )


def read_weights(path: Path, file_format: str) -> Mapping[str, Tensor]:
    try:
        if file_format == "safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own kinds; weights_only refuses what is no tensor
        reason = _why_unsafe(path) if file_format == "state_dict" else one_line(error)
        raise ModelPackageError(f"{path}: cannot be read as {file_format}: {reason}") from None
    if not isinstance(state, Mapping):
        raise ModelPackageError(f"{path}: is no state dict, but a {type(state).__name__}")
    if not all(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, islice(state, KEYS_NAMED)))
        more = ", …" if len(state) > KEYS_NAMED else ""
        raise ModelPackageError(f"{path}: is no state dict; it has the keys {keys}{more}")
    return state


def _why_unsafe(path: Path) -> str:
    """Why `torch.load` refused a file, told without running it: its own text is a page, with colours."""
    try:
        needed = get_unsafe_globals_in_checkpoint(path)
    except Exception:
        return "it is no file of torch.save(), or it is damaged"
    if any(name.startswith("torch.nn.modules.") for name in needed):
        return "it is a whole model; save model.state_dict()"
    return f"it holds more than tensors: {', '.join(needed[:KEYS_NAMED])}" if needed else "it is damaged"


def _load_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load by name, or by order where only the numbering differs, as with an `nn.Flatten` in front."""
    own = network.state_dict()
    if own.keys() != state.keys():
        names, given = sorted(own, key=natural_sort_key), sorted(state, key=natural_sort_key)
        if [name.rpartition(".")[2] for name in names] != [name.rpartition(".")[2] for name in given]:
            raise ModelPackageError(f"{path}: has {', '.join(state) or 'nothing'}; the network has {', '.join(own)}")
        state = {name: state[other] for name, other in zip(names, given, strict=True)}
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise ModelPackageError(
                f"{path}: {name} has the shape {tuple(state[name].shape)}; the network has {tuple(value.shape)}"
            )
    network.load_state_dict(state)


def _check_golden(classifier: Classifier, manifest: Manifest, folder: Path, tolerance: float) -> None:
    for golden in manifest.golden:
        try:
            upload = (folder / golden.file).read_bytes()
        except OSError as error:
            raise ModelPackageError(f"{folder / golden.file}: {error.strerror}") from None
        (outcome,) = classifier.classify([upload], [1])
        if not isinstance(outcome, list):
            raise ModelPackageError(f"{folder / golden.file}: {outcome.code}")
        name = manifest.classes[outcome[0].class_index]
        if name != golden.class_name or abs(outcome[0].confidence - golden.confidence) > tolerance:
            raise ModelPackageError(
                f"{folder / golden.file}: gives {name} at {outcome[0].confidence:.4f}; "
                f"the manifest expects {golden.class_name} at {golden.confidence:.4f}"
            )
