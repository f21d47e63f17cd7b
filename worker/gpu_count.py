"""How many GPUs torch finds, told without torch: a worker's main process has no use for it."""

import os
from importlib.util import find_spec
from pathlib import Path

DEVICES = Path("/dev")


def gpus() -> int:
    """0 where torch was built for processors alone."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None or not (Path(torch.origin).parent / "lib" / "libtorch_cuda.so").exists():
        return 0
    there = len(list(DEVICES.glob("nvidia[0-9]*")))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return there if chosen is None else min(there, sum(it.strip() not in ("", "-1") for it in chosen.split(",")))
