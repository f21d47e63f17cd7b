"""Images as callers have them: paths, folders, URLs, bytes, files, arrays, Pillow images."""

import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

Image: TypeAlias = Any
"""A path, a URL, bytes, a binary file, a Pillow image, a numpy array of uint8 (H×W, H×W×3 or H×W×4), or a pair of a
name and one of these. A folder is the pictures below it."""

FILE_BYTES_MAX = 64 << 20
"""Far above what servers accept as one image; a larger file is not read."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".heic", ".heif", ".tif", ".tiff")
_TOO_LARGE = f"The file has more than {FILE_BYTES_MAX >> 20} MiB."
_READS_MAX = 3  # of a file that changes while it is read
_OPEN_FLAGS = (
    os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
)  # which waits for no pipe's writer
_COLORS = {(2, 1): 0, (3, 3): 2, (3, 4): 6}  # PNG's color type by an array's dimensions and channels


class Unreadable(Exception):
    """An image that cannot be read. The text is one line for a person."""


class Loaded(NamedTuple):
    name: str
    data: bytes | str | Unreadable
    """The image's bytes, its URL, or why there are none."""
    stamp: bytes


class Source(NamedTuple):
    """One image to be sent."""

    name: str
    image: Any

    def stamp(self) -> bytes:
        """Another one if the image is another one. A file is not read for that."""
        return self._stamp(self._file_state()) if isinstance(self.image, os.PathLike) else self.load().stamp

    def load(self) -> Loaded:
        data: bytes | str | Unreadable
        state = ""
        try:
            if isinstance(self.image, os.PathLike):
                data, found = _read_file(self.image)
                state = _state(found)
            else:
                data = _read(self.image)
                state = data if isinstance(data, str) else blake2b(data).hexdigest()
        except Unreadable as error:
            data = error
        except Exception as error:  # whatever an image library raises: the other images are not at fault
            data = Unreadable(getattr(error, "strerror", None) or f"{type(error).__name__}: {error}")
        if not state and isinstance(self.image, os.PathLike):
            state = self._file_state()
        return Loaded(self.name, data, self._stamp(state))

    def _file_state(self) -> str:
        try:
            return _state(os.stat(self.image))  # noqa: PTH116 - also of an os.DirEntry
        except (OSError, ValueError):
            return "missing"

    def _stamp(self, state: str) -> bytes:
        return f"{self.name}\n{state}\n".encode(errors="surrogateescape")


def sources(images: Iterable[Image]) -> Iterator[Source]:
    """Each image, in order; those without a name are named by their index. Folders are expanded."""
    count = 0
    for image in images:
        if type(image) is Source:
            yield image
            count += 1
            continue
        named = isinstance(image, tuple) and len(image) == 2 and isinstance(image[0], str)
        name, content = image if named else (None, image)
        if isinstance(content, str) and not is_url(content):
            content = Path(content)
        if isinstance(content, os.PathLike) and os.path.isdir(content):  # noqa: PTH112 - Path.is_dir raises for long names
            found: Iterable[Source] = (Source(f"{name}/{it.name}" if name else it.name, it.image)
                                       for it in pictures(content))  # fmt: skip
        else:
            own = os.fspath(content) if isinstance(content, (os.PathLike, str)) else getattr(content, "name", None)
            own = own if isinstance(own, str) else str(count)
            found = (Source(own if name is None else name, content),)
        for source in found:
            yield source
            count += 1


def pictures(folder: str | os.PathLike[str], pattern: str = "*") -> Iterator[Source]:
    """The pictures below a folder, sorted, named by their path from it; no hidden files, no linked folders."""
    return _walk(folder, "", pattern)


def _walk(folder: str | os.PathLike[str], prefix: str, pattern: str) -> Iterator[Source]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield Source(prefix or os.fspath(folder), error)
        return
    for entry in entries:
        name = prefix + entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry, name + "/", pattern)
        elif (
            entry.name.lower().endswith(SUFFIXES) and not entry.is_dir() and (pattern == "*" or fnmatch(name, pattern))
        ):
            yield Source(name, entry)


def is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://", "s3://"))


def is_one(images: object) -> bool:
    """Whether this is one image, or an iterable of them."""
    if isinstance(images, tuple):
        return len(images) == 2 and isinstance(images[0], str) and not isinstance(images[1], (str, os.PathLike))
    if hasattr(images, "dtype"):
        return bool(images.dtype == "uint8")
    return isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(images, "read") or (
        not hasattr(images, "__iter__")
    )  # fmt: skip


def _read(image: Any) -> bytes | str:
    if isinstance(image, str):
        return image
    if isinstance(image, Exception):
        raise image
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
    elif hasattr(image, "dtype") and hasattr(image, "shape"):
        data = _png(image)
    elif hasattr(image, "read"):
        data = image.read(FILE_BYTES_MAX + 1)
    elif hasattr(image, "save"):
        image.save(buffer := BytesIO(), "PNG")
        data = buffer.getvalue()
    else:
        raise Unreadable(f"{type(image).__name__} is no image.")
    if not isinstance(data, bytes):
        raise Unreadable("The file is not open in binary mode.")
    if len(data) > FILE_BYTES_MAX:
        raise Unreadable(_TOO_LARGE)
    return data


def _read_file(path: "os.PathLike[str]") -> tuple[bytes, os.stat_result]:
    """The whole file, and how it was. Asks the system for no more than needed: a folder has ten thousand of them."""
    for _ in range(_READS_MAX):
        file = os.open(path, _OPEN_FLAGS)
        try:
            before = os.fstat(file)
            if not stat.S_ISREG(before.st_mode):
                raise Unreadable("Not a regular file.")
            if before.st_size > FILE_BYTES_MAX:
                raise Unreadable(_TOO_LARGE)
            data = os.read(file, before.st_size + 1)
            while len(data) < before.st_size and (more := os.read(file, before.st_size + 1 - len(data))):
                data += more
            after = os.fstat(file)
        finally:
            os.close(file)
        if (len(data), before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            return data, before
    raise Unreadable("The file changed while it was read.")


def _state(found: os.stat_result) -> str:
    return f"{found.st_size} {found.st_mtime_ns}"


def _png(array: Any) -> bytes:
    """An array of uint8 as PNG. Raises Unreadable if it has another type or shape."""
    shape = tuple(array.shape)
    color = _COLORS.get((len(shape), shape[2] if len(shape) == 3 else 1))
    if color is None or array.dtype != "uint8" or 0 in shape:
        raise Unreadable(f"An array must be uint8, H×W, H×W×3 or H×W×4, not {array.dtype} {shape}.")

    return _png_of(shape[1], shape[0], color, [row.tobytes() for row in array])


def gray_png(side: int = 28) -> bytes:
    """A picture with a dark square on white."""
    edge, inner = b"\xff" * side, b"\xff" * (side // 4) + b"\x40" * (side - side // 4 * 2) + b"\xff" * (side // 4)
    return _png_of(side, side, 0, [edge] * (side // 4) + [inner] * (side - side // 4 * 2) + [edge] * (side // 4))


def _png_of(width: int, height: int, color: int, rows: list[bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
