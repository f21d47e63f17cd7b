"""How many images fit into a slice of bulk work, estimated from the slices before it."""

FIRST_ITEMS = 4  # before anything is measured
NEWEST_WEIGHT = 0.3


class SliceSize:
    """Keeps an exponentially weighted mean of the seconds that one image takes."""

    def __init__(self, seconds: float, *, items_max: int) -> None:
        self.seconds = seconds
        """The target duration of a slice."""
        self._items_max = items_max
        self._item_seconds: float | None = None

    def items(self) -> int:
        """How many images fit into the target duration; at least 1."""
        if self._item_seconds is None:
            return min(FIRST_ITEMS, self._items_max)
        return max(1, min(self._items_max, int(self.seconds / self._item_seconds)))

    def measured(self, items: int, seconds: float) -> None:
        newest = max(seconds, 1e-9) / items
        before = newest if self._item_seconds is None else self._item_seconds
        self._item_seconds = before + NEWEST_WEIGHT * (newest - before)
