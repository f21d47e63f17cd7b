"""Forward passes on a GPU, by batch, and what CUDA graphs and `torch.compile` would save.

    python -m bench.gpu weights/fmnist-mlp weights/fmnist-cnn weights/imagenet [--compile]

For each package: the largest difference of a confidence from the CPU's, the batch that a worker would choose, and
images a second for float32 pixels in the memory of the CPU to outputs in the memory of the CPU. `served` is the
worker's own forward pass, by CUDA graphs; `unrecorded` starts each kernel by itself; `pageable` the same without
page-locked memory; `compiled` is the network after `torch.compile`. Prints Markdown.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.inference.classifier import Classifier
from worker.inference.images.limits import ImageLimits
from worker.inference.networks.device import Device
from worker.inference.packages.load import load_package
from worker.inference.settings import InferenceSettings

BATCHES = (1, 16, 64, 256, 1024)
ROUNDS, SECONDS = 3, 0.4  # of each measurement; the ways take turns
PRECISIONS = ("float32", "bfloat16")

Forward = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, nargs="+")
    parser.add_argument("--compile", action="store_true", help="try torch.compile, too; it needs a C compiler")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU")
    settings = InferenceSettings()
    limits = ImageLimits.of(settings)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    for package in options.packages:
        on_cpu = load_package(package, limits)
        for precision in PRECISIONS:
            device = Device.of("cuda", precision)
            classifier = load_package(package, limits, device)
            classifier.measure_pace(seconds_max=settings.batch_seconds_max, clock=device.clock)
            _report(package.name, precision, on_cpu, classifier, device, compiled=options.compile)


def _report(
    name: str, precision: str, on_cpu: Classifier, classifier: Classifier, device: Device, *, compiled: bool
) -> None:
    network: Any = classifier.network._network._network  # type: ignore[union-attr]  # noqa: SLF001 - of CudaGraphs
    pace = classifier.pace
    differences = f"{_difference(on_cpu, classifier, 64):.1e}"
    print(
        f"\n**{name}, {precision}**: largest difference of a confidence from the CPU: {differences}; a worker chooses"
    )
    print(f"batches of {pace.batch}, {1e6 * pace.image_seconds:.3g} µs an image; GPU memory {_peak_mib():.0f} MiB\n")
    ways: dict[str, Forward] = {
        "served": classifier.network,
        "unrecorded": _by_itself(network, device),
        "pageable": _by_itself(network, device, pinned=False),
    }
    if compiled:
        ways["compiled"] = _by_itself(torch.compile(network, dynamic=False), device)  # type: ignore[arg-type]  # a module
    print(f"| batch | {' | '.join(f'{way}: images/s' for way in ways)} |\n|---|{'---|' * len(ways)}")
    for batch in BATCHES:
        with torch.inference_mode():
            inputs = _inputs(classifier, batch)
            forwards = [_tried(forward, inputs) for forward in ways.values()]
            rates = [[_images_per_second(forward, inputs) for forward in forwards] for _ in range(ROUNDS)]
        print(f"| {batch} | {' | '.join(_cell(it) for it in zip(*rates, strict=True))} |", flush=True)


def _cell(rates: tuple[float, ...]) -> str:
    return f"{statistics.median(rates):,.0f}" if min(rates) > 0 else "not possible"


def _tried(forward: Forward, inputs: Tensor) -> Forward | None:
    try:
        forward(inputs)
    except Exception as error:
        print(f"<!-- {' '.join(repr(error).split())[:300]} -->")
        return None
    return forward


def _by_itself(network: nn.Module, device: Device, *, pinned: bool = True) -> Forward:
    def forward(inputs: Tensor) -> Tensor:
        with device.autocast():
            contiguous = inputs.contiguous()
            staged = contiguous.pin_memory() if pinned else contiguous
            outputs: Tensor = network(staged.to(device.torch_device, non_blocking=pinned))
        return outputs.float().cpu()

    return forward


def _inputs(classifier: Classifier, batch: int) -> Tensor:
    """Random images in the layout of decoded ones: channels last."""
    size = classifier.card.input
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, size.height, size.width, size.channels, generator=generator).permute(0, 3, 1, 2)


def _difference(on_cpu: Classifier, on_gpu: Classifier, batch: int) -> float:
    inputs = _inputs(on_cpu, batch).numpy()
    ours, theirs = (it.head.confidences(it.outputs(inputs)) for it in (on_cpu, on_gpu))
    return float(abs(ours - theirs).max())


def _images_per_second(forward: Forward | None, inputs: Tensor) -> float:
    if forward is None:
        return 0
    done, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < SECONDS:
        forward(inputs)
        done += len(inputs)
    return done / elapsed


def _peak_mib() -> float:
    return torch.cuda.max_memory_allocated() / 2**20


if __name__ == "__main__":
    main()
