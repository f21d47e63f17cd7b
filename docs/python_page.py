"""Writes docs/reference/python.md from the docstrings of the Python client: `python -m docs.python_page`."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import darkroom
from darkroom import Darkroom, errors, records
from darkroom._sync.job import Job

PAGE = Path(__file__).parent / "reference/python.md"
HEAD = """# The Python client

`make run` installs it in `.venv`; elsewhere `pip install` the folder `client/`. This page is written from the client's
docstrings (`python -m docs.python_page`).

```python
from darkroom import Darkroom

with Darkroom("http://127.0.0.1:8000") as darkroom:
    print(darkroom.classify("tests/data/0007-shirt.png").class_name)
    for item in darkroom.classify_many(["tests/data/0018-bag.png", ("notes", b"no picture")]):
        print(item.name, item.class_name, item.error and item.error.code)
    print(darkroom.submit("tests/data").wait().counts.succeeded)
```

```text
Shirt
tests/data/0018-bag.png Bag None
notes None not_an_image
30
```

An image is a path, a URL, bytes, a binary file, a Pillow image, a numpy array of uint8 (H×W, H×W×3 or H×W×4), or a pair
of a name and one of these. A folder stands for the pictures below it.

`AsyncDarkroom` is the same, awaited; it reads the images in a thread:

```python
import asyncio

from darkroom import AsyncDarkroom


async def main():
    async with AsyncDarkroom("http://127.0.0.1:8000") as darkroom:
        async for item in darkroom.classify_many("tests/data"):
            if item.class_name == "Bag":
                return item.name


print(asyncio.run(main()))
```

```text
00…-bag.png
```

A lost connection, 429, 502 to 504 and a request that still runs are tried again for `retry_seconds`, as `Retry-After`
says. Each POST has an `Idempotency-Key`, so that none is done twice. Results and progress reconnect.
"""


def page() -> str:
    parts = [
        _class(Darkroom, "Darkroom"),
        _class(Job, "Job"),
        *(_class(record, record.__name__) for record in (records.Item, records.ItemError, records.Ranked)),
        *(_class(record, record.__name__) for record in (records.Counts, records.Model, records.Server)),
        _errors(),
    ]
    return HEAD + "".join(parts)


def _class(kind: type, name: str) -> str:
    lines = [f"\n## {name}\n"]
    if dataclasses.is_dataclass(kind):
        fields = [field for field in dataclasses.fields(kind) if not field.name.startswith("_")]
        lines += [_text(kind)] if (kind.__doc__ or "").find(f"{name}(") != 0 else []
        lines += ["", ", ".join(f"`{field.name}: {_type(field.type)}`" for field in fields) + "."]
    else:
        lines += [f"`{name}{_signature(kind)}`", "", _text(kind)]
    methods = [
        f"- `{key}{_signature(value)}` {_text(value)}".rstrip()
        for key, value in vars(kind).items()
        if inspect.isfunction(value) and key[0] != "_" and key not in {"of", "to_job", "lines"}
    ]
    return "\n".join([*lines, *(["", *methods] if methods else [])]).replace("\n\n\n", "\n\n") + "\n"


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [it for it in signature.parameters.values() if it.name != "self"]
    shown = signature.replace(parameters=parameters)
    if shown.return_annotation in (None, "None"):
        shown = shown.replace(return_annotation=inspect.Signature.empty)
    return _type(str(shown).replace("'", ""))


def _type(text: Any) -> str:
    """Without the modules of names."""
    plain = text if isinstance(text, str) else getattr(text, "__name__", None) if isinstance(text, type) else str(text)
    return re.sub(r"\b(?:\w+\.)+(?=[A-Za-z])", "", str(plain)).replace("|", "or")


def _text(thing: Any) -> str:
    """The docstring as one paragraph."""
    found = " ".join((inspect.getdoc(thing) or "").split())
    return found.replace("Raises: ", "Raises ")


def _errors() -> str:
    kinds = (errors.DarkroomError, errors.ApiError, errors.Unreachable, errors.WaitTimeout, errors.ItemFailed)
    rows = [f"- `{kind.__name__}`: {_text(kind)}" for kind in kinds]
    classes = ", ".join(f"`{kind.__name__}`" for kind in errors.BY_CODE.values())
    return (
        "\n## Errors\n\n" + "\n".join(rows) + "\n\n"
        f"Below `ApiError`, one for each code ([what to do](errors.md#refused-requests)): {classes}.\n"
    )


if __name__ == "__main__":
    assert set(darkroom.__all__) >= {"Darkroom", "AsyncDarkroom"}
    PAGE.write_text(page())
