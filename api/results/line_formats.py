"""All results of a job as lines, NDJSON or CSV, straight from what the store keeps of each chunk.

Going through `JobPresenter.item`, with an await and dicts for each item, takes several times as long.
"""

import csv
from collections.abc import Sequence
from functools import cache
from io import StringIO
from typing import Any, Protocol

import orjson

from jobs.codec import UnfamiliarFlat
from jobs.item_codes import ITEM_DETAIL
from jobs.records import UNFAMILIAR, Failure, ItemState

CSV_COLUMNS = ("index", "name", "status", "class", "confidence", "model", "error_code", "error_detail", "warnings")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run

Names = Sequence[str | None]
Flat = tuple[Any, ...]
"""Class, confidence, class, confidence …, best first."""


class LineFormat(Protocol):
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
