"""Whether an error means that memory has run out."""

_SAYINGS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
)  # CUDA's, torch's, Pillow's, C++'s


def is_out_of_memory(error: BaseException) -> bool:
    """Libraries have errors of their own for it, and tell it in words."""
    return isinstance(error, MemoryError) or any(saying in str(error).lower() for saying in _SAYINGS)
