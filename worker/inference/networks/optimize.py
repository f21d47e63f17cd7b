"""The fastest way to compute a network on its device, by measurement, among those that give the same results."""

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from jobs.errors import one_line
from jobs.model_manifest import Input
from worker.inference.networks.device import Device, OnDevice
from worker.inference.networks.variants import HALF_TOLERANCE, VARIANTS, InLayout, Variant

log = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]

TIME_RATIO_MAX = 0.95  # of a variant's CPU time to the best before it: a smaller gain is not worth other last digits
BATCH_MAX = 64  # images of the larger batch that is measured; the smaller one is a quarter of it
BATCH_SECONDS_MAX = 0.05  # as the default of the setting: a slower network is measured in smaller batches
ROUNDS = 5
ROUNDS_SECONDS_MAX = 0.15  # for all rounds; the first round always completes
SECONDS_MAX = 15.0  # no further variant is tried after this time
_UNCHANGED = "unchanged"

Measure = Callable[[Sequence[nn.Module], Sequence[Tensor]], Sequence[float]]
"""From networks and batches of inputs to a time for each network."""


def cpu_seconds(networks: Sequence[nn.Module], batches: Sequence[Tensor]) -> list[float]:
    """CPU time of each network for all batches. The networks take turns; the fastest of several rounds counts."""
    rounds, deadline = list[list[float]](), time.monotonic() + ROUNDS_SECONDS_MAX
    while not rounds or (len(rounds) < ROUNDS and time.monotonic() < deadline):
        rounds.append([_cpu_seconds_once(network, batches) for network in networks])
    return [min(of_network) for of_network in zip(*rounds, strict=True)]


def fastest_equivalent(
    network: nn.Module,
    input_spec: Input,
    to_confidences: Callable[[FloatArray], FloatArray],
    *,
    half: bool = False,
    variants: Sequence[Variant] = VARIANTS,
    measure: Measure = cpu_seconds,
) -> nn.Module:
    """The network, or a variant that is clearly faster on one thread and gives the same confidences within a tolerance.

    `to_confidences`: from the network's output to confidences, N × any number each.
    `half`: whether variants that compute in bfloat16 are allowed. Inputs and outputs are float32 in any case.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads spin while they wait for a core, which counts as CPU time
    try:
        return _fastest(network, input_spec, to_confidences, [it for it in variants if half or not it.half], measure)
    finally:
        torch.set_num_threads(threads)


def fastest_precision(
    network: nn.Module, device: Device, input_spec: Input, to_confidences: Callable[[FloatArray], FloatArray]
) -> nn.Module:
    """The network on a GPU: in bfloat16 if the device allows that, it is clearly faster, and gives nearly the same."""
    full = OnDevice(network, replace(device, half=False))
    if not device.half:
        return full
    half = OnDevice(network, device)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(BATCH_MAX, input_spec.channels, input_spec.height, input_spec.width, generator=generator)
    with torch.inference_mode():
        difference = _largest_difference(full, half, inputs, to_confidences)
        seconds = [min(_seconds_once(it, inputs) for _ in range(ROUNDS)) for it in (full, half)]
    faster = difference <= HALF_TOLERANCE and seconds[1] < TIME_RATIO_MAX * seconds[0]
    log.info(
        "network: %s; for %s images: float32 %.2f ms, bfloat16 %.2f ms, a confidence differs by %.0e",
        *("bfloat16" if faster else "float32", BATCH_MAX, 1e3 * seconds[0], 1e3 * seconds[1], difference),
    )
    return half if faster else full


def _seconds_once(network: nn.Module, inputs: Tensor) -> float:
    started = time.perf_counter()
    network(inputs)
    return time.perf_counter() - started


def _fastest(
    network: nn.Module,
    input_spec: Input,
    to_confidences: Callable[[FloatArray], FloatArray],
    variants: Sequence[Variant],
    measure: Measure,
) -> nn.Module:
    deadline = time.monotonic() + SECONDS_MAX
    unchanged: nn.Module = InLayout(network)
    best, best_name, measured = unchanged, _UNCHANGED, dict[str, float]()
    with torch.inference_mode():
        batches = _batches(unchanged, input_spec)
        for variant in variants:  # one after the other, so that only two are in memory beside the network
            if time.monotonic() > deadline:
                log.info("%s: not tried, the network is too slow", variant.name)
                continue
            built = _build(variant, network, unchanged, batches, to_confidences)
            if built is None:
                continue
            measured[best_name], measured[variant.name] = measure([best, built], batches)
            if measured[variant.name] < TIME_RATIO_MAX * measured[best_name]:
                best, best_name = built, variant.name
    seconds = ", ".join(f"{name} {1e3 * it:.1f} ms" for name, it in measured.items())
    log.info("network: %s; for %s images: %s", best_name, " and ".join(str(len(it)) for it in batches), seconds)
    return network if best is unchanged else _PaddedBatches(best)


def _batches(network: nn.Module, input_spec: Input) -> list[Tensor]:
    """Two batches of random images, of sizes in which a network of this speed is used; the larger one has 2 or more.

    Their channels are last in memory, as those of a batch of decoded images are.
    """
    generator = torch.Generator().manual_seed(0)  # the same inputs, and so the same choice, at each start
    size = input_spec.height, input_spec.width, input_spec.channels
    image = torch.rand(1, *size, generator=generator).permute(0, 3, 1, 2)
    network(image)
    seconds = _cpu_seconds_once(network, [image])
    largest = 2
    while 2 * largest <= BATCH_MAX and 2 * largest * seconds <= BATCH_SECONDS_MAX:
        largest *= 2
    return [
        torch.rand(batch, *size, generator=generator).permute(0, 3, 1, 2) for batch in (max(1, largest // 4), largest)
    ]


def _build(
    variant: Variant,
    network: nn.Module,
    unchanged: nn.Module,
    batches: Sequence[Tensor],
    to_confidences: Callable[[FloatArray], FloatArray],
) -> nn.Module | None:
    """The variant of a network. None if it cannot be built, or gives other confidences."""
    try:
        with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
            built = variant.build(network, batches[-1])
        difference = max(_largest_difference(unchanged, built, batch, to_confidences) for batch in batches)
    except Exception as error:  # the variants use private parts of torch, or do not fit every network or every CPU
        log.info("%s: not possible for this network: %s", variant.name, one_line(error))
        return None
    if difference <= variant.tolerance:
        return built
    log.info("%s: a confidence differs by %.0e", variant.name, difference)
    return None


class _PaddedBatches(nn.Module):
    """Pads batches, so that a network sees only a few batch sizes.

    oneDNN compiles and caches a kernel for each size: 1.5 ms and 80 KB for each of up to 256.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, inputs: Tensor) -> Tensor:
        missing = -len(inputs) % _size_step(len(inputs))
        outputs: Tensor = self._network(
            functional.pad(inputs, (0,) * (2 * inputs.dim() - 1) + (missing,)) if missing else inputs
        )
        return outputs[: len(inputs)].float()


def _size_step(images: int) -> int:
    """A batch of this many images is padded to a multiple of this: an eighth of the batch, or less."""
    return max(1, 1 << max(0, images.bit_length() - 4))


def _largest_difference(
    one: nn.Module, other: nn.Module, inputs: Tensor, to_confidences: Callable[[FloatArray], FloatArray]
) -> float:
    """The largest difference of a confidence; NaN if one of the confidences is NaN."""
    ours, theirs = (to_confidences(network(inputs).float().numpy()) for network in (one, other))
    return float(np.abs(ours - theirs).max())


def _cpu_seconds_once(network: nn.Module, batches: Sequence[Tensor]) -> float:
    started = time.process_time()
    for batch in batches:
        network(batch)
    return time.process_time() - started
