"""Calibration of confidences, and the threshold for unfamiliar images."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

BINS = 15
FALSE_ALARMS = 0.01  # the share of held-out images that get the warning
_TEMPERATURES = np.geomspace(0.25, 4, 400)


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The divisor of logits with the least cross entropy (Guo et al. 2017).

    Logits: float32, N × classes; labels: int64, N.
    """
    losses = [float(functional.cross_entropy(logits / temperature, labels)) for temperature in _TEMPERATURES]
    return round(float(_TEMPERATURES[int(np.argmin(losses))]), 4)


def calibration_error(confidences: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The expected calibration error: the mean difference of confidence and accuracy, in 15 bins of equal width.

    Confidences: float32, N × classes, in [0, 1]; labels: int64, N.
    """
    best = confidences.max(axis=1)
    right = confidences.argmax(axis=1) == labels
    bins = np.minimum((best * BINS).astype(int), BINS - 1)
    gaps = [abs(float(best[bins == number].sum()) - int(right[bins == number].sum())) for number in range(BINS)]
    return sum(gaps) / len(labels)


def familiarity_threshold(familiarity: NDArray[np.float32]) -> float:
    """The familiarity below which a share FALSE_ALARMS of these images lies. float32, N."""
    return round(float(np.quantile(familiarity, FALSE_ALARMS)), 4)
