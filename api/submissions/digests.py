"""Digests that let the store compare a repeated request with the first one."""

import os
from hashlib import blake2b

from jobs.store.for_api.submission import Chunk, Submission

_DIGEST_BYTES = 16
_PART_NAME_BYTES = 8


def key_digest(key: str) -> bytes:
    """The digest under which the store keeps an Idempotency-Key."""
    return blake2b(key.encode(), digest_size=_DIGEST_BYTES).digest()


def part_name(key: str) -> bytes:
    """The name of a part of an open job: the digest of its Idempotency-Key, or random without one."""
    if not key:
        return os.urandom(_PART_NAME_BYTES)
    return blake2b(key.encode(), digest_size=_PART_NAME_BYTES).digest()


def request_digest(submission: Submission) -> blake2b:
    """The fingerprint of a submission's parameters. `update_digest` adds the content."""
    return _new_digest(submission.model, submission.top_k, submission.webhook_url, submission.retry_of)


def part_digest() -> blake2b:
    """The fingerprint of a part, which has content only."""
    return _new_digest()


def update_digest(digest: blake2b, chunk: Chunk) -> None:
    """Add a chunk. A repeat of the same content is cut into the same chunks, so its digest is the same."""
    digest.update(chunk.packed_names)
    digest.update(chunk.data or b"")


def _new_digest(*parameters: object) -> blake2b:
    return blake2b(repr(parameters).encode(), digest_size=_DIGEST_BYTES)
