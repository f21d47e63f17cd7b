"""Model packages at the command line.

    python -m worker.inference check weights/fmnist-mlp
    python -m worker.inference export module:factory weights/mine --state state.pt --classes cat,dog --input 3x224x224
    python -m worker.inference schema

`check` does what a worker does before it takes work, on the same `DEVICE`, and measures. `export` makes a package of a
network, by a Python factory and a state dict, or from the factory alone. `schema` prints the JSON Schema of manifests.
"""

import argparse
import importlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jobs.errors import ModelPackageError, SettingsError, one_line
from jobs.model_manifest import Manifest
from jobs.model_packages import MANIFEST, check_ref, read_manifest
from jobs.settings import load
from worker.inference.classifier import Classifier
from worker.inference.images.decode import ImageLimits
from worker.inference.networks.device import FULL, Device
from worker.inference.packages.export import export
from worker.inference.packages.load import load_package, read_weights
from worker.inference.settings import InferenceSettings

BATCHES = (1, 16, 64)
ROUNDS = 5
SECONDS_MAX = 5.0  # for each size of batch
THREADS_MAX = 256  # as of TORCH_THREADS


def report(folder: Path, limits: ImageLimits, device: Device = FULL) -> Iterator[str]:
    """What a worker would serve, line by line.

    Raises:
        ModelPackageError: it would not; one line that says why.
    """
    manifest = read_manifest(folder)
    yield f"{MANIFEST}: sound; {manifest.weights.format}, {len(manifest.classes)} classes"
    classifier = load_package(folder, limits, device)
    check_ref(folder, classifier.card, folder.absolute().name)
    wanted = classifier.card.input
    yield f"{classifier.card.ref}: weights loaded, sha256 {classifier.card.sha256}"
    yield f"{len(manifest.golden)} golden images{': as the manifest says' if manifest.golden else ''}"
    what, clock = _measure(device)
    for batch in BATCHES:
        inputs = torch.rand(batch, wanted.channels, wanted.height, wanted.width).numpy()
        seconds = _seconds(classifier, inputs, clock)
        yield f"forward of {batch}: {1000 * seconds / batch:.3f} {what}"


def _measure(device: Device) -> tuple[str, Callable[[], float]]:
    """What is measured, and by which clock: CPU time says nothing of a GPU."""
    if device.device.type == "cuda":
        return f"ms an image, on {device.name}", time.perf_counter
    return f"ms of CPU time an image, on {torch.get_num_threads()} threads of {device.name}", time.process_time


def _seconds(classifier: Classifier, inputs: Any, clock: Callable[[], float]) -> float:
    """Time of a forward: the least of some rounds."""
    rounds, ends = list[float](), time.monotonic() + SECONDS_MAX
    while not rounds or (len(rounds) <= ROUNDS and time.monotonic() < ends):
        started = clock()
        classifier.outputs(inputs)
        rounds.append(clock() - started)
    return min(rounds)


def schema() -> str:
    """The JSON Schema of `manifest.json`."""
    return json.dumps(Manifest.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def _network(factory: str, state: Path | None) -> nn.Module:
    module, _, name = factory.partition(":")
    sys.path.insert(0, "")
    try:
        network = getattr(importlib.import_module(module), name)()
    except Exception as error:  # it is anyone's
        raise ModelPackageError(f"{factory}: {one_line(error)}") from None
    if not isinstance(network, nn.Module):
        raise ModelPackageError(f"{factory}: gives a {type(network).__name__}, no torch.nn.Module")
    if state is not None:
        if not state.is_file():
            raise ModelPackageError(f"{state}: there is no such file")
        weights = read_weights(state, "safetensors" if state.suffix == ".safetensors" else "state_dict")
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelPackageError(f"{state}: does not fit {factory}: {one_line(error)}") from None
    return network


def _classes(listed: str) -> list[str]:
    if "," in listed:
        return listed.split(",")
    try:
        return Path(listed).read_text().splitlines()
    except (OSError, UnicodeError) as error:
        raise ModelPackageError(f"--classes: {listed}: neither a list with commas nor a file: {error}") from None


def _input(text: str) -> dict[str, int]:
    channels, height, width = map(int, text.split("x"))
    return {"channels": channels, "height": height, "width": width}


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m worker.inference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="load a package, run its golden images, measure it")
    check.add_argument("package", type=Path)
    check.add_argument("--threads", type=int, default=1, help="of a processor")
    check.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    make = commands.add_parser("export", help="make a package of your network")
    make.add_argument("factory", help="module:callable, which returns the network")
    make.add_argument("package", type=Path, help="the folder to write; its name is the model's, or name@version")
    make.add_argument("--version", help="of the model; none: the first digits of its weights' hash")
    make.add_argument("--state", type=Path, help="of torch.save(network.state_dict()), or safetensors")
    make.add_argument("--classes", required=True, help="with commas between, or a file with one a line")
    make.add_argument("--input", required=True, type=_input, help="channels x height x width, as 3x224x224")
    make.add_argument("--mode", default="center_crop", help="of preprocessing: book, fmnist, resize or center_crop")
    make.add_argument("--shorter-side", type=int, help="of center_crop, in pixels")
    make.add_argument("--mean", type=_numbers, help="of each channel, with commas between")
    make.add_argument("--std", type=_numbers, help="of each channel, with commas between")
    make.add_argument("--activation", default="softmax", help="softmax, sigmoid or none")
    make.add_argument("--threshold", type=float, help="of sigmoid")
    make.add_argument("--golden", type=Path, nargs="*", default=[], help="pictures that a worker tries first")
    make.add_argument("--description", default="")
    commands.add_parser("schema", help="print the JSON Schema of manifests")
    return parser


def _export(options: argparse.Namespace, limits: ImageLimits) -> None:
    names = ("mode", "shorter_side", "mean", "std")
    preprocessing = {name: getattr(options, name) for name in names}
    output = {"activation": options.activation, "threshold": options.threshold}
    export(
        _network(options.factory, options.state),
        options.package,
        golden=options.golden,
        limits=limits,
        named=options.factory,
        version=options.version,
        classes=_classes(options.classes),
        input=options.input,
        preprocessing={name: value for name, value in preprocessing.items() if value is not None},
        output={name: value for name, value in output.items() if value is not None},
        description=options.description,
    )


def _run(options: argparse.Namespace) -> None:
    settings, device = load(InferenceSettings), FULL
    limits = ImageLimits.of(settings)
    if options.command == "export":
        _export(options, limits)
    else:
        if not 1 <= options.threads <= THREADS_MAX:
            raise SettingsError(f"--threads: must be from 1 to {THREADS_MAX} (got {options.threads})")
        torch.set_num_threads(options.threads)
        device = Device.of(settings.device, options.precision)
    for line in report(options.package, limits, device):
        print(line, flush=True)


def main() -> None:
    options = _arguments().parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("torch").setLevel(logging.CRITICAL)  # what it raises it logs, too, with a traceback
    if options.command == "schema":
        sys.stdout.write(schema())
        return
    try:
        _run(options)
    except (ModelPackageError, SettingsError, OSError, ValueError) as error:
        sys.exit(f"darkroom models: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
