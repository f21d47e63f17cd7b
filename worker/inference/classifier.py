"""A loaded model: images in, their best classes out, with one forward pass for all of them."""

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
from worker.inference.images.preprocess import Preprocessor
from worker.inference.out_of_memory import is_out_of_memory

log = logging.getLogger(__name__)

Upload = bytes | memoryview


class Classifier:
    def __init__(
        self, network: nn.Module, card: ModelCard, preprocessor: Preprocessor, head: Head, limits: ImageLimits
    ) -> None:
        self.card = card
        self.head = head
        self.network = network
        self._limits = limits
        self._preprocessor = preprocessor
        self._has_failed = False  # only the first failure is logged with its traceback

    def classify(self, uploads: Sequence[Upload], top_ks: Sequence[int], *, until: float = math.inf) -> list[Outcome]:
        """Each image's best classes, or why it has none. One bad image does not affect the others.

        `until`: a time of the monotonic clock. Images not yet decoded at this time are left out, except the first one:
        the result may have fewer outcomes than there are uploads.

        Raises:
            MemoryError: there is not enough memory for these images, which may be due to other code that leaks.
        """
        outcomes: list[Outcome | None] = [None] * len(uploads)
        batch, decoded = ImageBatch(self._preprocessor, self.card.input, len(uploads)), list[int]()
        for index, upload in enumerate(uploads):
            if index and time.monotonic() > until:
                break
            try:
                batch.add(upload, self._limits)
                decoded.append(index)
            except DecodeError as error:
                outcomes[index] = Failure(error.code)
        if decoded:
            outputs = self._outputs_or_nan(batch.inputs())
            found = self.head.outcomes(outputs, [top_ks[index] for index in decoded])
            for index, outcome in zip(decoded, found, strict=True):
                outcomes[index] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def outputs(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """One forward pass. Inputs: float32, N × channels × height × width; returns float32, N × `head.width`."""
        with torch.inference_mode():
            outputs: NDArray[np.float32] = self.network(torch.from_numpy(inputs)).float().numpy()
            return outputs

    def _outputs_or_nan(self, inputs: NDArray[np.float32], *, first_try: bool = True) -> NDArray[np.float32]:
        """As `outputs`, but NaN for images on which the network raises an error.

        Tries the whole batch; then parts of it; then the failed parts image by image. So an image is tried at most
        three times, and one that fails among 64 costs 16 more forward passes.
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
        size = math.isqrt(len(inputs)) if first_try else 1
        parts = (inputs[start : start + size] for start in range(0, len(inputs), size))
        return np.concatenate([self._outputs_or_nan(part, first_try=False) for part in parts])
