"""How much work fits a wanted time, from what earlier work took."""

FIRST_ITEMS = 4  # before anything is measured
NEWEST_WEIGHT = 0.3


class SliceSize:
    """An exponentially weighted mean of the seconds that one image takes."""

    def __init__(self, seconds: float, *, items_max: int) -> None:
        self.seconds = seconds
        """The wanted time."""
        self._items_max = items_max
        self._item_seconds: float | None = None

    def items(self) -> int:
        """How many images fit the wanted time; 1 at least."""
        if self._item_seconds is None:
            return min(FIRST_ITEMS, self._items_max)
        return max(1, min(self._items_max, int(self.seconds / self._item_seconds)))

    def measured(self, items: int, seconds: float) -> None:
        newest = max(seconds, 1e-9) / items
        before = newest if self._item_seconds is None else self._item_seconds
        self._item_seconds = before + NEWEST_WEIGHT * (newest - before)
