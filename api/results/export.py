"""All results of a job as lines, converted chunk by chunk from the packed form in the store.

`JobPresenter.item`, with an await and dicts for each item, would take several times as long.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from api.errors import StreamInterrupted
from api.results.line_formats import LineFormat, Names, RankedClasses
from jobs.codec import unpack_flat
from jobs.errors import JobExpired
from jobs.records import Failure, ItemState, Job, JobState
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.model_registry import ModelRegistry
from jobs.store.job_hash import StoredChunks, decode_names

_CHUNKS_A_READ = 16  # about 1,000 items, and 300 kB of lines


class ResultLines:
    """The items of one job in order, as lines of one format; with `status`, only the items in this state."""

    def __init__(
        self, reader: JobReader, model_registry: ModelRegistry, line_format: LineFormat, status: ItemState | None
    ) -> None:
        self._reader = reader
        self._model_registry = model_registry
        self._format = line_format
        self._status = status
        self._class_names = dict[str, Any]()

    async def of(
        self, job: Job, wait_for_change: Callable[[], Awaitable[bool]] | None = None, *, start: int = 0
    ) -> AsyncGenerator[bytes]:
        """The lines of several chunks at a time, from the item with the index `start` on.

        Without `wait_for_change`, the items as they are now. With it, each item once it has ended: it is called while
        the next chunk is pending, and returns whether to read again.

        Raises:
            JobExpired: the job was deleted or has expired meanwhile.
            StreamInterrupted: there are more items, and `wait_for_change` says not to wait for them.
        """
        # The head waits for the first line, so that a stream without one can still be answered with a problem.
        head = b"" if start else self._format.head
        chunk = item = 0
        while (stored := await self._reader.stored_chunks(job.id, chunk, _CHUNKS_A_READ)) is not None:
            following = wait_for_change is not None
            lines, chunks, items = await self._lines(stored, item, start, stop_at_pending=following)
            chunk, item = chunk + chunks, item + items
            if lines:
                yield head + lines
                head = b""
            if chunks == len(stored.chunks):
                if stored.more:
                    continue
                if stored.state is not JobState.OPEN or wait_for_change is None:
                    if head:
                        yield head
                    return
            assert wait_for_change is not None
            if not await wait_for_change():
                raise StreamInterrupted
        raise JobExpired

    async def _lines(
        self, stored: StoredChunks, first: int, start: int, *, stop_at_pending: bool
    ) -> tuple[bytes, int, int]:
        """The lines of these chunks from item `start` on, the number of chunks passed, and the number of items."""
        lines, items, chunks = list[bytes](), 0, 0
        for packed, packed_names in stored.chunks:
            names = decode_names(packed_names)
            skipped = max(0, start - first - items)
            if skipped < len(names):
                if packed is None and stop_at_pending and not stored.state.ended:
                    break
                lines.append(await self._chunk(stored, first + items, names, packed, skipped))
            items += len(names)
            chunks += 1
        return b"".join(lines), chunks, items

    async def _chunk(self, stored: StoredChunks, first: int, names: Names, packed: bytes | None, skipped: int) -> bytes:
        """The lines of a chunk without its first `skipped` items."""
        first, names = first + skipped, names[skipped:]
        if packed is None:
            failure = None if stored.failure_code is None else Failure(stored.failure_code)
            state = _state_without_result(stored.state, failure)
            # Without a filter, pending items have no line: a line is final.
            selected = state is not ItemState.PENDING if self._status is None else state is self._status
            return self._format.same_state(first, names, state, failure) if selected else b""
        ref, all_items = unpack_flat(packed)
        items = all_items[skipped:]
        if ref not in self._class_names:
            if all(isinstance(item, Failure) for item in items):  # the store may not know the model
                return self._format.results(first, names, self._select(items), ref, [])
            self._class_names[ref] = self._format.encode_class_names((await self._model_registry.card(ref)).classes)
        return self._format.results(first, names, self._select(items), ref, self._class_names[ref])

    def _select(self, items: Sequence[RankedClasses | Failure]) -> Sequence[RankedClasses | Failure | None]:
        """Each item in the requested state, None in place of the others."""
        if self._status is None:
            return items
        failed = {ItemState.FAILED: True, ItemState.SUCCEEDED: False}.get(self._status)
        return [item if isinstance(item, Failure) is failed else None for item in items]


def _state_without_result(state: JobState, failure: Failure | None) -> ItemState:
    if failure is not None:
        return ItemState.FAILED
    return ItemState.CANCELED if state is JobState.CANCELED else ItemState.PENDING
