"""Runs one lease: gives every item of its chunks an outcome."""

import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from jobs.codec import pack_outcomes, pack_retained, unpack_outcomes, unpack_upload
from jobs.item_codes import RETRYABLE, ItemCode
from jobs.metrics.process_metrics import ITEMS
from jobs.records import Failure, Outcome
from jobs.store.for_workers.leases import ClaimedChunk, FinishedChunk, Lease
from worker.classify.slice_size import SliceSize
from worker.inference.classifier import Classifier

UPLOAD_LOST = Failure(ItemCode.UPLOAD_LOST)
OnItemStart = Callable[[int, bytes], None]
BetweenSlices = Callable[[], bool]
INTERACTIVE_SLICE_SECONDS = 0.25  # of an interactive lease, between two looks at whether other work of the lane waits


class Unfinished(Exception):
    """Chunks of a lease are left: a run has reached its time limit, others wait, or their images are slow."""

    def __init__(self, finished: list[FinishedChunk], progress: bytes, *, run_alone: bool) -> None:
        """`progress` holds packed outcomes of the first images of the chunk that is left, if that is one."""
        super().__init__()
        self.finished = finished
        self.progress = progress
        self.run_alone = run_alone
        """Whether the chunks that are left are to run one by one, image by image."""


class _Chunk:
    """A chunk under the lease, and what is known of it."""

    def __init__(self, claimed: ClaimedChunk) -> None:
        self.claimed = claimed
        self.outcomes = list[Outcome]()
        """Of its images; with a placeholder for each that is still to be classified."""
        self.first_pending = 0
        self.reached: int | None = None
        """The first image that was left, None if none was."""


class _PendingItem(NamedTuple):
    """An image that is still to be classified."""

    chunk: _Chunk
    number: int
    image: memoryview
    top_k: int


class LeaseRunner:
    def __init__(
        self,
        classifier: Classifier,
        claim_size: SliceSize,
        slice_size: SliceSize,
        *,
        crash_tries_max: int,
        losses_max: int,
    ) -> None:
        """`claim_size` and `slice_size` get the measured times of the interactive and of the bulk lane."""
        self._classifier = classifier
        self._claim_size = claim_size
        self._slice_size = slice_size
        self._crash_tries_max = crash_tries_max
        self._losses_max = losses_max
        self._results = Counter[str]()
        """Of the images of one lease, while it runs."""

    def run(
        self, lease: Lease, on_item_start: OnItemStart, between_slices: BetweenSlices, until: float
    ) -> list[FinishedChunk]:
        """Classify all images of a lease, and count their results; see `_run`."""
        try:
            return self._run(lease, on_item_start, between_slices, until)
        finally:
            for result, count in self._results.items():
                ITEMS.add(self._classifier.card.name, result, amount=count)
            self._results.clear()

    def _run(
        self, lease: Lease, on_item_start: OnItemStart, between_slices: BetweenSlices, until: float
    ) -> list[FinishedChunk]:
        """Classify all images of a lease: together in one batch, a suspect's one by one, a bulk lease's in slices.

        `on_item_start` is called before each image of a suspect lease, with the image's number and the packed outcomes
        of the images before it: if that image kills the process, the store knows which one it was and what is done.
        `between_slices` is called before each slice and each image of a suspect lease, except the first. If it returns
        True, others wait: the lease ends as soon as nothing that was done is lost. Chunks with slow images are left,
        unless they are suspects.

        Raises:
            Unfinished: chunks are left: images at `until`, a time of the monotonic clock, or slow ones. The first image
                is always tried.
        """
        chunks = [_Chunk(claimed) for claimed in lease.chunks]
        pending = [item for chunk in chunks for item in self._pending_items(chunk)]
        started = others_wait = False
        while pending:
            item = pending[0]
            if started:
                others_wait = between_slices() or others_wait
                if time.monotonic() > until:
                    raise self._unfinished(chunks, pending, run_alone=not lease.bulk or len(_left(chunks, pending)) > 1)
                if others_wait and _may_stop(chunks, pending):
                    raise self._unfinished(chunks, pending, run_alone=lease.suspect)
            if lease.suspect:
                on_item_start(item.number, self._packed(item.chunk, item.number))
            pending = self._classify_slice(lease, pending, until)
            started = True
        if any(chunk.reached is not None for chunk in chunks):
            raise self._unfinished(chunks, pending, run_alone=True)
        return [self._finished(chunk) for chunk in chunks]

    def _classify_slice(self, lease: Lease, pending: list[_PendingItem], until: float) -> list[_PendingItem]:
        """Returns the images that are still pending."""
        if lease.suspect:
            self._classify(pending[:1], until, slow_too=True)
            return pending[1:]
        started, size = time.monotonic(), self._claim_size
        batch, until = pending, min(until, started + INTERACTIVE_SLICE_SECONDS)
        if lease.bulk:
            size = self._slice_size
            batch, until = pending[: size.items()], min(until, started + size.seconds_max)
        left = self._classify(batch, until, slow_too=False)
        size.measured(len(batch) - len(left), time.monotonic() - started)
        return [item for item in (*left, *pending[len(batch) :]) if item.chunk.reached is None]

    def _classify(self, batch: list[_PendingItem], until: float, *, slow_too: bool) -> list[_PendingItem]:
        """Returns the images that there was no time for."""
        images, top_ks = [item.image for item in batch], [item.top_k for item in batch]
        classify = self._classifier.classify if slow_too else self._classifier.classify_quick
        results = classify(images, top_ks, until=until)
        for item, outcome in zip(batch, results, strict=False):
            if outcome is not None:
                item.chunk.outcomes[item.number] = outcome
            elif item.chunk.reached is None:
                item.chunk.reached = item.number
        return batch[len(results) :]

    def _unfinished(self, chunks: list[_Chunk], pending: list[_PendingItem], *, run_alone: bool) -> Unfinished:
        left = _left(chunks, pending)
        progress = self._packed(left[0], left[0].reached or 0) if len(left) == 1 else b""
        done = [self._finished(chunk) for chunk in chunks if chunk.reached is None]
        return Unfinished(done, progress, run_alone=run_alone)

    def _packed(self, chunk: _Chunk, items: int) -> bytes:
        return pack_outcomes(self._classifier.card.ref, chunk.outcomes[:items])

    def _pending_items(self, chunk: _Chunk) -> list[_PendingItem]:
        """The chunk's images that are to be classified; the outcomes of the others are known without decoding."""
        claimed, pending = chunk.claimed, list[_PendingItem]()
        chunk.outcomes = self._earlier_outcomes(claimed)
        if claimed.upload is None:
            rest = range(len(chunk.outcomes), claimed.chunk_ref.items)
            chunk.outcomes += [self._failure(claimed, at) or UPLOAD_LOST for at in rest]
            return pending
        try:
            images = unpack_upload(claimed.upload, claimed.chunk_ref.items)
        except (ValueError, struct.error):  # another release wrote it, or it is damaged: the chunk must end
            chunk.outcomes = [UPLOAD_LOST] * claimed.chunk_ref.items
            return pending
        for number, image in enumerate(images[len(chunk.outcomes) :], len(chunk.outcomes)):
            failure = self._failure(claimed, number)
            if isinstance(image, ItemCode):
                chunk.outcomes.append(Failure(image))
            elif failure is not None:
                chunk.outcomes.append(failure)
            else:
                chunk.outcomes.append([])
                pending.append(_PendingItem(chunk, number, image, claimed.top_k))
        chunk.first_pending = pending[0].number if pending else 0
        return pending

    def _failure(self, claimed: ClaimedChunk, number: int) -> Failure | None:
        return claimed.failure_counts.failure_of(
            number, crash_tries_max=self._crash_tries_max, lost_leases_max=self._losses_max
        )

    def _earlier_outcomes(self, claimed: ClaimedChunk) -> list[Outcome]:
        """The outcomes of the chunk's first images from an earlier run, if that ran this version of the model."""
        if not claimed.progress:
            return []
        try:
            ref, outcomes = unpack_outcomes(claimed.progress)
        except (ValueError, IndexError, struct.error):  # of another release: the images before run again
            return []
        fits = ref == self._classifier.card.ref and len(outcomes) <= claimed.chunk_ref.items
        return outcomes if fits else []

    def _finished(self, chunk: _Chunk) -> FinishedChunk:
        claimed, outcomes = chunk.claimed, chunk.outcomes
        succeeded = sum(not isinstance(outcome, Failure) for outcome in outcomes)
        if ITEMS.is_open:
            self._results["succeeded"] += succeeded
            self._results.update(outcome.code for outcome in outcomes if isinstance(outcome, Failure))
        retained = b"" if succeeded == len(outcomes) else _retained(claimed, outcomes)
        packed = pack_outcomes(self._classifier.card.ref, outcomes)
        return FinishedChunk(claimed.chunk_ref, succeeded, packed, retained, claimed.file)


def _left(chunks: list[_Chunk], pending: list[_PendingItem]) -> list[_Chunk]:
    """The chunks with images that are still to be classified."""
    for item in reversed(pending):
        item.chunk.reached = item.number
    return [chunk for chunk in chunks if chunk.reached is not None]


def _may_stop(chunks: list[_Chunk], pending: list[_PendingItem]) -> bool:
    """Whether all that is done can be kept: the store keeps the progress of one chunk, and of a lease's only one."""
    if any(chunk.reached is not None for chunk in chunks):
        return False  # its slow images are to run alone, and not those that only wait
    return pending[0].number == pending[0].chunk.first_pending or pending[-1].chunk is pending[0].chunk


def _retained(claimed: ClaimedChunk, outcomes: list[Outcome]) -> bytes:
    """The packed images whose failure may be retried."""
    if claimed.upload is None or all(outcome == UPLOAD_LOST for outcome in outcomes):
        return b""
    images = unpack_upload(claimed.upload, claimed.chunk_ref.items)
    return pack_retained(
        (number, image)
        for number, (image, outcome) in enumerate(zip(images, outcomes, strict=True))
        if isinstance(outcome, Failure) and outcome.code in RETRYABLE and not isinstance(image, ItemCode)
    )
