"""Job ids: UUIDs of version 7 (RFC 9562) whose last four bytes prove who owns them.

The proof lets the API distinguish an expired job (410) from one that never existed (404) without a record of it:
see docs/decisions/0002-signed-job-ids.md.
"""

import os
import re
import time
from hashlib import blake2s

_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_TIME_BYTES = 6  # an id begins with them: of two ids, the earlier one is the lesser
_SIGNED = 12  # bytes in front of the four-byte proof


def new_id(owner: str, secret: bytes) -> bytes:
    """A fresh id: 48 bits of milliseconds, 42 random bits, version and variant, 32 bits of proof."""
    head = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(6))
    head[6] = 0x70 | head[6] & 0x0F
    head[8] = 0x80 | head[8] & 0x3F
    return bytes(head) + _proof(head, owner, secret)


def submitted_ms(job_id: bytes) -> int:
    """When it was made, in ms since 1970, by the clock of the API."""
    return int.from_bytes(job_id[:_TIME_BYTES], "big")


def belongs_to(job_id: bytes, owner: str, secret: bytes) -> bool:
    """Whether the id was made for this owner."""
    return job_id[_SIGNED:] == _proof(job_id[:_SIGNED], owner, secret)


def to_text(job_id: bytes) -> str:
    digits = job_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def from_text(text: str) -> bytes | None:
    """The id in its text form, with digits in capitals or not (RFC 9562), or None if the text is not an id."""
    return bytes.fromhex(text.replace("-", "")) if _TEXT.fullmatch(text) else None


def _proof(head: bytes | bytearray, owner: str, secret: bytes) -> bytes:
    return blake2s(bytes(head) + owner.encode(), key=secret, digest_size=4).digest()
