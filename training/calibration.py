"""How far confidences can be believed, and which images are like nothing that was learned."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

BINS = 15
FALSE_ALARMS = 0.01  # of held-out images, have the warning
_TEMPERATURES = np.geomspace(0.25, 4, 400)


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """What to divide logits by for the least cross entropy (Guo et al. 2017). float32, N × classes; int64, N."""
    losses = [float(functional.cross_entropy(logits / it, labels)) for it in _TEMPERATURES]
    return round(float(_TEMPERATURES[int(np.argmin(losses))]), 4)


def calibration_error(confidences: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The expected calibration error: by how much confidence and accuracy differ, in 15 bins of equal width.

    float32, N × classes, in [0, 1]; int64, N.
    """
    best = confidences.max(axis=1)
    right = confidences.argmax(axis=1) == labels
    bins = np.minimum((best * BINS).astype(int), BINS - 1)
    gaps = [abs(float(best[bins == at].sum()) - int(right[bins == at].sum())) for at in range(BINS)]
    return sum(gaps) / len(labels)


def familiar_from(familiarity: NDArray[np.float32]) -> float:
    """The least familiarity that is not warned of, where so few of these familiar images are to be."""
    return round(float(np.quantile(familiarity, FALSE_ALARMS)), 4)
