"""What a child does with one lease: every item of its chunks gets its outcome."""

import time
from collections.abc import Callable
from typing import NamedTuple

from jobs.codec import pack_outcomes, pack_retained, unpack_outcomes, unpack_upload
from jobs.item_codes import RETRYABLE, ItemCode
from jobs.records import Failure, Outcome
from jobs.store.leases import ClaimedChunk, FinishedChunk, Lease
from worker.classify.slice_size import SliceSize
from worker.inference.classifier import Classifier

Note = Callable[[int, bytes], None]
Between = Callable[[], None]


class OutOfTime(Exception):
    """Images of a lease were left when its time was up; `progress` is what was done of its only chunk."""

    def __init__(self, progress: bytes) -> None:
        super().__init__()
        self.progress = progress


class _Todo(NamedTuple):
    outcomes: list[Outcome]  # of the chunk; holds a placeholder at `number` until the image is classified
    number: int
    image: memoryview
    top_k: int


class LeaseRunner:
    def __init__(self, classifier: Classifier, slice_size: SliceSize, *, crash_tries_max: int, losses_max: int) -> None:
        self._classifier = classifier
        self._slice_size = slice_size
        self._crash_tries_max = crash_tries_max
        self._losses_max = losses_max

    def run(self, lease: Lease, note: Note, between: Between, until: float) -> list[FinishedChunk]:
        """Classify all images of a lease: with one forward; one by one where it is under suspicion; bulk in slices.

        `note` is told of each image of a suspect chunk before it is touched: its number, and the packed outcomes of
        those before it. If that image kills the process, the note says which one it was and what need not be done
        again. `between` is called before each slice of a bulk lease but the first.

        Raises:
            OutOfTime: at `until`, a time of the monotonic clock, images were left; the first is always tried.
        """
        todo = list[_Todo]()
        chunks = [(claimed, self._settle(claimed, todo)) for claimed in lease.chunks]
        done = 0
        while done < len(todo):
            one = todo[done]
            if lease.suspect:
                note(one.number, self._progress(one))
            if done and time.monotonic() > until:
                raise OutOfTime(self._progress(one))
            if done and lease.bulk:
                between()
            done += self._classify_some(lease, todo[done:], until)
        return [self._finished(claimed, outcomes) for claimed, outcomes in chunks]

    def _classify_some(self, lease: Lease, todo: list[_Todo], until: float) -> int:
        if not lease.bulk:
            return self._classify(todo[:1] if lease.suspect else todo, until)
        started = time.monotonic()
        done = self._classify(todo[: self._slice_size.items()], min(until, started + self._slice_size.seconds))
        self._slice_size.measured(done, time.monotonic() - started)
        return done

    def _classify(self, batch: list[_Todo], until: float) -> int:
        results = self._classifier.classify([one.image for one in batch], [one.top_k for one in batch], until=until)
        for one, outcome in zip(batch, results, strict=False):
            one.outcomes[one.number] = outcome
        return len(results)

    def _progress(self, reached: _Todo) -> bytes:
        return pack_outcomes(self._classifier.card.ref, reached.outcomes[: reached.number])

    def _settle(self, claimed: ClaimedChunk, todo: list[_Todo]) -> list[Outcome]:
        """The chunk's outcomes as far as they stand without a look at its images; the others go to `todo`."""
        if claimed.upload is None:
            return [Failure(ItemCode.UPLOAD_LOST)] * claimed.chunk_ref.items
        outcomes = self._done(claimed)
        images = unpack_upload(claimed.upload, claimed.chunk_ref.items)
        for number, image in enumerate(images[len(outcomes) :], len(outcomes)):
            failure = claimed.failure_counts.failure_of(
                number, crash_tries_max=self._crash_tries_max, lost_leases_max=self._losses_max
            )
            if isinstance(image, ItemCode):
                outcomes.append(Failure(image))
            elif failure is not None:
                outcomes.append(failure)
            else:
                outcomes.append([])
                todo.append(_Todo(outcomes, number, image, claimed.top_k))
        return outcomes

    def _done(self, claimed: ClaimedChunk) -> list[Outcome]:
        """What an earlier run with this very model has done of the chunk."""
        if not claimed.progress:
            return []
        ref, outcomes = unpack_outcomes(claimed.progress)
        return outcomes if ref == self._classifier.card.ref else []

    def _finished(self, claimed: ClaimedChunk, outcomes: list[Outcome]) -> FinishedChunk:
        succeeded = sum(not isinstance(outcome, Failure) for outcome in outcomes)
        kept = b"" if succeeded == len(outcomes) else _kept(claimed, outcomes)
        return FinishedChunk(claimed.chunk_ref, succeeded, pack_outcomes(self._classifier.card.ref, outcomes), kept)


def _kept(claimed: ClaimedChunk, outcomes: list[Outcome]) -> bytes:
    """The bytes of images that may succeed when they are tried again."""
    if claimed.upload is None:
        return b""
    images = unpack_upload(claimed.upload, claimed.chunk_ref.items)
    return pack_retained(
        (number, image)
        for number, (image, outcome) in enumerate(zip(images, outcomes, strict=True))
        if isinstance(outcome, Failure) and outcome.code in RETRYABLE and not isinstance(image, ItemCode)
    )
