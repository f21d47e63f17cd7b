"""Which bytes of a zip archive its members have, to find two that share some (David Fifield's bomb, 2019)."""

from array import array
from bisect import bisect_right

_LOCAL_HEADER_BYTES = 30  # no member fits into a shorter gap: data descriptors and padding stand there


class Extents:
    """Ranges of bytes that do not overlap. Takes 16 bytes for each gap between them, and none for ranges in order."""

    def __init__(self) -> None:
        self._starts = array("Q")
        self._ends = array("Q")

    def add(self, start: int, end: int) -> bool:
        """Add a range. Returns False if it overlaps with one that was added."""
        at = bisect_right(self._starts, start)
        if (at > 0 and self._ends[at - 1] > start) or (at < len(self._starts) and self._starts[at] < end):
            return False
        joins_left = at > 0 and start - self._ends[at - 1] < _LOCAL_HEADER_BYTES
        joins_right = at < len(self._starts) and self._starts[at] - end < _LOCAL_HEADER_BYTES
        if joins_left and joins_right:
            self._ends[at - 1] = self._ends.pop(at)
            self._starts.pop(at)
        elif joins_left:
            self._ends[at - 1] = end
        elif joins_right:
            self._starts[at] = start
        else:
            self._starts.insert(at, start)
            self._ends.insert(at, end)
        return True
