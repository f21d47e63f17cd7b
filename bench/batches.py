"""How many images the model gets in one batch, recorded by a special worker in a run that is not timed.

The special worker is the shipped one with the model's forward pass wrapped, as in tests/support/poison_worker.py. The
shipped worker has neither the wrapper nor a switch for it.
"""

import os
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOG = "BENCH_BATCHES"  # environment variable with the path of a file that gets two bytes per batch
MAX = 256
_SIZE = "H"


class BatchRecorder:
    """Reads the batch sizes that the special worker has recorded."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._from = 0
        self.sizes = list[int]()
        """Images of each batch between `begin` and `end`."""

    def begin(self) -> None:
        self._from = self._log.stat().st_size

    def end(self) -> None:
        self.sizes = array(_SIZE, self._log.read_bytes()[self._from :]).tolist()


@contextmanager
def recorded() -> Iterator[tuple[Mapping[str, str], list[str], BatchRecorder]]:
    """The environment and the command of the special worker, and the reader of its records."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "batches"
        log.touch()
        root = str(Path(__file__).parents[1])  # for a script, Python searches only its own folder
        yield (
            {LOG: str(log), "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))},
            [sys.executable, __file__],
            BatchRecorder(log),
        )


def histogram(sizes: Iterable[int]) -> dict[str, int]:
    """Number of batches by their images: 1, 2-3, 4-7, …, 128-255, 256."""
    found = Counter(size.bit_length() - 1 for size in sizes)
    lows = [1 << power for power in range(MAX.bit_length())]
    names = {power: str(low) if low in (1, MAX) else f"{low}-{2 * low - 1}" for power, low in enumerate(lows)}
    return {name: found[power] for power, name in names.items()}


def _record_batches() -> None:
    from worker.inference.classifier import Classifier  # noqa: PLC0415 - only children import torch

    outputs = Classifier.outputs
    log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND)

    def recording(self: Classifier, inputs: "NDArray[np.float32]") -> "NDArray[np.float32]":
        os.write(log, array(_SIZE, [len(inputs)]).tobytes())
        return outputs(self, inputs)

    Classifier.outputs = recording  # type: ignore[method-assign]  # to record the batch


if __name__ == "__main__":
    from worker.main import run

    run()
elif __name__ == "__mp_main__":  # in a child
    _record_batches()
