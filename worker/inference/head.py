"""From a network's output to confidences, the best classes, and the warning that an image is unfamiliar."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.item_codes import ItemCode
from jobs.model_manifest import Output
from jobs.records import Failure, Outcome, Prediction, Unfamiliar

FloatArray = NDArray[np.float32]
DEFAULT_THRESHOLD = 0.5  # of `sigmoid`


class Head:
    def __init__(self, output: Output, classes: int) -> None:
        self._output = output
        self.width = 1 if output.activation == "sigmoid" else classes
        """How many numbers the network's output has for an image."""

    def outcomes(self, outputs: FloatArray, top_ks: Sequence[int]) -> list[Outcome]:
        """The best `top_k` classes of each image; of equal confidences, the first class ranks higher.

        `outputs`: float32, N × `width`. An image with NaN among its numbers fails: the network could not compute it.
        """
        confidences = self.confidences(outputs)
        is_finite = np.isfinite(confidences.sum(axis=1))
        order = np.argsort(-self._ranks(confidences), axis=1, kind="stable")[:, : max(top_ks)]
        best = confidences[np.arange(len(confidences))[:, np.newaxis], order]
        return [
            kind(map(Prediction, classes[:top_k], row[:top_k])) if finite else Failure(ItemCode.MODEL_FAILED)
            for kind, finite, classes, row, top_k in zip(
                self._kinds(outputs), is_finite.tolist(), order.tolist(), best.tolist(), top_ks, strict=True
            )
        ]

    def confidences(self, outputs: FloatArray) -> FloatArray:
        """float32, N × classes, each in [0, 1]."""
        match self._output.activation:
            case "none":
                return outputs
            case "softmax":
                return torch.softmax(self._scaled(outputs), dim=1).numpy()
            case "sigmoid":
                positive = torch.sigmoid(self._scaled(outputs))
                return torch.cat([1 - positive, positive], dim=1).numpy()

    def familiarity(self, outputs: FloatArray) -> FloatArray:
        """float32, N: the higher, the more an image is like the training data.

        The negative energy score (Liu et al. 2020), which separates unfamiliar images better than the highest
        confidence does.
        """
        return torch.logsumexp(self._scaled(outputs), dim=1).numpy()

    def _scaled(self, outputs: FloatArray) -> torch.Tensor:
        tensor, temperature = torch.from_numpy(outputs), self._output.temperature
        return tensor if temperature == 1 else tensor / temperature

    def _ranks(self, confidences: FloatArray) -> FloatArray:
        """The sort key of the classes: their confidences, or with a threshold 1 for the class that it selects."""
        if self._output.activation != "sigmoid":
            return confidences
        positive = confidences[:, 1:] >= (self._output.threshold or DEFAULT_THRESHOLD)
        return np.concatenate([~positive, positive], axis=1).astype(np.float32)

    def _kinds(self, outputs: FloatArray) -> list[type[list[Prediction]]]:
        """The type of each outcome, which carries the warning."""
        if self._output.familiar_min is None:
            return [list] * len(outputs)
        return [Unfamiliar if low else list for low in self.familiarity(outputs) < self._output.familiar_min]
