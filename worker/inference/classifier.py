"""A loaded model: images in, their best classes out, in batches of the size that suits the network."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jobs.metrics.process_metrics import BATCH_ITEMS, BATCH_SECONDS
from jobs.model_manifest import ModelCard
from jobs.records import Failure, Outcome
from worker.inference.head import Head
from worker.inference.images.batch import ImageBatch
from worker.inference.images.limits import DecodeError, ImageLimits, SlowImage
from worker.inference.images.preprocess import Preprocessor
from worker.inference.networks.pace import UNMEASURED, measured_pace
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
        self.pace = UNMEASURED
        """How fast this process computes the network; see `measure_pace`."""
        self._limits = replace(limits, seconds_max=math.inf)
        self._quick_limits = limits
        self._preprocessor = preprocessor
        self._has_failed = False  # only the first failure is logged with its traceback

    def classify(self, uploads: Sequence[Upload], top_ks: Sequence[int], *, until: float = math.inf) -> list[Outcome]:
        """Each image's best classes, or why it has none. One bad image does not affect the others.

        `until`: a time of the monotonic clock. Images not yet decoded at this time are left out, except the first one:
        the result may have fewer outcomes than there are uploads.

        Raises:
            MemoryError: there is not enough memory for these images, which may be due to other code that leaks.
        """
        outcomes = self._classify(uploads, top_ks, until, self._limits)
        return [outcome for outcome in outcomes if outcome is not None]

    def classify_quick(
        self, uploads: Sequence[Upload], top_ks: Sequence[int], *, until: float = math.inf
    ) -> list[Outcome | None]:
        """As `classify`, but None for each image that takes long to decode (`SLOW_IMAGE_SECONDS`): it is left out."""
        return self._classify(uploads, top_ks, until, self._quick_limits)

    def _classify(
        self, uploads: Sequence[Upload], top_ks: Sequence[int], until: float, limits: ImageLimits
    ) -> list[Outcome | None]:
        outcomes = list[Outcome | None]()
        while len(outcomes) < len(uploads) and not (outcomes and time.monotonic() > until):
            batch = slice(len(outcomes), len(outcomes) + self.pace.batch)
            outcomes += self._classify_batch(uploads[batch], top_ks[batch], until, limits)
        return outcomes

    def measure_pace(self, *, seconds_max: float, clock: Callable[[], float] = time.process_time) -> None:
        """Find the batch size from which on an image gets no cheaper; a batch takes at most about so many seconds."""
        self.pace = measured_pace(self.outputs, self.card.input, seconds_max=seconds_max, clock=clock)
        log.info("%s: batches of %s, %.3g ms an image", self.card.ref, self.pace.batch, 1e3 * self.pace.image_seconds)

    def _classify_batch(
        self, uploads: Sequence[Upload], top_ks: Sequence[int], until: float, limits: ImageLimits
    ) -> list[Outcome | None]:
        """With one forward pass; None for slow images."""
        outcomes: list[Outcome | None] = [None] * len(uploads)
        batch, decoded = ImageBatch(self._preprocessor, self.card.input, len(uploads)), list[int]()
        began = time.monotonic()
        for index, upload in enumerate(uploads):
            if index and time.monotonic() > until:
                del outcomes[index:]
                break
            try:
                batch.add(upload, limits)
                decoded.append(index)
            except SlowImage:
                continue
            except DecodeError as error:
                outcomes[index] = Failure(error.code, error.found, limits.taken if error.found else frozenset())
        inputs, decoded_at = batch.inputs() if decoded else None, time.monotonic()
        BATCH_SECONDS.measured(decoded_at - began, self.card.name, "decode")
        if inputs is not None:
            outputs = self._outputs_or_nan(inputs)
            BATCH_SECONDS.measured(time.monotonic() - decoded_at, self.card.name, "forward")
            BATCH_ITEMS.measured(len(decoded), self.card.name)
            found = self.head.outcomes(outputs, [top_ks[index] for index in decoded])
            for index, outcome in zip(decoded, found, strict=True):
                outcomes[index] = outcome
        return outcomes

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
