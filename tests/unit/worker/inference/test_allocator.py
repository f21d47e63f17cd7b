import subprocess
import sys
from pathlib import Path

from worker.inference.allocator import KEPT_BYTES_MAX, MIB, keep_freed_memory, memory_bytes

FREE_AND_ALLOCATE = """
import resource, sys
import numpy as np
from worker.inference.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def forward_pass():
    layers = [np.ones(12 << 20, np.uint8) for _ in range(4)]
forward_pass()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    forward_pass()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", FREE_AND_ALLOCATE, how], check=True, capture_output=True, text=True)
    return int(run.stdout)


def test_memory_that_is_freed_is_not_mapped_anew() -> None:
    assert page_faults("as it comes") > 5000
    assert page_faults("kept") < 500


def test_processes_keep_a_part_of_the_memory_together() -> None:
    assert keep_freed_memory() <= KEPT_BYTES_MAX
    assert 100 * keep_freed_memory(100) <= max(memory_bytes() // 4, 1600 * MIB)


def test_the_container_s_limit_bounds_the_memory(tmp_path: Path) -> None:
    limit, unlimited, missing = tmp_path / "memory.max", tmp_path / "unlimited", tmp_path / "missing"
    limit.write_text(f"{64 * MIB}\n")
    unlimited.write_text("max\n")
    assert memory_bytes(limit, missing) == 64 * MIB
    assert memory_bytes(unlimited, missing) > 64 * MIB
