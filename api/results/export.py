"""All results of a job as lines, straight from what the store keeps of each chunk.

Going through `JobPresenter.item`, with an await and dicts for each item, takes several times as long.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from api.results.line_formats import Flat, LineFormat, Names
from jobs.codec import unpack_flat
from jobs.records import Failure, ItemState, Job, JobState
from jobs.store.job_hash import StoredChunks, decode_names
from jobs.store.job_reader import JobReader
from jobs.store.model_registry import ModelRegistry

_CHUNKS_A_READ = 16  # about 1,000 items, and 300 kB of lines


class ResultLines:
    """The items of one job in order, chunk by chunk.

    With `wait`, those that are pending are waited for: it is called while the next chunk is not done, and returns
    whether to look again.
    """

    def __init__(self, store: JobReader, models: ModelRegistry, form: LineFormat, status: ItemState | None) -> None:
        self._store = store
        self._models = models
        self._form = form
        self._status = status
        self._classes = dict[str, Any]()

    async def of(self, job: Job, wait: Callable[[], Awaitable[bool]] | None = None) -> AsyncGenerator[bytes]:
        """Some chunks' lines at a time. Ends early where the job is deleted meanwhile."""
        if self._form.head:
            yield self._form.head
        number = first = 0
        while (rows := await self._store.stored_chunks(job.id, number, _CHUNKS_A_READ)) is not None:
            lines, done, items = await self._read(rows, first, to_the_first_pending=wait is not None)
            number, first = number + done, first + items
            if lines:
                yield lines
            if done == len(rows.chunks):
                if rows.more:
                    continue
                if rows.state is not JobState.OPEN or wait is None:
                    return
            assert wait is not None
            if not await wait():
                return

    async def _read(self, rows: StoredChunks, first: int, *, to_the_first_pending: bool) -> tuple[bytes, int, int]:
        """The lines of these chunks, how many chunks that was, and how many items."""
        lines, items, done = list[bytes](), 0, 0
        for packed, packed_names in rows.chunks:
            if packed is None and to_the_first_pending and not rows.state.ended:
                break
            names = decode_names(packed_names)
            lines.append(await self._chunk(rows, first + items, names, packed))
            items += len(names)
            done += 1
        return b"".join(lines), done, items

    async def _chunk(self, rows: StoredChunks, first: int, names: Names, packed: bytes | None) -> bytes:
        if packed is None:
            failure = None if rows.failure_code is None else Failure(rows.failure_code)
            state = _state_without_result(rows.state, failure)
            wanted = state is not ItemState.PENDING if self._status is None else state is self._status
            return self._form.alike(first, names, state, failure) if wanted else b""
        ref, items = unpack_flat(packed)
        if ref not in self._classes:
            if not _any(items):
                return self._form.classified(first, names, self._wanted(items), ref, [])
            self._classes[ref] = self._form.classes((await self._models.card(ref)).classes)
        return self._form.classified(first, names, self._wanted(items), ref, self._classes[ref])

    def _wanted(self, items: Sequence[Flat | Failure]) -> Sequence[Flat | Failure | None]:
        if self._status is None:
            return items
        kinds = {ItemState.FAILED: True, ItemState.SUCCEEDED: False}
        wanted = kinds.get(self._status)
        return [item if isinstance(item, Failure) is wanted else None for item in items]


def _any(items: Sequence[Flat | Failure]) -> bool:
    return any(not isinstance(item, Failure) for item in items)


def _state_without_result(state: JobState, failure: Failure | None) -> ItemState:
    if failure is not None:
        return ItemState.FAILED
    return ItemState.CANCELED if state is JobState.CANCELED else ItemState.PENDING
