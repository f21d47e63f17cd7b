"""Recognizes errors that mean that memory has run out."""

# In the messages of CUDA, torch, Pillow and C++.
_PHRASES = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a MemoryError, or a library's own error whose message says the same."""
    return isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in _PHRASES)
