"""How many images fit into a time, estimated from those before; what a claim and a slice of bulk work take."""

from worker.inference.networks.pace import UNMEASURED, Pace

FIRST_ITEMS = 4  # of a bulk slice before anything is measured, and the most for the sake of a larger batch
NEWEST_WEIGHT = 0.3


class SliceSize:
    """Keeps an exponentially weighted mean of the seconds that one image takes, with its decoding."""

    def __init__(
        self,
        seconds: float,
        *,
        items_max: int,
        first_items: int = FIRST_ITEMS,
        pace: Pace = UNMEASURED,
        batch_seconds: float = 0,
    ) -> None:
        """`seconds`: the target duration. `pace`: of the network, whose images take at least that long.

        `batch_seconds`: what a slice may take at most if that makes images cheaper; see `items`.
        """
        self._items_max = items_max
        self._first_items = first_items
        self._pace = pace
        self._batch = min(pace.batch, FIRST_ITEMS) if pace.image_seconds else 1
        self._seconds = seconds
        self.seconds_max = max(seconds, batch_seconds) if self._batch > 1 else seconds
        self._item_seconds: float | None = None

    def items(self) -> int:
        """How many images fit into the target duration; at least 1.

        If that is less than the batch in which the network computes best, the batch, up to FIRST_ITEMS, if it fits
        `seconds_max`: most of what a batch can save.
        """
        return max(self.items_in(self._seconds), min(self._batch, self.items_in(self.seconds_max)))

    def items_in(self, seconds: float) -> int:
        """How many images fit into these seconds; at least 1."""
        if self._item_seconds is not None:
            image_seconds, most = self._item_seconds, self._items_max
        else:
            image_seconds, most = self._pace.image_seconds, min(self._first_items, self._items_max)
        return max(1, min(most, int(seconds / image_seconds))) if image_seconds else most

    def measured(self, items: int, seconds: float) -> None:
        newest = max(seconds, 1e-9) / items
        before = newest if self._item_seconds is None else self._item_seconds
        self._item_seconds = before + NEWEST_WEIGHT * (newest - before)
