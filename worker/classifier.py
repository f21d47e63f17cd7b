"""A loaded model: images in, the best classes out, one forward for all of them."""

import logging
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jobs.errors import ItemCode
from jobs.models import Card
from jobs.records import Failure, Outcome, Prediction
from worker.images import BadImage, ImageLimits, decode
from worker.oom import is_out_of_memory
from worker.preprocess import MODES

log = logging.getLogger(__name__)

Upload = bytes | memoryview


class Classifier:
    def __init__(self, network: nn.Module, card: Card, limits: ImageLimits) -> None:
        self.card = card
        self._network = network
        self._limits = limits
        self._preprocess = MODES[card.preprocessing]
        self._has_failed = False  # the first failure is logged with all that is known

    def classify(self, uploads: Sequence[Upload], top_ks: Sequence[int], *, until: float = math.inf) -> list[Outcome]:
        """Each image's classes, best first, or why it has none. A bad image fails alone.

        What is not decoded at `until`, a time of the monotonic clock, is left out at the end; the first image never is.

        Raises:
            MemoryError: there is not enough for these images; the fault may be another's, which has leaked.
        """
        outcomes: list[Outcome | None] = [None] * len(uploads)
        inputs, places = list[NDArray[np.float32]](), list[int]()
        for place, upload in enumerate(uploads):
            if place and time.monotonic() > until:
                break
            try:
                inputs.append(self._preprocess(decode(upload, self._limits), self.card.input))
                places.append(place)
            except BadImage as error:
                outcomes[place] = Failure(error.code)
        if inputs:
            for place, row in zip(places, self._probabilities(inputs), strict=True):
                outcomes[place] = _best(row, top_ks[place])
        return [outcome for outcome in outcomes if outcome is not None]

    def probabilities(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax over the classes. Inputs: float32, N × channels × height × width; returns float32, N × classes."""
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(inputs).flatten(1))
            return torch.softmax(logits, dim=1).numpy()

    def _probabilities(
        self, inputs: list[NDArray[np.float32]], *, first: bool = True
    ) -> list[NDArray[np.float32] | None]:
        """One row an image; None where the model fails on that image.

        All at once first; then in parts; then those parts that failed image by image. So no image is tried more than
        three times, and one that fails among 64 costs 16 more forwards.
        """
        try:
            return list(self.probabilities(np.stack(inputs)))
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError from error
            if len(inputs) == 1:
                log.warning("the model failed on an image: %r", error, exc_info=not self._has_failed)
                self._has_failed = True
                return [None]
        part = math.isqrt(len(inputs)) if first else 1
        parts = (inputs[at : at + part] for at in range(0, len(inputs), part))
        return [row for some in parts for row in self._probabilities(some, first=False)]


def _best(row: NDArray[np.float32] | None, top_k: int) -> Outcome:
    if row is None or not np.isfinite(row).all():
        return Failure(ItemCode.MODEL_FAILED)
    return [Prediction(int(index), float(row[index])) for index in np.argsort(-row, kind="stable")[:top_k]]
