"""What a child does with one lease: every item of its chunks gets its outcome."""

import time
from collections.abc import Callable
from typing import NamedTuple

from jobs.errors import ItemCode
from jobs.leases import Claimed, FinishedChunk, Lease
from jobs.records import Failure, Outcome, pack_outcomes, unpack_outcomes, unpack_upload
from worker.classifier import Classifier, OutOfTime

Note = Callable[[int, bytes], None]


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

    def run(self, lease: Lease, note: Note, until: float) -> list[FinishedChunk]:
        """Classify all images of a lease with one forward, or one by one where it is under suspicion.

        `note` is told of each image of a suspect chunk before it is touched: its number, and the packed outcomes of
        those before it. If that image kills the process, the note says which one it was and what need not be done
        again.

        Raises:
            OutOfTime: at `until`, a time of the monotonic clock, images were left; the first is always tried.
        """
        todo = list[_Todo]()
        chunks = [(claimed, self._settle(claimed, todo)) for claimed in lease.chunks]
        if lease.suspect:
            for tried, one in enumerate(todo):
                note(one.number, pack_outcomes(self._classifier.card.ref, one.outcomes[: one.number]))
                if tried and time.monotonic() > until:
                    raise OutOfTime
                self._classify([one], until)
        else:
            self._classify(todo, until)
        return [self._finished(claimed, outcomes) for claimed, outcomes in chunks]

    def _classify(self, batch: list[_Todo], until: float) -> None:
        results = self._classifier.classify([one.image for one in batch], [one.top_k for one in batch], until=until)
        for one, outcome in zip(batch, results, strict=True):
            one.outcomes[one.number] = outcome

    def _settle(self, claimed: Claimed, todo: list[_Todo]) -> list[Outcome]:
        """The chunk's outcomes as far as they stand without a look at its images; the others go to `todo`."""
        if claimed.upload is None:
            return [Failure(ItemCode.UPLOAD_LOST)] * claimed.entry.items
        outcomes = self._done(claimed)
        images = unpack_upload(claimed.upload, claimed.entry.items)
        for number, image in enumerate(images[len(outcomes) :], len(outcomes)):
            failure = claimed.charges.verdict(
                number, crash_tries_max=self._crash_tries_max, losses_max=self._losses_max
            )
            if isinstance(image, ItemCode):
                outcomes.append(Failure(image))
            elif failure is not None:
                outcomes.append(failure)
            else:
                outcomes.append([])
                todo.append(_Todo(outcomes, number, image, claimed.top_k))
        return outcomes

    def _done(self, claimed: Claimed) -> list[Outcome]:
        """What an earlier suspect run with this very model has done of the chunk."""
        if not claimed.progress:
            return []
        ref, outcomes = unpack_outcomes(claimed.progress)
        return outcomes if ref == self._classifier.card.ref else []

    def _finished(self, claimed: Claimed, outcomes: list[Outcome]) -> FinishedChunk:
        succeeded = sum(not isinstance(outcome, Failure) for outcome in outcomes)
        return FinishedChunk(claimed.entry, succeeded, pack_outcomes(self._classifier.card.ref, outcomes))
