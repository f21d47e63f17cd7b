"""From the fields of a job's hash to `Job` and `Item`. The Lua scripts write these fields.

s state, w owner, m model, l lane, k top_k, a accepted ms, e ended ms, n items, d succeeded, f failed, c chunks,
g why it was given up, z bytes it counts for, t when its first chunk was claimed (ms), j archive entries skipped,
h webhook, o the job that it retries, v fingerprint of its content, y digest of its Idempotency-Key, q what its
deadline does while it is open; for each chunk N: iN names (JSON), rN results, xN charges, pN progress, bN failed images
that are kept for a retry (`pack_retained`); for each part P of an open job: uP holder's token (8), until when it is
held (ms as a double, 0 once done), chunks (4), digest so far.
"""

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from jobs.codec import unpack_outcomes
from jobs.item_codes import ItemCode
from jobs.records import LANE_OF_CODE, STATE_OF_CODE, Failure, Item, ItemState, Job, JobState, Outcome
from jobs.store import keys
from jobs.store.wire import Command, pack

_FIELDS = ("s", "w", "m", "l", "k", "a", "e", "n", "d", "f", "c", "g", "t", "j", "h", "o")
JOB_FIELDS = (*_FIELDS, "r0", "i0")
"""What `decode_job` takes."""

Fields = Sequence[bytes | None]


def job_key(job_id: bytes) -> bytes:
    return keys.JOB.encode() + job_id


def upload_key(job_id: bytes, chunk: int) -> bytes:
    return keys.UPLOAD.encode() + job_id + chunk.to_bytes(4, "big")


def idempotency_key_name(owner: str, digest: bytes) -> bytes:
    return f"{keys.KEYED}{owner}:".encode() + digest


def job_command(job_id: bytes) -> bytes:
    """The command whose reply `decode_job` takes, packed."""
    return job_key(job_id).join(_AROUND_KEY)


_AROUND_KEY = pack(("HMGET", job_key(bytes(16)), *JOB_FIELDS)).split(job_key(bytes(16)))


def job_without_item_command(job_id: bytes) -> Command:
    """`job_command` without its only item, which would come with 63 others where it is not the only one."""
    return ("HMGET", job_key(job_id), *_FIELDS)


def chunk_command(job_id: bytes, chunk: int) -> Command:
    """The command whose reply is what `decode_items` takes, and the job's state: None once it is gone."""
    return ("HMGET", job_key(job_id), f"r{chunk}", f"i{chunk}", "s")


class StoredChunks(NamedTuple):
    """Some chunks of a job as they stand, for whoever reads very many."""

    state: JobState
    failure_code: ItemCode | None
    chunks: list[tuple[bytes | None, bytes | None]]
    """Packed results, None while there are none, and packed names of each."""
    more: bool
    """Whether the job has chunks behind these."""


def stored_chunks_command(job_id: bytes, numbers: range) -> Command:
    """The command whose reply `decode_stored_chunks` takes."""
    fields = (f"{kind}{number}" for number in numbers for kind in "ri")
    return ("HMGET", job_key(job_id), "s", "g", "c", *fields)


def decode_stored_chunks(reply: Fields, first: int) -> StoredChunks | None:
    """What stands of chunks from the number `first` on, or None where there is no record."""
    state, failure_code, chunks, *fields = reply
    if state is None:
        return None
    there = max(0, int(chunks or 0) - first)
    pairs = list(zip(fields[::2], fields[1::2], strict=True))
    code = ItemCode(failure_code.decode()) if failure_code else None
    return StoredChunks(STATE_OF_CODE[state], code, pairs[:there], there > len(pairs))


def retained_command(job_id: bytes, chunk: int) -> Command:
    """The command whose reply is what `unpack_retained` and `decode_names` take."""
    return ("HMGET", job_key(job_id), f"b{chunk}", f"i{chunk}")


def decode_names(packed: bytes | None) -> list[str | None]:
    """The names of a chunk's items."""
    return orjson.loads(packed) if packed else [None]


def decode_job(job_id: bytes, fields: Fields) -> Job | None:
    """The job, or None where there is no record."""
    state, owner, model, lane, top_k, accepted, ended, total, succeeded, failed, chunks, failure_code, *more = fields
    started, skipped, webhook, retry_of, *single_item = more
    if state is None or owner is None or model is None or lane is None:
        return None
    job = Job(
        id=job_id,
        owner=owner.decode(),
        model=model.decode(),
        lane=LANE_OF_CODE[lane],
        state=STATE_OF_CODE[state],
        top_k=int(top_k or 0),
        accepted_ms=int(accepted or 0),
        ended_ms=int(ended) if ended else None,
        total=int(total or 0),
        succeeded=int(succeeded or 0),
        failed=int(failed or 0),
        chunks=int(chunks or 0),
        failure_code=ItemCode(failure_code.decode()) if failure_code else None,
        started_ms=int(started) if started else None,
        skipped=int(skipped or 0),
        webhook_url=webhook.decode() if webhook else None,
        retry_of=retry_of,
    )
    if single_item and job.total == 1 and job.state is not JobState.OPEN:
        job.single_item = decode_items(job, 0, single_item)[0]
    return job


def decode_items(job: Job, first: int, fields: Fields) -> list[Item]:
    """The items of one chunk, whose first has the index `first`."""
    results, packed_names = fields
    names = decode_names(packed_names)
    if results is not None:
        ref, outcomes = unpack_outcomes(results)
        return [ended_item(first + at, names[at], outcome, ref) for at, outcome in enumerate(outcomes)]
    if job.failure_code is not None:
        return [ended_item(first + at, name, Failure(job.failure_code), None) for at, name in enumerate(names)]
    state = ItemState.CANCELED if job.state is JobState.CANCELED else ItemState.PENDING
    return [Item(first + at, name, state, None, None) for at, name in enumerate(names)]


def ended_item(index: int, name: str | None, outcome: Outcome, ref: str | None) -> Item:
    state = ItemState.FAILED if isinstance(outcome, Failure) else ItemState.SUCCEEDED
    return Item(index, name, state, outcome, ref)
