"""Runs one lease: gives every item of its chunks an outcome."""

import time
from collections.abc import Callable
from typing import NamedTuple

from jobs.codec import pack_outcomes, pack_retained, unpack_outcomes, unpack_upload
from jobs.item_codes import RETRYABLE, ItemCode
from jobs.records import Failure, Outcome
from jobs.store.for_workers.leases import ClaimedChunk, FinishedChunk, Lease
from worker.classify.slice_size import SliceSize
from worker.inference.classifier import Classifier

OnItemStart = Callable[[int, bytes], None]
BetweenSlices = Callable[[], None]


class OutOfTime(Exception):
    """The time limit of a run was reached before its last image.

    `progress` holds the packed outcomes of the chunk's images before the first one that is left.
    """

    def __init__(self, progress: bytes) -> None:
        super().__init__()
        self.progress = progress


class _PendingItem(NamedTuple):
    """An image that is still to be classified."""

    outcomes: list[Outcome]  # of its chunk; has a placeholder at `number` until the image is classified
    number: int
    image: memoryview
    top_k: int


class LeaseRunner:
    def __init__(self, classifier: Classifier, slice_size: SliceSize, *, crash_tries_max: int, losses_max: int) -> None:
        self._classifier = classifier
        self._slice_size = slice_size
        self._crash_tries_max = crash_tries_max
        self._losses_max = losses_max

    def run(
        self, lease: Lease, on_item_start: OnItemStart, between_slices: BetweenSlices, until: float
    ) -> list[FinishedChunk]:
        """Classify all images of a lease: together in one batch, a suspect's one by one, a bulk lease's in slices.

        `on_item_start` is called before each image of a suspect lease, with the image's number and the packed outcomes
        of the images before it: if that image kills the process, the store knows which one it was and what is done.
        `between_slices` is called before each slice of a bulk lease except the first.

        Raises:
            OutOfTime: images were left at `until`, a time of the monotonic clock. The first image is always tried.
        """
        pending = list[_PendingItem]()
        chunks = [(claimed, self._known_outcomes(claimed, pending)) for claimed in lease.chunks]
        done = 0
        while done < len(pending):
            item = pending[done]
            if lease.suspect:
                on_item_start(item.number, self._progress(item))
            if done and time.monotonic() > until:
                raise OutOfTime(self._progress(item))
            if done and lease.bulk:
                between_slices()
            done += self._classify_slice(lease, pending[done:], until)
        return [self._finished(claimed, outcomes) for claimed, outcomes in chunks]

    def _classify_slice(self, lease: Lease, pending: list[_PendingItem], until: float) -> int:
        if not lease.bulk:
            return self._classify(pending[:1] if lease.suspect else pending, until)
        started = time.monotonic()
        done = self._classify(pending[: self._slice_size.items()], min(until, started + self._slice_size.seconds))
        self._slice_size.measured(done, time.monotonic() - started)
        return done

    def _classify(self, batch: list[_PendingItem], until: float) -> int:
        images, top_ks = [item.image for item in batch], [item.top_k for item in batch]
        results = self._classifier.classify(images, top_ks, until=until)
        for item, outcome in zip(batch, results, strict=False):
            item.outcomes[item.number] = outcome
        return len(results)

    def _progress(self, reached: _PendingItem) -> bytes:
        return pack_outcomes(self._classifier.card.ref, reached.outcomes[: reached.number])

    def _known_outcomes(self, claimed: ClaimedChunk, pending: list[_PendingItem]) -> list[Outcome]:
        """The chunk's outcomes that are known without decoding an image; the other images are added to `pending`."""
        if claimed.upload is None:
            return [Failure(ItemCode.UPLOAD_LOST)] * claimed.chunk_ref.items
        outcomes = self._earlier_outcomes(claimed)
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
                pending.append(_PendingItem(outcomes, number, image, claimed.top_k))
        return outcomes

    def _earlier_outcomes(self, claimed: ClaimedChunk) -> list[Outcome]:
        """The outcomes of the chunk's first images from an earlier run, if that ran this version of the model."""
        if not claimed.progress:
            return []
        ref, outcomes = unpack_outcomes(claimed.progress)
        return outcomes if ref == self._classifier.card.ref else []

    def _finished(self, claimed: ClaimedChunk, outcomes: list[Outcome]) -> FinishedChunk:
        succeeded = sum(not isinstance(outcome, Failure) for outcome in outcomes)
        retained = b"" if succeeded == len(outcomes) else _retained(claimed, outcomes)
        return FinishedChunk(claimed.chunk_ref, succeeded, pack_outcomes(self._classifier.card.ref, outcomes), retained)


def _retained(claimed: ClaimedChunk, outcomes: list[Outcome]) -> bytes:
    """The packed images whose failure may be retried."""
    if claimed.upload is None:
        return b""
    images = unpack_upload(claimed.upload, claimed.chunk_ref.items)
    return pack_retained(
        (number, image)
        for number, (image, outcome) in enumerate(zip(images, outcomes, strict=True))
        if isinstance(outcome, Failure) and outcome.code in RETRYABLE and not isinstance(image, ItemCode)
    )
