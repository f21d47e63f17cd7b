"""Loads a model package: a folder with `manifest.json`, weights and golden images."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
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
from worker.inference.images.limits import ImageLimits
from worker.inference.images.preprocess import preprocessor_for
from worker.inference.networks.architectures import ARCHITECTURES
from worker.inference.networks.device import CPU_FLOAT32, Device, OnDevice
from worker.inference.networks.optimize import fastest_equivalent, fastest_precision
from worker.inference.networks.variants import InLayout
from worker.inference.packages.exported_program import load_exported

log = logging.getLogger(__name__)

GOLDEN_TOLERANCE = 1e-3  # of a confidence: the last digits depend on the CPU
HALF_TOLERANCE = 1e-2  # in bfloat16
_ROUNDING = 1e-2  # by which a confidence may be below 0 or above 1
KEYS_SHOWN = 8  # of a file that is not a state dict


def load_package(
    folder: Path,
    limits: ImageLimits,
    device: Device = CPU_FLOAT32,
    *,
    optimize: Callable[..., nn.Module] = fastest_equivalent,
) -> Classifier:
    """A model ready to serve: its weights are loaded, and its golden images give what the manifest says.

    `optimize`: replaces the network on a CPU; its parameters are those of `fastest_equivalent`.

    Raises:
        ModelPackageError: the package cannot be served; one line with the reason.
    """
    manifest, card = check_package(folder)
    network = _load_network(folder, manifest, device.torch_device)
    preprocessor = preprocessor_for(manifest.preprocessing, card.input)
    head = Head(manifest.output, len(manifest.classes))
    full = replace(device, half=False)
    _check_outputs(OnDevice(network, full), manifest, head, folder)
    if device.is_gpu:
        network = fastest_precision(network, device, card.input, head.confidences)
    else:
        faster = optimize(network, card.input, head.confidences, half=device.half)
        network = InLayout(network) if faster is network else faster
    classifier = Classifier(network, card, preprocessor, head, limits)
    try:
        _check_golden(classifier, manifest, folder, HALF_TOLERANCE if device.half else GOLDEN_TOLERANCE)
    except ModelPackageError as error:
        if not device.half:
            raise
        log.info("%s: not in bfloat16: %s", card.ref, error)
        return load_package(folder, limits, full, optimize=optimize)
    return classifier


def _load_network(folder: Path, manifest: Manifest, device: torch.device) -> nn.Module:
    path = folder / manifest.weights.file
    if manifest.architecture is None:
        return load_exported(path, device)
    network = ARCHITECTURES[manifest.architecture](len(manifest.classes))
    _load_weights(network, read_weights(path, manifest.weights.format), path)
    return network.eval()


def _check_outputs(network: nn.Module, manifest: Manifest, head: Head, folder: Path) -> None:
    """Check shape and range of the outputs for a few random images."""
    size, generator = manifest.input, torch.Generator().manual_seed(0)
    for images in (1, 3):
        try:
            with torch.inference_mode():
                outputs = network(torch.rand(images, size.channels, size.height, size.width, generator=generator))
        except Exception as error:
            raise ModelPackageError(
                f"{folder / MANIFEST}: input: the network does not accept {images} × {size.channels} "
                f"× {size.height} × {size.width}: {one_line(error)}"
            ) from None
        shape = tuple(getattr(outputs, "shape", ()))
        if shape != (images, head.width):
            raise ModelPackageError(
                f"{folder / MANIFEST}: classes: for {len(manifest.classes)} classes and activation "
                f"{manifest.output.activation!r}, the network's output for {images} images must have the shape "
                f"{(images, head.width)}, but has {shape}"
            )
        confidences = head.confidences(outputs.float().numpy())
        if not np.isfinite(confidences).all():
            raise ModelPackageError(f"{folder / manifest.weights.file}: the network's output is NaN")
        if confidences.min() < -_ROUNDING or confidences.max() > 1 + _ROUNDING:
            raise ModelPackageError(
                f"{folder / MANIFEST}: output.activation: with {manifest.output.activation!r}, the network's output "
                f"must be confidences from 0 to 1; one is {confidences.flat[abs(confidences).argmax()]:.3g}"
            )


def read_weights(path: Path, file_format: str) -> Mapping[str, Tensor]:
    """The tensors of a file, by name.

    Raises:
        ModelPackageError: the file is damaged, or has anything but tensors.
    """
    try:
        if file_format == "safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own types of errors; `weights_only` refuses all but tensors
        reason = _why_refused(path) if file_format == "state_dict" else one_line(error)
        raise ModelPackageError(f"{path}: cannot be read as {file_format}: {reason}") from None
    if not isinstance(state, Mapping):
        raise ModelPackageError(f"{path}: not a state dict, but a {type(state).__name__}")
    if not all(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, islice(state, KEYS_SHOWN)))
        more = ", …" if len(state) > KEYS_SHOWN else ""
        raise ModelPackageError(f"{path}: not a state dict; its keys are {keys}{more}")
    return state


def _why_refused(path: Path) -> str:
    """Why `torch.load` refused a file, found without running it. torch's own message fills a page, in colours."""
    try:
        needed = get_unsafe_globals_in_checkpoint(path)
    except Exception:
        return "not written by torch.save(), or damaged"
    if any(name.startswith("torch.nn.modules.") for name in needed):
        return "it is a whole model; save model.state_dict() instead"
    return f"it contains more than tensors: {', '.join(needed[:KEYS_SHOWN])}" if needed else "it is damaged"


def _load_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights by name; or by order if only numbers in the names differ, as after an `nn.Flatten` in front."""
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
