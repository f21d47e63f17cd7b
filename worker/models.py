"""Model packages at the command line.

    python -m worker.models check weights/fmnist-mlp
    python -m worker.models export module:factory state.pt weights/mine --classes cat,dog --input 3x224x224
    python -m worker.models schema

`check` does what a worker does before it takes work, and measures. `export` makes a package of a network, by a Python
factory and a state dict, or from the factory alone. `schema` prints the JSON Schema of manifests.
"""

import argparse
import hashlib
import importlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jobs.errors import ModelPackageError
from jobs.models import GoldenImage, Input, Manifest, Weights
from jobs.packages import MANIFEST, read_manifest
from worker.classifier import Classifier
from worker.compute import FULL, Compute
from worker.images import ImageLimits
from worker.package import load_package, read_weights
from worker.settings import WorkerSettings

BATCHES = (1, 16, 64)
BATCH_MAX = 256
ROUNDS = 5
SECONDS_MAX = 5.0  # for each size of batch
PROGRAM = "program.pt2"


def report(folder: Path, limits: ImageLimits, compute: Compute = FULL) -> Iterator[str]:
    """What a worker would serve, line by line.

    Raises:
        ModelPackageError: it would not; one line that says why.
    """
    manifest = read_manifest(folder)
    yield f"{MANIFEST}: sound; {manifest.weights.format}, {len(manifest.classes)} classes"
    classifier = load_package(folder, limits, compute)
    wanted = classifier.card.input
    yield f"{classifier.card.ref}: weights loaded, sha256 {classifier.card.sha256}"
    yield f"{len(manifest.golden)} golden images{': as the manifest says' if manifest.golden else ''}"
    if manifest.second_look:
        look = manifest.second_look
        yield f"an image that it is less than {look.below:.0%} sure of has {look.views} forwards more"
    threads = torch.get_num_threads()
    for batch in BATCHES:
        inputs = torch.rand(batch, wanted.channels, wanted.height, wanted.width).numpy()
        seconds = _seconds(classifier, inputs)
        yield f"forward of {batch}: {1000 * seconds / batch:.3f} ms an image, on {threads} threads of {compute.name}"


def _seconds(classifier: Classifier, inputs: Any) -> float:
    """CPU time of a forward: the least of some rounds."""
    rounds, ends = list[float](), time.monotonic() + SECONDS_MAX
    while not rounds or (len(rounds) <= ROUNDS and time.monotonic() < ends):
        started = time.process_time()
        classifier.forward(inputs)
        rounds.append(time.process_time() - started)
    return min(rounds)


def export(
    network: nn.Module, folder: Path, *, golden: Sequence[Path] = (), limits: ImageLimits, **fields: Any
) -> Manifest:
    """Write a package of any network that `torch.export` can take. `fields` are those of the manifest.

    `golden`: pictures that the worker is to classify before it takes work, as this very network does now.

    Raises:
        ModelPackageError: it cannot be served; one line that says why.
    """
    wanted = Input.model_validate(fields["input"])
    example = torch.zeros(2, wanted.channels, wanted.height, wanted.width)
    batch = torch.export.Dim("batch", min=1, max=BATCH_MAX)
    program = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},))
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, folder / PROGRAM)
    sha256 = hashlib.sha256((folder / PROGRAM).read_bytes()).hexdigest()
    weights = Weights(file=PROGRAM, format="exported", sha256=sha256)
    manifest = Manifest.model_validate({"name": folder.name, "weights": weights, **fields})
    _write(folder, manifest)
    classifier = load_package(folder, limits)
    manifest = manifest.model_copy(update={"golden": [_golden(classifier, folder, path) for path in golden]})
    _write(folder, manifest)
    return manifest


def _golden(classifier: Classifier, folder: Path, path: Path) -> GoldenImage:
    (outcome,) = classifier.classify([path.read_bytes()], [1])
    if not isinstance(outcome, list):
        raise ModelPackageError(f"{path}: {outcome.code}: {outcome.detail}")
    file = Path("golden") / path.name
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(path.read_bytes())
    name = classifier.card.classes[outcome[0].class_index]
    return GoldenImage(file=str(file), class_name=name, confidence=round(outcome[0].confidence, 6))


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1, exclude_defaults=True) + "\n")


def schema() -> str:
    """The JSON Schema of `manifest.json`."""
    return json.dumps(Manifest.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def _network(factory: str, state: Path | None) -> nn.Module:
    module, _, name = factory.partition(":")
    sys.path.insert(0, "")
    network = getattr(importlib.import_module(module), name)()
    if not isinstance(network, nn.Module):
        raise ModelPackageError(f"{factory}: gives a {type(network).__name__}, no torch.nn.Module")
    if state is not None:
        network.load_state_dict(read_weights(state, "safetensors" if state.suffix == ".safetensors" else "state_dict"))
    return network


def _input(text: str) -> Input:
    channels, height, width = map(int, text.split("x"))
    return Input.model_validate({"channels": channels, "height": height, "width": width})


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m worker.models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="load a package, run its golden images, measure it")
    check.add_argument("package", type=Path)
    check.add_argument("--threads", type=int, default=1)
    check.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    make = commands.add_parser("export", help="make a package of your network")
    make.add_argument("factory", help="module:callable, which returns the network")
    make.add_argument("package", type=Path, help="the folder to write; its name is the model's")
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
    listed = Path(options.classes)
    classes = listed.read_text().splitlines() if listed.is_file() else options.classes.split(",")
    names = ("mode", "shorter_side", "mean", "std")
    preprocessing = {name: getattr(options, name) for name in names}
    output = {"activation": options.activation, "threshold": options.threshold}
    export(
        _network(options.factory, options.state),
        options.package,
        golden=options.golden,
        limits=limits,
        classes=classes,
        input=options.input,
        preprocessing={name: value for name, value in preprocessing.items() if value is not None},
        output={name: value for name, value in output.items() if value is not None},
        description=options.description,
    )


def main() -> None:
    options = _arguments().parse_args()
    logging.basicConfig(level=logging.WARNING)
    limits, compute = ImageLimits.of(WorkerSettings()), FULL
    if options.command == "schema":
        sys.stdout.write(schema())
        return
    try:
        if options.command == "export":
            _export(options, limits)
        else:
            torch.set_num_threads(options.threads)
            compute = Compute.of("cpu", options.precision)
        for line in report(options.package, limits, compute):
            print(line, flush=True)
    except (ModelPackageError, ImportError, AttributeError, OSError, ValueError) as error:
        sys.exit(f"darkroom models: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
