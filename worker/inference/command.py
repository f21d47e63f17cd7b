"""Check, export and describe model packages.

    python -m worker.inference check weights/fmnist-mlp
    python -m worker.inference export module:factory weights/mine --state state.pt --classes cat,dog --input 3x224x224
    python -m worker.inference schema

`check` does what a worker does before it takes work, on the same `DEVICE`, and measures the forward pass. `export`
makes a package of a network, which a Python factory returns, with the weights of a state dict or its own. `schema`
prints the JSON Schema of manifests.
"""

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from jobs.errors import ModelPackageError, SettingsError, one_line
from jobs.model_manifest import Manifest
from jobs.settings import load
from worker.inference.allocator import keep_freed_memory
from worker.inference.images.limits import ImageLimits
from worker.inference.networks.device import CPU_FLOAT32, Device
from worker.inference.packages.check import check
from worker.inference.packages.export import export
from worker.inference.packages.load import read_weights
from worker.inference.settings import InferenceSettings

THREADS_MAX = 256  # as for TORCH_THREADS


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, or those of the process. Ends the process with one line on an error."""
    options = argument_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("torch").setLevel(logging.CRITICAL)  # torch also logs each error that it raises
    if options.command == "schema":
        sys.stdout.write(schema())
        return
    try:
        _run(options)
    except (ModelPackageError, SettingsError, OSError, ValueError) as error:
        sys.exit(f"darkroom inference: {' '.join(str(error).split())}")


def schema() -> str:
    """The JSON Schema of `manifest.json`."""
    return json.dumps(Manifest.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m worker.inference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="load a package, classify its golden images, measure it")
    checking.add_argument("package", type=Path, help="the folder of the package")
    checking.add_argument("--threads", type=int, default=1, help="number of CPU threads (default: 1)")
    checking.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    exporting = commands.add_parser("export", help="make a package of your network")
    exporting.add_argument("factory", help="module:callable that returns the network")
    exporting.add_argument("package", type=Path, help="the folder to write, named like the model or name@version")
    exporting.add_argument("--version", help="of the model (default: the first digits of the weights' sha256)")
    exporting.add_argument("--state", type=Path, help="file of torch.save(network.state_dict()), or of safetensors")
    exporting.add_argument("--classes", required=True, help="names separated by commas, or a file with one per line")
    exporting.add_argument("--input", required=True, type=_input, help="CHANNELSxHEIGHTxWIDTH, for example 3x224x224")
    exporting.add_argument("--mode", default="center_crop", help="of preprocessing: book, fmnist, resize, center_crop")
    exporting.add_argument("--shorter-side", type=int, help="pixels, only with --mode center_crop")
    exporting.add_argument("--mean", type=_floats, help="one number per channel, separated by commas")
    exporting.add_argument("--std", type=_floats, help="one number per channel, separated by commas")
    exporting.add_argument("--activation", default="softmax", help="softmax, sigmoid or none")
    exporting.add_argument("--threshold", type=float, help="confidence, only with --activation sigmoid")
    exporting.add_argument("--golden", type=Path, nargs="*", default=[], help="images that workers classify first")
    exporting.add_argument("--description", default="")
    commands.add_parser("schema", help="print the JSON Schema of manifests")
    return parser


def class_names(option: str) -> list[str]:
    """The names in `--classes`: separated by commas, or the lines of a file."""
    if "," in option:
        return option.split(",")
    try:
        return Path(option).read_text().splitlines()
    except (OSError, UnicodeError) as error:
        raise ModelPackageError(f"--classes: {option}: neither names separated by commas nor a file: {error}") from None


def _run(options: argparse.Namespace) -> None:
    settings, device = load(InferenceSettings), CPU_FLOAT32
    limits = ImageLimits.of(settings)
    if options.command == "export":
        _export(options, limits)
    else:
        if not 1 <= options.threads <= THREADS_MAX:
            raise SettingsError(f"--threads: must be from 1 to {THREADS_MAX} (got {options.threads})")
        torch.set_num_threads(options.threads)
        keep_freed_memory()
        device = Device.of(settings.device, options.precision)
    for line in check(options.package, limits, device, batch_seconds_max=settings.batch_seconds_max):
        print(line, flush=True)


def _export(options: argparse.Namespace, limits: ImageLimits) -> None:
    names = ("mode", "shorter_side", "mean", "std")
    preprocessing = {name: getattr(options, name) for name in names}
    output = {"activation": options.activation, "threshold": options.threshold}
    export(
        _load_network(options.factory, options.state),
        options.package,
        golden=options.golden,
        limits=limits,
        network_name=options.factory,
        version=options.version,
        classes=class_names(options.classes),
        input=options.input,
        preprocessing={name: value for name, value in preprocessing.items() if value is not None},
        output={name: value for name, value in output.items() if value is not None},
        description=options.description,
    )


def _load_network(factory: str, state: Path | None) -> nn.Module:
    module, _, name = factory.partition(":")
    sys.path.insert(0, "")
    try:
        network = getattr(importlib.import_module(module), name)()
    except Exception as error:  # the factory is the user's code
        raise ModelPackageError(f"{factory}: {one_line(error)}") from None
    if not isinstance(network, nn.Module):
        raise ModelPackageError(f"{factory}: returns a {type(network).__name__}, not a torch.nn.Module")
    if state is not None:
        if not state.is_file():
            raise ModelPackageError(f"{state}: no such file")
        weights = read_weights(state, "safetensors" if state.suffix == ".safetensors" else "state_dict")
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelPackageError(f"{state}: does not fit {factory}: {one_line(error)}") from None
    return network


def _input(option: str) -> dict[str, int]:
    channels, height, width = map(int, option.split("x"))
    return {"channels": channels, "height": height, "width": width}


def _floats(option: str) -> list[float]:
    return [float(number) for number in option.split(",")]
