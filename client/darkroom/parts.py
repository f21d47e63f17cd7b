"""Cuts a stream of images into request bodies: tar for bytes, JSON for URLs, each small enough to be sent again."""

import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice

from darkroom.images import Image, Loaded, Source, Unreadable, sources

SUBMIT_IMAGES_MAX, SUBMIT_BYTES_MAX = 64, 4 << 20
PART_IMAGES_MAX, PART_BYTES_MAX = 2048, 8 << 20
PART_URLS_MAX = 10_000
_NAME_CHARACTERS_MAX = 255  # of an item, at the server
_NAME_HEAD, _NAME_TAIL = 120, 120
_SKIPPED = re.compile(r"(^|/)(\._|__MACOSX/|\.DS_Store$|Thumbs\.db$|desktop\.ini$)")  # by the server, without an item
_PLAIN = re.compile(r"[\w-][\w .()-]*(/[\w-][\w .()-]*)*")

_HEADER = tarfile.TarInfo().tobuf(tarfile.GNU_FORMAT)  # of an empty file without a name
_OWNER, _TIME, _REST = _HEADER[100:124], _HEADER[135:148], _HEADER[156:]  # between them the size and the checksum
_CHECKSUM = sum(_OWNER + _TIME + b" " * 8 + _REST)


@dataclass(slots=True)
class Part:
    media_type: str
    body: bytes
    images: int = 0
    stamp: str = ""
    """Another one if the images are others."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """By place in this part, why an image could not be read."""
    names: dict[int, str] = field(default_factory=dict)
    """By place, names that are sent in another form."""
    expands: bool = False
    """Whether an S3 prefix may become any number of items."""

    def note_name(self, name: str, sent: str) -> None:
        if sent != name:
            self.names[self.images] = name


class Parts:
    """The parts of one submit, in order. The same images make the same parts."""

    def __init__(self, images: Iterable[Image]) -> None:
        self._sources: Iterator[Source] = sources(images)
        self._next: Loaded | None = None

    def at_end(self) -> bool:
        return self._peek() is None

    def skip(self, count: int) -> Part:
        """Pass over images that were sent before. Returns their part, without a body."""
        digest, part, taken = blake2b(digest_size=16), Part("", b""), dict[str, int]()
        for source in islice(self._sources, count):
            digest.update(source.stamp())
            if not isinstance(source.image, str):
                part.note_name(source.name, _wire_name(source.name, taken))
            part.images += 1
        part.stamp = digest.hexdigest()
        return part

    def take(self, images_max: int | None = None, bytes_max: int | None = None) -> Part:
        """The next images as a part, at least one of them. Must not be called at the end."""
        found = self._peek()
        assert found is not None
        digest, by_url = blake2b(digest_size=16), isinstance(found.data, str)
        images_max = images_max or (PART_URLS_MAX if by_url else PART_IMAGES_MAX)
        bytes_max = bytes_max or PART_BYTES_MAX
        part = Part("application/json" if by_url else "application/x-tar", b"")
        urls, tar, tar_bytes, taken = list[str](), list[bytes](), 0, dict[str, int]()
        while found is not None and part.images < images_max:
            name, data, stamp = found
            size = 0 if isinstance(data, Unreadable) else len(data)
            if isinstance(data, str) is not by_url or (tar and tar_bytes + size > bytes_max):
                break
            self._next = None
            digest.update(stamp)
            if isinstance(data, str):
                urls.append(data)
                part.expands |= data.startswith("s3:") and data.endswith("/")
            else:
                sent = _wire_name(name, taken)
                if isinstance(data, Unreadable):
                    part.unreadable[part.images] = str(data)
                    member = [_fifo(sent)]
                else:
                    member = [_header(sent, size), data, bytes(-size % tarfile.BLOCKSIZE)]
                tar += member
                tar_bytes += sum(map(len, member))
                part.note_name(name, sent)
            part.images += 1
            found = self._peek() if part.images < images_max else None
        part.body = json.dumps({"urls": urls}).encode() if by_url else b"".join([*tar, bytes(2 * tarfile.BLOCKSIZE)])
        part.stamp = digest.hexdigest()
        return part

    def _peek(self) -> Loaded | None:
        if self._next is None and (source := next(self._sources, None)) is not None:
            self._next = source.load()
        return self._next


def _header(name: str, size: int) -> bytes:
    """A file's, as `tarfile` makes it, which takes three times as long as to read a small picture."""
    field = name.encode("utf-8", "surrogateescape")
    if len(field) > tarfile.LENGTH_NAME:
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    digits = b"%011o" % size
    checksum = _CHECKSUM + sum(field) + sum(digits)
    return b"%b%b%b%b%06o\0 %b" % (field.ljust(100, b"\0"), _OWNER, digits, _TIME, checksum, _REST)


def _fifo(name: str) -> bytes:
    """For a file that cannot be read: it fails in its place and keeps the others' indices."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.FIFOTYPE
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _wire_name(name: str, taken: dict[str, int]) -> str:
    """A name that the server takes as it is: printable, relative, not skipped, not too long, and not taken before."""
    if _PLAIN.fullmatch(name) and len(name) <= _NAME_CHARACTERS_MAX and name not in taken and not _SKIPPED.search(name):
        taken[name] = 1  # a short cut for most
        return name
    words = "".join(it if it.isprintable() else "�" for it in name.replace("\\", "/")).split("/")
    sent = "/".join("_" if word == ".." else word for word in words if word not in ("", ".")) or "_"
    if sent[1:2] == ":":
        sent = sent[0] + sent[2:]
    if _SKIPPED.search(sent):
        sent = _SKIPPED.sub(r"\1_\2", sent)
    if len(sent) > _NAME_CHARACTERS_MAX:
        sent = f"{sent[:_NAME_HEAD]}…{sent[-_NAME_TAIL:]}"
    unique = sent
    while unique in taken:
        taken[sent] += 1
        unique = f"{sent} ({taken[sent]})"
    taken[unique] = 1
    return unique
