"""What a network computes on: this processor or a GPU, in full or half precision, in batches that fit its memory."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from jobs.errors import SettingsError

log = logging.getLogger(__name__)

CALM_FORWARDS = 100  # after so many in smaller batches, larger ones are tried again


@dataclass(frozen=True, slots=True)
class Device:
    device: torch.device
    half: bool
    """Convolutions and products in bfloat16, the rest in float32; on a processor only where that is faster."""

    @classmethod
    def of(cls, device: str = "auto", precision: str = "auto", *, child: int = 0) -> Self:
        """`auto`: a GPU, if there is one; and half on a GPU alone. Of several GPUs a worker's children take turns.

        Raises:
            SettingsError: there is no such device.
        """
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device == "auto":
            device = "cuda" if gpus else "cpu"
        if device == "cuda" and gpus:
            device = f"cuda:{child % gpus}"
        place = torch.device(device)
        if place.type == "cuda" and (place.index or 0) >= gpus:
            raise SettingsError(f"DEVICE is {device}, but torch {torch.__version__} finds {gpus or 'no'} GPUs here")
        half = precision == "bfloat16" or (precision == "auto" and place.type == "cuda")
        return cls(place, half)

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    @property
    def name(self) -> str:
        precision = "bfloat16" if self.half else "float32"
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)}, in {precision}"
        return f"the processor, in {precision}{' where that is faster' if self.half else ''}"


FULL = Device(torch.device("cpu"), half=False)


class Placed(nn.Module):
    """A network on a device, which takes and gives float32 of the processor's memory."""

    def __init__(self, network: nn.Module, device: Device) -> None:
        super().__init__()
        self._network = network.to(device.device)
        self._compute = device
        self._most: int | None = None  # images at a time, where memory was short
        self._calm = 0  # forwards since then

    def forward(self, inputs: Tensor) -> Tensor:
        """Halves what does not fit the device's memory, and tries more again after a while.

        Raises:
            torch.OutOfMemoryError: one image does not fit.
        """
        if self._most is not None:
            self._calm += 1
            if self._calm > CALM_FORWARDS:
                self._most, self._calm = 2 * self._most, 0
        while True:
            try:
                parts = torch.split(inputs, self._most or len(inputs))
                return torch.cat([self._part(part) for part in parts])
            except torch.OutOfMemoryError:
                tried = min(len(inputs), self._most or len(inputs))
                if tried == 1:
                    raise
            self._most, self._calm = tried // 2, 0  # not while the error holds what was computed
            if self._compute.device.type == "cuda":
                torch.cuda.empty_cache()
            log.warning("%s images do not fit the device's memory; %s at a time from here on", tried, self._most)

    def _part(self, inputs: Tensor) -> Tensor:
        if self._compute.device.type == "cuda":
            inputs = inputs.pin_memory().to(self._compute.device, non_blocking=True)
        with self._compute.precision():
            outputs: Tensor = self._network(inputs)
        return outputs.float().cpu()
