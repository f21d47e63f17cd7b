"""From a network's output to classes: how sure each is, which are best, and whether the image is like the known."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.item_codes import ItemCode
from jobs.model_manifest import Output
from jobs.records import Failure, Outcome, Prediction, Unfamiliar

StoredChunks = NDArray[np.float32]
EVEN = 0.5  # the threshold of two classes that names none


class Head:
    def __init__(self, output: Output, classes: int) -> None:
        self._output = output
        self.width = 1 if output.activation == "sigmoid" else classes
        """How many numbers the network puts out for an image."""

    def outcomes(self, outputs: StoredChunks, top_ks: Sequence[int]) -> list[Outcome]:
        """For each row its best classes, so many as are wanted of it; of equal confidences the first class is better.

        `outputs`: float32, N × what the network puts out. NaN among them: the network failed on that image.
        """
        confidences = self.confidences(outputs)
        sound = np.isfinite(confidences.sum(axis=1))
        order = np.argsort(-self._ranks(confidences), axis=1, kind="stable")[:, : max(top_ks)]
        best = confidences[np.arange(len(confidences))[:, np.newaxis], order]
        return [
            kind(map(Prediction, classes[:top_k], row[:top_k])) if is_sound else Failure(ItemCode.MODEL_FAILED)
            for kind, is_sound, classes, row, top_k in zip(
                self._kinds(outputs), sound.tolist(), order.tolist(), best.tolist(), top_ks, strict=True
            )
        ]

    def confidences(self, outputs: StoredChunks) -> StoredChunks:
        """float32, N × classes, each in [0, 1]."""
        match self._output.activation:
            case "none":
                return outputs
            case "softmax":
                return torch.softmax(self._scaled(outputs), dim=1).numpy()
            case "sigmoid":
                positive = torch.sigmoid(self._scaled(outputs))
                return torch.cat([1 - positive, positive], dim=1).numpy()

    def familiarity(self, outputs: StoredChunks) -> StoredChunks:
        """float32, N: the higher, the more an image is like those that the network has learned.

        The negative energy of its output (Liu et al. 2020), which tells more than the highest confidence.
        """
        return torch.logsumexp(self._scaled(outputs), dim=1).numpy()

    def _scaled(self, outputs: StoredChunks) -> torch.Tensor:
        tensor, temperature = torch.from_numpy(outputs), self._output.temperature
        return tensor if temperature == 1 else tensor / temperature

    def _ranks(self, confidences: StoredChunks) -> StoredChunks:
        if self._output.activation != "sigmoid":
            return confidences
        positive = confidences[:, 1:] >= (self._output.threshold or EVEN)
        return np.concatenate([~positive, positive], axis=1).astype(np.float32)

    def _kinds(self, outputs: StoredChunks) -> list[type[list[Prediction]]]:
        if self._output.familiar_min is None:
            return [list] * len(outputs)
        return [Unfamiliar if it else list for it in self.familiarity(outputs) < self._output.familiar_min]
