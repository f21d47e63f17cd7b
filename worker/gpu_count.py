"""Counts the GPUs that torch would find, without importing torch into the main process."""

import os
from importlib.util import find_spec
from pathlib import Path

DEVICES = Path("/dev")


def gpus() -> int:
    """0 if torch was built for CPUs only."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None or not (Path(torch.origin).parent / "lib" / "libtorch_cuda.so").exists():
        return 0
    present = len(list(DEVICES.glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        present if visible is None else min(present, sum(gpu.strip() not in ("", "-1") for gpu in visible.split(",")))
    )
