"""What owners share, divided so that none keeps the others out."""

OWNER_OF_ALL = "public"
"""Of all jobs of a server without keys: there are no others, and it may have everything."""


class OwnerShares:
    """Counts what each owner has of something. None may have more than half of what the others leave, or one thing.

    So one owner has half at most, a second one a quarter or more, and there is something left for the next.
    """

    def __init__(self, total_max: int) -> None:
        self.total = 0
        self._total_max = total_max
        self._of = dict[str, int]()

    def has_room(self, owner: str, amount: int = 1) -> bool:
        """Whether the owner may have so much more."""
        own = self._of.get(owner, 0)
        left = self._total_max - (self.total - own)
        return own + amount <= (left if owner == OWNER_OF_ALL or not own else (left + 1) // 2)

    def add(self, owner: str, amount: int = 1) -> None:
        """Count so much more, whether there is room or not."""
        self.total += amount
        self._of[owner] = self._of.get(owner, 0) + amount

    def remove(self, owner: str, amount: int = 1) -> None:
        self.total -= amount
        if left := self._of.get(owner, 0) - amount:
            self._of[owner] = left
        else:
            self._of.pop(owner, None)
