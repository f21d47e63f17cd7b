"""How many images a forward had, told by a worker that notes it: one of the bench's own, in a run that is not timed.

The worker is the shipped one with a line around its forward, as tests/support/poison_worker.py has lines around more;
what is served to users has neither the line nor a switch for it.
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

LOG = "BENCH_FORWARDS"  # names the file that gets two bytes a forward
MAX = 256
_SIZE = "H"


class Forwards:
    """What a noting worker has noted."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._from = 0
        self.sizes = list[int]()
        """Images of each forward between `begin` and `end`."""

    def begin(self) -> None:
        self._from = self._log.stat().st_size

    def end(self) -> None:
        self.sizes = array(_SIZE, self._log.read_bytes()[self._from :]).tolist()


@contextmanager
def noted() -> Iterator[tuple[Mapping[str, str], list[str], Forwards]]:
    """The environment and the command of a worker that notes its forwards, and what it notes."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "forwards"
        log.touch()
        root = str(Path(__file__).parents[1])  # a script's own folder is all that Python looks in
        yield (
            {LOG: str(log), "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))},
            [sys.executable, __file__],
            Forwards(log),
        )


def histogram(sizes: Iterable[int]) -> dict[str, int]:
    """Forwards by the images that they had: 1, 2-3, 4-7, …, 128-255, 256."""
    found = Counter(size.bit_length() - 1 for size in sizes)
    lows = [1 << power for power in range(MAX.bit_length())]
    names = {power: str(low) if low in (1, MAX) else f"{low}-{2 * low - 1}" for power, low in enumerate(lows)}
    return {name: found[power] for power, name in names.items()}


def _note_forwards() -> None:
    from worker.inference.classifier import Classifier  # noqa: PLC0415 - torch is for children alone

    outputs = Classifier.outputs
    log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND)

    def noting(self: Classifier, inputs: "NDArray[np.float32]") -> "NDArray[np.float32]":
        os.write(log, array(_SIZE, [len(inputs)]).tobytes())
        return outputs(self, inputs)

    Classifier.outputs = noting  # type: ignore[method-assign]  # to count forwards


if __name__ == "__main__":
    from worker.main import run

    run()
elif __name__ == "__mp_main__":  # in a child
    _note_forwards()
