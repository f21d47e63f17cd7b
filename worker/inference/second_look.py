"""A second look at images that the network is unsure of: it is shown variations of them, and the mean of all counts.

On Fashion-MNIST a mirrored view of one image in six is worth as much as of all.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from jobs.model_manifest import SecondLook
from worker.inference.head import Head

StoredChunks = NDArray[np.float32]
Forward = Callable[[StoredChunks], StoredChunks]


def looked_twice(forward: Forward, inputs: StoredChunks, head: Head, look: SecondLook) -> StoredChunks:
    """What `forward` gives for the inputs, and for those that it is unsure of the mean over all views.

    Inputs: float32, N × channels × height × width; returns float32, N × what the network puts out. An image's own
    outputs do not depend on the others.
    """
    outputs = forward(inputs)
    confidences = head.confidences(outputs).max(axis=1)
    unsure = np.flatnonzero(confidences < look.below)
    if not len(unsure):
        return outputs
    shown = np.concatenate(list(views(inputs[unsure], look)))
    # In batches no larger than the first, whose size was chosen for what there is of memory and time.
    parts = [forward(shown[at : at + len(inputs)]) for at in range(0, len(shown), len(inputs))]
    others = np.concatenate(parts).reshape(-1, len(unsure), outputs.shape[1])
    looked = outputs.copy()
    mean = (outputs[unsure] + others.sum(axis=0)) / (1 + len(others))
    looked[unsure] += _weights(confidences[unsure], look)[:, np.newaxis] * (mean - outputs[unsure])
    return looked


def _weights(confidences: NDArray[np.float32], look: SecondLook) -> NDArray[np.float32]:
    """How much the mean counts: 0 at `below`, 1 from `fully_below` on."""
    if look.fully_below is None or look.fully_below == look.below:
        return np.ones_like(confidences)
    weights: StoredChunks = np.clip((look.below - confidences) / (look.below - look.fully_below), 0, 1)
    return weights


def views(inputs: StoredChunks, look: SecondLook) -> Iterator[StoredChunks]:
    """`look.views` of each: mirrored, and shifted to each of four sides, with 0 where nothing was."""
    sides = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)] if look.shift_pixels else [(0, 0)]
    height, width, by = inputs.shape[2], inputs.shape[3], look.shift_pixels
    padded = np.pad(inputs, ((0, 0), (0, 0), (by, by), (by, by)))
    for down, right in sides:
        top, left = by - down * by, by - right * by
        view = padded[:, :, top : top + height, left : left + width]
        if (down, right) != (0, 0):
            yield view
        if look.mirrored:
            yield np.ascontiguousarray(view[..., ::-1])
