"""What a spooled upload is called: its file's name, and the pointer that Redis has in place of its bytes."""

import os
import re
import zlib
from typing import NamedTuple, Self

SPOOLED_BYTES_MIN = 64 << 10  # smaller uploads stay in Redis: a file costs more than their bytes
_NAME = re.compile(r"([0-9a-f]{32})-(?:([0-9]{1,10})-)?[0-9a-f]{16}\.(?:upload|failed)")


class SpooledFile(NamedTuple):
    """What a file's name says of it."""

    job_id: bytes
    failed_chunk: int | None
    """The chunk whose failed images it holds for a retry; None for a chunk's upload."""

    @classmethod
    def named(cls, name: str) -> Self | None:
        """None if this name is none that Darkroom gives."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return cls(bytes.fromhex(match[1]), None if match[2] is None else int(match[2]))


def new_upload_name(job_id: bytes) -> str:
    return f"{job_id.hex()}-{os.urandom(8).hex()}.upload"


def new_failed_name(job_id: bytes, chunk: int) -> str:
    return f"{job_id.hex()}-{chunk}-{os.urandom(8).hex()}.failed"


class Pointer(NamedTuple):
    """Stands in Redis in place of the bytes. Lua reads its size, see `jobs/store/lua/lib.lua`."""

    name: str
    size: int
    checksum: int
    """CRC-32."""

    @classmethod
    def to(cls, name: str, data: bytes) -> Self:
        return cls(name, len(data), zlib.crc32(data))

    def pack(self) -> bytes:
        return self.prefix(self.name) + f"{self.size} {self.checksum:08x}".encode()

    @staticmethod
    def prefix(name: str) -> bytes:
        """What the pointers to this file start with."""
        return f"spool {name} ".encode()

    @classmethod
    def unpack(cls, data: bytes) -> Self | None:
        """None if `data` is no pointer but packed images: none of these starts like one, it would be over 1 GiB."""
        if not data.startswith(b"spool "):
            return None
        _, name, size, checksum = data.decode().split(" ")
        if SpooledFile.named(name) is None:
            raise ValueError(f"no file of a spool: {name!r}")
        return cls(name, int(size), int(checksum, 16))
