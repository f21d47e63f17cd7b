"""Results as lines of NDJSON or CSV. Used by `ResultLines`, a chunk at a time."""

import csv
import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from functools import cache
from io import StringIO
from typing import Any, Protocol

import orjson

from jobs.codec import UnfamiliarFlat
from jobs.records import UNFAMILIAR, Failure, ItemState

CSV_COLUMNS = ("index", "name", "status", "class", "confidence", "model", "error_code", "error_detail", "warnings")
# A spreadsheet would run a cell that begins so. Where it separates by semicolons, it ignores the quotes around a cell.
_FORMULA_BEGINNINGS = tuple("=+-@\t\r＝＋－＠")
_FORMULA = re.compile(r"(^|[;\t\r\n])(?=[=+\-@\t\r＝＋－＠])")

Names = Sequence[str | None]
RankedClasses = tuple[Any, ...]
"""Class index, confidence, class index, confidence …, best first."""


class LineFormat(Protocol):
    """One way to write items. Each call writes one chunk, whose first item has the index `first`."""

    head: bytes
    """The bytes before the first line."""

    def results(
        self, first: int, names: Names, items: Sequence[RankedClasses | Failure | None], ref: str, class_names: Any
    ) -> bytes:
        """Items with results. None stands for an item that is filtered out; `ref` is the model's name@version."""

    def same_state(self, first: int, names: Names, state: ItemState, failure: Failure | None) -> bytes:
        """Items without results, which all have the same state."""

    def encode_class_names(self, names: Sequence[str]) -> Any:
        """A model's class names, encoded once for `results`."""


class Ndjson:
    head = b""

    def results(
        self, first: int, names: Names, items: Sequence[RankedClasses | Failure | None], ref: str, class_names: Any
    ) -> bytes:
        lines = list[str]()
        for index, (name, item) in enumerate(zip(names, items, strict=True), first):
            if item is None:
                continue
            json_name = "null" if name is None else orjson.dumps(name).decode()
            if isinstance(item, Failure):
                lines.append(_failed(index, json_name, item))
            else:
                values = list(item)
                values[::2] = [class_names[class_index] for class_index in item[::2]]
                template = _template(len(item) // 2, ref, unfamiliar=isinstance(item, UnfamiliarFlat))
                lines.append(template % (index, json_name, values[0], values[1], *values))
        return "".join(lines).encode()

    def same_state(self, first: int, names: Names, state: ItemState, failure: Failure | None) -> bytes:
        lines = list[str]()
        for index, name in enumerate(names, first):
            json_name = orjson.dumps(name).decode()
            if failure is not None:
                lines.append(_failed(index, json_name, failure))
            else:
                lines.append(f'{{"index":{index},"name":{json_name},"status":"{state}"}}\n')
        return "".join(lines).encode()

    def encode_class_names(self, names: Sequence[str]) -> Any:
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


def _failed(index: int, json_name: str, failure: Failure) -> str:
    return f'{{"index":{index},"name":{json_name},"status":"failed","error":{_error(failure)}}}\n'


@cache
def _error(failure: Failure) -> str:
    return orjson.dumps({"code": failure.code, "detail": failure.detail}).decode()


class Csv:
    def __init__(self, *, bom: bool = False) -> None:
        """`bom`: begin with a byte order mark, by which Excel knows UTF-8."""
        self.head = (BOM_UTF8 if bom else b"") + _csv_rows([CSV_COLUMNS])

    def results(
        self, first: int, names: Names, items: Sequence[RankedClasses | Failure | None], ref: str, class_names: Any
    ) -> bytes:
        rows = list[tuple[object, ...]]()
        for index, (name, item) in enumerate(zip(names, items, strict=True), first):
            if isinstance(item, Failure):
                rows.append((index, _cell(name), "failed", "", "", "", item.code, item.detail, ""))
            elif item is not None:
                confidence = "%.6f" % item[1]  # noqa: UP031 - twice as fast
                warnings = UNFAMILIAR if isinstance(item, UnfamiliarFlat) else ""
                rows.append((index, _cell(name), "succeeded", class_names[item[0]], confidence, ref, "", "", warnings))
        return _csv_rows(rows)

    def same_state(self, first: int, names: Names, state: ItemState, failure: Failure | None) -> bytes:
        code, detail = (failure.code, failure.detail) if failure is not None else ("", "")
        return _csv_rows(
            (index, _cell(name), state, "", "", "", code, detail, "") for index, name in enumerate(names, first)
        )

    def encode_class_names(self, names: Sequence[str]) -> Any:
        return list(map(_cell, names))


def _csv_rows(rows: Any) -> bytes:
    text = StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()


def _cell(name: str | None) -> str:
    if name is None:
        return ""
    if (
        name.startswith(_FORMULA_BEGINNINGS) or ";" in name or not name.isprintable()
    ):  # a tenth of the expression's time
        return _FORMULA.sub(r"\1'", name)
    return name
