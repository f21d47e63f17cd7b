"""`python -m training MODEL`: train a model package and write it to `weights/`.

A training that was stopped is resumed from its checkpoint, and a finished one is not repeated. To start again, remove
the checkpoint.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from jobs.model_manifest import Manifest
from training import fmnist_cnn, fmnist_mlp
from worker.inference.networks.device import Device

RECIPES: dict[str, Callable[[Path, Path, Path, Device], Manifest]] = {
    fmnist_mlp.NAME: fmnist_mlp.train,
    fmnist_cnn.NAME: fmnist_cnn.train,
}


def training_device(name: str) -> Device:
    """A device by name. In bfloat16 if it has instructions for it: training has no need for exact digits."""
    device = Device.of(name)
    half = device.half or bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return replace(device, half=half)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training")
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("--models-dir", type=Path, default=Path("weights"))
    parser.add_argument(
        "--cache", type=Path, default=Path("data/training"), help="folder for downloads, logs and checkpoints"
    )
    parser.add_argument("--docs", type=Path, default=Path("docs/models"), help="folder for plots")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N; auto: a GPU if there is one")
    arguments = parser.parse_args()
    arguments.docs.mkdir(parents=True, exist_ok=True)
    package = arguments.models_dir / arguments.model
    manifest = RECIPES[arguments.model](package, arguments.cache, arguments.docs, training_device(arguments.device))
    print(f"accuracy {manifest.test_accuracy:.2%} on {manifest.test_set}; the package is in {package}")


if __name__ == "__main__":
    main()
