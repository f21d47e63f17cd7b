"""How many images may be submitted with an API key: a day, and pending at once."""

from jobs.errors import DailyQuotaExceeded, Unauthorized
from jobs.store.keys import DAY_MS


class ItemQuota:
    """The quota of one key, shared by all submits with it in this process. By default there is none.

    The scripts that accept chunks count and refuse. What this process knows of the count is for responses.
    """

    __slots__ = ("_day", "_used", "key_ended", "key_id", "pending_max", "per_day")

    def __init__(self, key_id: str = "") -> None:
        self.key_id = key_id
        self.per_day: int | None = None
        self.pending_max: int | None = None
        self.key_ended = False
        """Whether the key was revoked or has expired: a submit that began before accepts nothing more."""
        self._day = -1
        self._used = 0

    def script_args(self, owner_pending_items_max: int) -> tuple[int, str, int]:
        """Pending items allowed, and, '' and 0 without a daily quota, the key's id and items a day.

        Raises:
            Unauthorized: the key has ended.
        """
        if self.key_ended:
            raise Unauthorized
        pending_max = owner_pending_items_max
        if self.pending_max is not None and self.pending_max < pending_max:
            pending_max = self.pending_max
        return (pending_max, "", 0) if self.per_day is None else (pending_max, self.key_id, self.per_day)

    def set_used(self, items: int, now_ms: float) -> None:
        """The store's count of this day, as a script or a read has just returned it."""
        self._day, self._used = int(now_ms // DAY_MS), items

    def left(self, now_ms: float) -> tuple[int, int] | None:
        """How many items may be submitted today, as far as this process knows, and in how many seconds the day ends.

        None without a daily quota.
        """
        if self.per_day is None:
            return None
        day, passed_ms = divmod(int(now_ms), DAY_MS)
        used = self._used if day == self._day else 0
        return max(0, self.per_day - used), -((passed_ms - DAY_MS) // 1000)

    def exceeded(self, used: int, now_ms: float) -> DailyQuotaExceeded:
        """The error of a submit that the script refused at this count."""
        self.set_used(used, now_ms)
        left, seconds = self.left(now_ms) or (0, 1)
        return DailyQuotaExceeded(
            f"This key may submit {self.per_day} images a day (UTC), and {left} are left.", retry_after_seconds=seconds
        )


UNLIMITED = ItemQuota()
"""For submits without a key that has limits."""
