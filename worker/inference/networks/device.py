"""The device that computes a network (CPU or GPU), its precision, and batches that fit its memory."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from jobs.errors import SettingsError
from worker.inference.networks.cuda_graphs import CudaGraphs

log = logging.getLogger(__name__)

FORWARDS_BEFORE_LARGER = 100  # in smaller batches, before larger ones are tried again


@dataclass(frozen=True, slots=True)
class Device:
    torch_device: torch.device
    half: bool
    """Whether convolutions and products may be computed in bfloat16: where that is faster, and nearly the same."""

    @classmethod
    def of(cls, device: str = "auto", precision: str = "auto", *, child: int = 0) -> Self:
        """The device of the settings DEVICE and PRECISION, for the worker's child of this number.

        With `auto` or `cuda`, the children of a worker are spread over all GPUs. `auto` is the CPU if there is no GPU.
        Precision `auto` allows bfloat16 on a GPU, and is float32 on a CPU.

        Raises:
            SettingsError: there is no such device.
        """
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device == "auto":
            device = "cuda" if gpus else "cpu"
        if device == "cuda" and gpus:
            device = f"cuda:{child % gpus}"
        torch_device = torch.device(device)
        is_gpu = torch_device.type == "cuda"
        if is_gpu and (torch_device.index or 0) >= gpus:
            raise SettingsError(f"DEVICE is {device}, but torch {torch.__version__} finds {gpus or 'no'} GPUs here")
        return cls(torch_device, half=precision == "bfloat16" or (precision == "auto" and is_gpu))

    @property
    def is_gpu(self) -> bool:
        return self.torch_device.type == "cuda"

    def autocast(self) -> AbstractContextManager[Any]:
        """Without a cache of converted weights: a CUDA graph must convert them itself."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.half, cache_enabled=False)

    @property
    def clock(self) -> Callable[[], float]:
        """For measurements: CPU time if one thread of the CPU computes, which other processes disturb less."""
        one_thread = not self.is_gpu and torch.get_num_threads() == 1
        return time.process_time if one_thread else time.perf_counter

    @property
    def name(self) -> str:
        """For logs."""
        device = torch.cuda.get_device_name(self.torch_device) if self.is_gpu else "the CPU"
        return f"{device}, in {'bfloat16 if that is faster' if self.half else 'float32'}"


CPU_FLOAT32 = Device(torch.device("cpu"), half=False)


class OnDevice(nn.Module):
    """A network on a device, in the device's precision. Inputs and outputs are float32 in the memory of the CPU."""

    def __init__(self, network: nn.Module, device: Device) -> None:
        super().__init__()
        network = network.to(device.torch_device)
        self._network = CudaGraphs(network, device.torch_device) if device.is_gpu else network
        self._device = device
        self._batch_max: int | None = None  # images, after the device's memory was too small for a batch
        self._forwards = 0  # with this limit

    def forward(self, inputs: Tensor) -> Tensor:
        """Halves batches that do not fit the device's memory, and tries larger ones again after a while.

        Raises:
            torch.OutOfMemoryError: a single image does not fit.
        """
        if self._batch_max is not None:
            self._forwards += 1
            if self._forwards > FORWARDS_BEFORE_LARGER:
                self._batch_max, self._forwards = 2 * self._batch_max, 0
        while True:
            try:
                parts = torch.split(inputs, self._batch_max or len(inputs))
                return torch.cat([self._compute(part) for part in parts])
            except torch.OutOfMemoryError:
                tried = min(len(inputs), self._batch_max or len(inputs))
                if tried == 1:
                    raise
            # outside of the except block: the exception keeps the outputs computed so far alive
            self._batch_max, self._forwards = tried // 2, 0
            if self._device.is_gpu:
                torch.cuda.empty_cache()
            log.warning("%s images exceed the device's memory; from here on at most %s at a time", tried, tried // 2)

    def _compute(self, inputs: Tensor) -> Tensor:
        with self._device.autocast():
            outputs: Tensor = self._network(inputs)
        return outputs.float()
