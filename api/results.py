"""All results of a job as lines, NDJSON or CSV, straight from what the store keeps of each chunk.

Going through `Views.item`, with an await and dicts for each item, takes several times as long.
"""

import csv
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import cache
from io import StringIO
from typing import Any, Protocol

import orjson

from jobs.errors import ITEM_DETAIL
from jobs.records import UNFAMILIAR, Failure, ItemState, Job, JobState, UnfamiliarFlat, unpack_flat
from jobs.registry import ModelRegistry
from jobs.rows import Rows, names_from
from jobs.store import JobStore

CSV_COLUMNS = ("index", "name", "status", "class", "confidence", "model", "error_code", "error_detail", "warnings")
_CHUNKS_A_READ = 16  # about 1,000 items, and 300 kB of lines
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run

Names = Sequence[str | None]
Flat = tuple[Any, ...]
"""Class, confidence, class, confidence …, best first."""


class Form(Protocol):
    """One way to write items. Each method writes one chunk, whose first item has the index `first`."""

    head: bytes

    def classified(
        self, first: int, names: Names, items: Sequence[Flat | Failure | None], ref: str, classes: Any
    ) -> bytes:
        """Items that have results; None stands for one that is not wanted. `classes` is what `classes` made."""

    def alike(self, first: int, names: Names, state: ItemState, failure: Failure | None) -> bytes:
        """Items that all have the same state, and no result."""

    def classes(self, names: Sequence[str]) -> Any:
        """The names of a model's classes, made ready once."""


class Ndjson:
    head = b""

    def classified(
        self, first: int, names: Names, items: Sequence[Flat | Failure | None], ref: str, classes: Any
    ) -> bytes:
        lines = list[str]()
        for index, (name, item) in enumerate(zip(names, items, strict=True), first):
            if item is None:
                continue
            label = "null" if name is None else orjson.dumps(name).decode()
            if isinstance(item, Failure):
                lines.append(_failed(index, label, item))
            else:
                flat = list(item)
                flat[::2] = [classes[at] for at in item[::2]]
                template = _template(len(item) // 2, ref, unfamiliar=isinstance(item, UnfamiliarFlat))
                lines.append(template % (index, label, flat[0], flat[1], *flat))
        return "".join(lines).encode()

    def alike(self, first: int, names: Names, state: ItemState, failure: Failure | None) -> bytes:
        lines = list[str]()
        for index, name in enumerate(names, first):
            label = orjson.dumps(name).decode()
            if failure is not None:
                lines.append(_failed(index, label, failure))
            else:
                lines.append(f'{{"index":{index},"name":{label},"status":"{state}"}}\n')
        return "".join(lines).encode()

    def classes(self, names: Sequence[str]) -> Any:
        return [orjson.dumps(name).decode() for name in names]


@cache
def _template(top_k: int, ref: str, *, unfamiliar: bool) -> str:
    pairs = ",".join(['{"class":%s,"confidence":%.6f}'] * top_k)
    model = orjson.dumps(ref).decode().replace("%", "%%")
    warnings = f',"warnings":["{UNFAMILIAR}"]' if unfamiliar else ""
    return (
        '{"index":%d,"name":%s,"status":"succeeded","class":%s,"confidence":%.6f,'
        f'"model":{model},"top_k":[{pairs}]{warnings}}}\n'
    )


def _failed(index: int, label: str, failure: Failure) -> str:
    return f'{{"index":{index},"name":{label},"status":"failed","error":{_problem(failure)}}}\n'


@cache
def _problem(failure: Failure) -> str:
    return orjson.dumps({"code": failure.code, "detail": failure.detail}).decode()


class Csv:
    head = (",".join(CSV_COLUMNS) + "\r\n").encode()

    def classified(
        self, first: int, names: Names, items: Sequence[Flat | Failure | None], ref: str, classes: Any
    ) -> bytes:
        rows = list[tuple[object, ...]]()
        for index, (name, item) in enumerate(zip(names, items, strict=True), first):
            if isinstance(item, Failure):
                rows.append((index, _cell(name), "failed", "", "", "", item.code, ITEM_DETAIL[item.code], ""))
            elif item is not None:
                confidence = "%.6f" % item[1]  # noqa: UP031 - twice as fast
                warnings = UNFAMILIAR if isinstance(item, UnfamiliarFlat) else ""
                rows.append((index, _cell(name), "succeeded", classes[item[0]], confidence, ref, "", "", warnings))
        return _table(rows)

    def alike(self, first: int, names: Names, state: ItemState, failure: Failure | None) -> bytes:
        code, detail = (failure.code, failure.detail) if failure is not None else ("", "")
        return _table((at, _cell(name), state, "", "", "", code, detail, "") for at, name in enumerate(names, first))

    def classes(self, names: Sequence[str]) -> Any:
        return list(names)


def _table(rows: Any) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(name: str | None) -> str:
    if name is None:
        return ""
    return f"'{name}" if name.startswith(_FORMULA) else name


class ResultLines:
    """The items of one job in order, chunk by chunk.

    With `wait`, those that are pending are waited for: it is called while the next chunk is not done, and returns
    whether to look again.
    """

    def __init__(self, store: JobStore, models: ModelRegistry, form: Form, status: ItemState | None) -> None:
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
        while (rows := await self._store.rows(job.id, number, _CHUNKS_A_READ)) is not None:
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

    async def _read(self, rows: Rows, first: int, *, to_the_first_pending: bool) -> tuple[bytes, int, int]:
        """The lines of these chunks, how many chunks that was, and how many items."""
        lines, items, done = list[bytes](), 0, 0
        for packed, packed_names in rows.chunks:
            if packed is None and to_the_first_pending and not rows.state.ended:
                break
            names = names_from(packed_names)
            lines.append(await self._chunk(rows, first + items, names, packed))
            items += len(names)
            done += 1
        return b"".join(lines), done, items

    async def _chunk(self, rows: Rows, first: int, names: Names, packed: bytes | None) -> bytes:
        if packed is None:
            failure = None if rows.gave_up is None else Failure(rows.gave_up)
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
