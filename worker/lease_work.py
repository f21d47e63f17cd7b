"""What a child does with one lease: every item of its chunks gets its outcome."""

from collections.abc import Callable
from typing import NamedTuple

from jobs.errors import ItemCode
from jobs.leases import Claimed, FinishedChunk, Lease
from jobs.records import Failure, Outcome, pack_outcomes, unpack_upload
from worker.classifier import Classifier


class _Todo(NamedTuple):
    outcomes: list[Outcome]  # of the chunk; holds a placeholder at `number` until the image is classified
    number: int
    image: memoryview
    top_k: int


class LeaseWork:
    def __init__(self, classifier: Classifier, *, crash_tries_max: int, losses_max: int) -> None:
        self._classifier = classifier
        self._crash_tries_max = crash_tries_max
        self._losses_max = losses_max

    def run(self, lease: Lease, note_item: Callable[[int], None]) -> list[FinishedChunk]:
        """Classify all images of a lease with one forward, or one by one where it is under suspicion.

        `note_item` is told the number of each image of a suspect chunk before it is touched: if that image kills
        the process, the note says which one it was.
        """
        todo = list[_Todo]()
        chunks = [(claimed, self._settle(claimed, todo)) for claimed in lease.chunks]
        for batch in [[one] for one in todo] if lease.suspect else [todo]:
            if lease.suspect:
                note_item(batch[0].number)
            results = self._classifier.classify([one.image for one in batch], [one.top_k for one in batch])
            for one, outcome in zip(batch, results, strict=True):
                one.outcomes[one.number] = outcome
        return [self._finished(claimed, outcomes) for claimed, outcomes in chunks]

    def _settle(self, claimed: Claimed, todo: list[_Todo]) -> list[Outcome]:
        """The chunk's outcomes as far as they stand without a look at its images; the others go to `todo`."""
        if claimed.upload is None:
            return [Failure(ItemCode.UPLOAD_LOST)] * claimed.entry.items
        outcomes = list[Outcome]()
        for number, image in enumerate(unpack_upload(claimed.upload, claimed.entry.items)):
            failure = claimed.charges.verdict(
                number, crash_tries_max=self._crash_tries_max, losses_max=self._losses_max
            )
            if image is None:
                outcomes.append(Failure(ItemCode.ITEM_TOO_LARGE))
            elif failure is not None:
                outcomes.append(failure)
            else:
                outcomes.append([])
                todo.append(_Todo(outcomes, number, image, claimed.top_k))
        return outcomes

    def _finished(self, claimed: Claimed, outcomes: list[Outcome]) -> FinishedChunk:
        succeeded = sum(not isinstance(outcome, Failure) for outcome in outcomes)
        return FinishedChunk(claimed.entry, succeeded, pack_outcomes(self._classifier.card.ref, outcomes))
