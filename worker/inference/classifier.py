"""A loaded model: images in, the best classes out, one forward for all of them."""

import logging
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jobs.model_manifest import ModelCard
from jobs.records import Failure, Outcome
from worker.inference.head import Head
from worker.inference.images.batch import ImageBatch
from worker.inference.images.decode import DecodeError, ImageLimits
from worker.inference.images.preprocess import Mode
from worker.inference.out_of_memory import is_out_of_memory

log = logging.getLogger(__name__)

Upload = bytes | memoryview


class Classifier:
    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        mode: Mode,
        head: Head,
        limits: ImageLimits,
    ) -> None:
        self.card = card
        self._network = network
        self._limits = limits
        self._mode = mode
        self.head = head
        self._has_failed = False  # the first failure is logged with all that is known

    def classify(self, uploads: Sequence[Upload], top_ks: Sequence[int], *, until: float = math.inf) -> list[Outcome]:
        """Each image's classes, best first, or why it has none. A bad image fails alone.

        What is not decoded at `until`, a time of the monotonic clock, is left out at the end; the first image never is.

        Raises:
            MemoryError: there is not enough for these images; the fault may be another's, which has leaked.
        """
        outcomes: list[Outcome | None] = [None] * len(uploads)
        sheet, places = ImageBatch(self._mode, self.card.input, len(uploads)), list[int]()
        for place, upload in enumerate(uploads):
            if place and time.monotonic() > until:
                break
            try:
                sheet.add(upload, self._limits)
                places.append(place)
            except DecodeError as error:
                outcomes[place] = Failure(error.code)
        if places:
            outputs = self._outputs(sheet.inputs())
            found = self.head.outcomes(outputs, [top_ks[place] for place in places])
            for place, outcome in zip(places, found, strict=True):
                outcomes[place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def outputs(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """One forward of the network.

        Inputs: float32, N × channels × height × width; returns float32, N × `head.width`.
        """
        with torch.inference_mode():
            outputs: NDArray[np.float32] = self._network(torch.from_numpy(inputs)).float().numpy()
            return outputs

    def _outputs(self, inputs: NDArray[np.float32], *, first: bool = True) -> NDArray[np.float32]:
        """As `outputs`, but NaN where the model fails on an image.

        All at once first; then in parts; then those parts that failed image by image. So no image is tried more than
        three times, and one that fails among 64 costs 16 more forwards.
        """
        try:
            return self.outputs(inputs)
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError from error
            if len(inputs) == 1:
                log.warning("the model failed on an image: %r", error, exc_info=not self._has_failed)
                self._has_failed = True
                return np.full((1, self.head.width), np.nan, np.float32)
        part = math.isqrt(len(inputs)) if first else 1
        parts = (inputs[at : at + part] for at in range(0, len(inputs), part))
        return np.concatenate([self._outputs(some, first=False) for some in parts])
