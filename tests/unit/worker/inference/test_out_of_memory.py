import pytest

from worker.inference.out_of_memory import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "out_of_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (OSError("-9: out of memory"), True),
        (OSError("image file is truncated"), False),
    ],
)
def test_errors_of_libraries_are_recognized_by_their_message(error: Exception, *, out_of_memory: bool) -> None:
    assert is_out_of_memory(error) == out_of_memory
