"""Model packages at the command line.

    python -m worker.models check weights/fmnist-mlp
    python -m worker.models export module:factory weights/mine --state state.pt --classes cat,dog --input 3x224x224
    python -m worker.models schema

`check` does what a worker does before it takes work, on the same `DEVICE`, and measures. `export` makes a package of a
network, by a Python factory and a state dict, or from the factory alone. `schema` prints the JSON Schema of manifests.
"""

import argparse
import hashlib
import importlib
import io
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from jobs.errors import ModelPackageError, SettingsError
from jobs.models import GoldenImage, Input, Manifest
from jobs.packages import MANIFEST, check_ref, read_manifest
from jobs.settings import load
from worker.classifier import Classifier
from worker.compute import FULL, Compute
from worker.images import ImageLimits
from worker.package import load_package, read_weights
from worker.settings import WorkerSettings

BATCHES = (1, 16, 64)
BATCH_MAX = 256
ROUNDS = 5
SECONDS_MAX = 5.0  # for each size of batch
THREADS_MAX = 256  # as of TORCH_THREADS
REASON_CHARACTERS = 300  # of torch's texts, which can be pages
PROGRAM = "program.pt2"


def report(folder: Path, limits: ImageLimits, compute: Compute = FULL) -> Iterator[str]:
    """What a worker would serve, line by line.

    Raises:
        ModelPackageError: it would not; one line that says why.
    """
    manifest = read_manifest(folder)
    yield f"{MANIFEST}: sound; {manifest.weights.format}, {len(manifest.classes)} classes"
    classifier = load_package(folder, limits, compute)
    check_ref(folder, classifier.card, folder.absolute().name)
    wanted = classifier.card.input
    yield f"{classifier.card.ref}: weights loaded, sha256 {classifier.card.sha256}"
    yield f"{len(manifest.golden)} golden images{': as the manifest says' if manifest.golden else ''}"
    if manifest.second_look:
        look = manifest.second_look
        yield f"an image that it is less than {look.below:.0%} sure of has {look.views} forwards more"
    what, clock = _measure(compute)
    for batch in BATCHES:
        inputs = torch.rand(batch, wanted.channels, wanted.height, wanted.width).numpy()
        seconds = _seconds(classifier, inputs, clock)
        yield f"forward of {batch}: {1000 * seconds / batch:.3f} {what}"


def _measure(compute: Compute) -> tuple[str, Callable[[], float]]:
    """What is measured, and by which clock: CPU time says nothing of a GPU."""
    if compute.device.type == "cuda":
        return f"ms an image, on {compute.name}", time.perf_counter
    return f"ms of CPU time an image, on {torch.get_num_threads()} threads of {compute.name}", time.process_time


def _seconds(classifier: Classifier, inputs: Any, clock: Callable[[], float]) -> float:
    """Time of a forward: the least of some rounds."""
    rounds, ends = list[float](), time.monotonic() + SECONDS_MAX
    while not rounds or (len(rounds) <= ROUNDS and time.monotonic() < ends):
        started = clock()
        classifier.forward(inputs)
        rounds.append(clock() - started)
    return min(rounds)


def export(
    network: nn.Module,
    folder: Path,
    *,
    golden: Sequence[Path] = (),
    limits: ImageLimits,
    named: str = "the network",
    **fields: Any,
) -> Manifest:
    """Write a package of any network that `torch.export` can take. `fields` are those of the manifest, in its JSON.

    The package is put in place once all of it has succeeded; one that was there is replaced as a whole.

    `folder`: its name is the model's, or `name@version`.
    `golden`: pictures that the worker is to classify before it takes work, as this very network does now.
    `named`: what errors call the network.

    Raises:
        ModelPackageError: it cannot be served, or would replace what is no package; one line that says why.
        OSError: a picture cannot be read, or the folder not be written.
    """
    _check_replaceable(folder)
    fields |= _ref(folder, fields.get("version"))
    nearest = next(parent for parent in folder.absolute().parents if parent.is_dir())
    with TemporaryDirectory(dir=nearest, prefix=".export-") as temporary:
        made = Path(temporary) / "package"  # a level too deep to be taken for a package while it is made
        made.mkdir()
        try:
            manifest = _make(network, made, golden, limits, named, fields)
        except ModelPackageError as error:
            raise ModelPackageError(str(error).removeprefix(f"{made}/")) from None
        _put(made, folder, Path(temporary) / "replaced")
    return manifest


def _check_replaceable(folder: Path) -> None:
    """What is no part of a package must not be lost with it."""
    if folder.exists() and not folder.is_dir():
        raise ModelPackageError(f"{folder}: is there, and is no folder")
    try:
        manifest = read_manifest(folder)
        own = {MANIFEST, manifest.weights.file, *(image.file for image in manifest.golden)}
    except ModelPackageError:
        own = set()
    for path in folder.rglob("*"):
        other = str(path.relative_to(folder))
        if not path.is_dir() and other not in own:
            raise ModelPackageError(
                f"{folder}: holds {other}, which is no part of a package: move that away, or name another folder"
            )


def _ref(folder: Path, version: str | None) -> dict[str, str | None]:
    name, at, own = folder.absolute().name.partition("@")
    if at and version not in (None, own):
        raise ModelPackageError(f"{folder}: is for version {own}, but --version is {version}")
    return {"name": name, "version": own if at else version}


def _make(
    network: nn.Module,
    folder: Path,
    golden: Sequence[Path],
    limits: ImageLimits,
    named: str,
    fields: Mapping[str, Any],
) -> Manifest:
    weights = {"file": PROGRAM, "format": "exported"}
    (folder / MANIFEST).write_text(json.dumps({"weights": weights, **fields}))
    manifest = read_manifest(folder)  # before the slow part, and with its line of what is wrong
    _save_program(network, manifest.input, folder / PROGRAM, named)
    sha256 = hashlib.sha256((folder / PROGRAM).read_bytes()).hexdigest()
    manifest = manifest.model_copy(update={"weights": manifest.weights.model_copy(update={"sha256": sha256})})
    _write(folder, manifest)
    classifier = load_package(folder, limits)
    images = [_golden(classifier, folder, path, number) for number, path in enumerate(golden, 1)]
    manifest = manifest.model_copy(update={"golden": images})
    _write(folder, manifest)
    return manifest


def _save_program(network: nn.Module, wanted: Input, path: Path, named: str) -> None:
    example = torch.zeros(2, wanted.channels, wanted.height, wanted.width)
    size = f"{wanted.channels} × {wanted.height} × {wanted.width}"
    network.eval()
    try:  # by itself first: what it says then is plainer than what torch.export makes of it
        with torch.no_grad():
            network(example)
    except Exception as error:  # it is anyone's
        raise ModelPackageError(f"{named}: does not take 2 images of {size}: {_reason(error)}") from None
    batch = torch.export.Dim("batch", min=1, max=BATCH_MAX)
    try:
        with redirect_stderr(io.StringIO()):  # torch prints its graph of a network that it refuses
            program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, path)
    except Exception as error:  # torch has many kinds
        raise ModelPackageError(f"{named}: torch.export does not take it: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:REASON_CHARACTERS]}"


def _golden(classifier: Classifier, folder: Path, path: Path, number: int) -> GoldenImage:
    picture = path.read_bytes()
    (outcome,) = classifier.classify([picture], [1])
    if not isinstance(outcome, list):
        raise ModelPackageError(f"{path}: {outcome.code}: {outcome.detail}")
    suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]+", path.suffix) else ""
    file = Path("golden") / f"{number}{suffix}"  # two may have one name, and a manifest does not take every name
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(picture)
    name = classifier.card.classes[outcome[0].class_index]
    return GoldenImage(file=str(file), class_name=name, confidence=round(outcome[0].confidence, 6))


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1, exclude_defaults=True) + "\n")


def _put(made: Path, folder: Path, aside: Path) -> None:
    """In place of what was there, which goes aside, and comes back if the new one cannot take its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(aside)
    try:
        made.rename(folder)
    except OSError:
        if aside.exists():
            aside.rename(folder)
        raise


def schema() -> str:
    """The JSON Schema of `manifest.json`."""
    return json.dumps(Manifest.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def _network(factory: str, state: Path | None) -> nn.Module:
    module, _, name = factory.partition(":")
    sys.path.insert(0, "")
    try:
        network = getattr(importlib.import_module(module), name)()
    except Exception as error:  # it is anyone's
        raise ModelPackageError(f"{factory}: {_reason(error)}") from None
    if not isinstance(network, nn.Module):
        raise ModelPackageError(f"{factory}: gives a {type(network).__name__}, no torch.nn.Module")
    if state is not None:
        if not state.is_file():
            raise ModelPackageError(f"{state}: there is no such file")
        weights = read_weights(state, "safetensors" if state.suffix == ".safetensors" else "state_dict")
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelPackageError(f"{state}: does not fit {factory}: {_reason(error)}") from None
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
        prog="python -m worker.models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    settings, compute = load(WorkerSettings), FULL
    limits = ImageLimits.of(settings)
    if options.command == "export":
        _export(options, limits)
    else:
        if not 1 <= options.threads <= THREADS_MAX:
            raise SettingsError(f"--threads: must be from 1 to {THREADS_MAX} (got {options.threads})")
        torch.set_num_threads(options.threads)
        compute = Compute.of(settings.device, options.precision)
    for line in report(options.package, limits, compute):
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
