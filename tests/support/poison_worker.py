"""A worker whose child dies when it decodes a marked image. Run as a script; no production code imports it.

The mark follows the end of a PNG, which decoders ignore. An image of one shade makes the model raise. Each time that a
marked image is decoded, a line is added to the file that POISON_LOG names.
"""

import ctypes
import os
import signal
import time
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

KINDS = ("segfault", "exit", "hang", "leak", "gil", "fleet", "slow")
_MARK = b"POISON:"


def marked(png: bytes, kind: str) -> bytes:
    """The picture followed by a mark."""
    return png + _MARK + kind.encode()


def one_shade() -> bytes:
    """A picture on which the model raises."""
    file = BytesIO()
    Image.new("L", (28, 28), 128).save(file, "PNG")
    return file.getvalue()


def _poison(upload: Any) -> None:
    _, mark, kind = bytes(upload[-32:]).partition(_MARK)
    if not mark:
        return
    _record(kind.decode())
    if kind == b"segfault":
        ctypes.string_at(0)
    elif kind == b"exit":
        os._exit(3)
    elif kind == b"hang":
        time.sleep(1000)
    elif kind == b"slow":  # no poison at all
        time.sleep(3)
    elif kind == b"gil":  # native code that never gives the GIL back: no thread of the child runs
        ctypes.PyDLL(None).sleep(1000)
    elif kind == b"fleet":  # as the kernel does to a container out of memory: the whole worker
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        leak = []
        while True:
            leak.append(bytearray(16 << 20))


def _record(kind: str) -> None:
    with Path(os.environ["POISON_LOG"]).open("a") as log:
        log.write(f"{kind}\n")


def _install() -> None:
    import worker.inference.classifier as module  # noqa: PLC0415 - the main process does not import torch

    add, outputs = module.ImageBatch.add, module.Classifier.outputs

    def poisoned_add(self: Any, upload: Any, *args: Any) -> None:
        _poison(upload)
        add(self, upload, *args)

    def poisoned_outputs(self: Any, inputs: Any) -> Any:
        if (inputs.reshape(len(inputs), -1).std(axis=1) == 0).any():
            raise ValueError("this image is of one shade")
        return outputs(self, inputs)

    module.ImageBatch.add = poisoned_add  # type: ignore[method-assign]  # as a bug would
    module.Classifier.outputs = poisoned_outputs  # type: ignore[method-assign]  # the same


if __name__ == "__main__":
    from worker.main import run

    run()
elif __name__ == "__mp_main__":  # in a child
    _install()
