"""Each input that `make fuzz` has kept, and whether the targets would see a parser that is wrong."""

import json
from collections.abc import AsyncIterator

import pytest

from api.uploads.source import UploadedImage
from fuzz import corpus, targets
from fuzz.seeds import seeds
from fuzz.targets import TARGETS
from tests.support.archives import make_tar, make_zip


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_breaks_its_parser(target: str) -> None:
    inputs = corpus.kept(target)
    assert len(inputs) >= 10
    for data in [*inputs, *seeds(target)]:
        TARGETS[target](data)


async def _forgetful(pieces: AsyncIterator[bytes], *_: object) -> AsyncIterator[UploadedImage]:
    async for piece in pieces:
        yield UploadedImage(None, piece[:100])


async def _crashing(pieces: AsyncIterator[bytes], *_: object) -> AsyncIterator[UploadedImage]:
    async for piece in pieces:
        yield UploadedImage(None, bytes([piece[0], json.loads("{}")["absent"]]))


async def _boundless(pieces: AsyncIterator[bytes], *_: object) -> AsyncIterator[UploadedImage]:
    async for _piece in pieces:
        yield UploadedImage(None, bytes(targets.FOUND_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("reader", "reason"),
    [(_forgetful, "in pieces of"), (_crashing, "absent"), (_boundless, "more bytes than the limits allow")],
)
def test_a_wrong_reader_is_seen(reader: object, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, target, data in (
        ("read_tar", targets.tar, make_tar({"a.png": b"x" * 1000})),
        ("read_zip", targets.zip_archive, make_zip({"a.png": bytes(range(256)) * 9})),
    ):
        monkeypatch.setattr(targets, name, reader)
        with pytest.raises((AssertionError, KeyError), match=reason):
            target(data)
