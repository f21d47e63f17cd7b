"""From the fields of a job's hash to `Job` and `Item`. The Lua scripts write these fields; `FIELDS` explains them."""

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from jobs.codec import unpack_outcomes
from jobs.item_codes import ItemCode
from jobs.records import LANE_OF_CODE, STATE_OF_CODE, Failure, Item, ItemState, Job, JobState, Outcome
from jobs.store import keys
from jobs.store.keys import FIELDS
from jobs.store.wire import Command, pack

_FIELDS_WITHOUT_ITEM = tuple(
    FIELDS[name]
    for name in (
        *("state", "owner", "model", "lane", "top_k", "accepted_ms", "ended_ms", "items", "succeeded", "failed"),
        *("chunks", "failure_code", "started_ms", "skipped", "webhook_url", "retry_of"),
    )
)

Fields = Sequence[bytes | None]


def chunk_field(name: str, chunk: int) -> str:
    """The field of one chunk; `name` is one of those in `FIELDS` that take a number."""
    return f"{FIELDS[name]}{chunk}"


JOB_FIELDS = (*_FIELDS_WITHOUT_ITEM, chunk_field("results", 0), chunk_field("names", 0))
"""The fields whose values `decode_job` takes."""


def job_key(job_id: bytes) -> bytes:
    return keys.JOB.encode() + job_id


def upload_key(job_id: bytes, chunk: int) -> bytes:
    return keys.UPLOAD.encode() + job_id + chunk.to_bytes(4, "big")


def idempotency_key_name(owner: str, digest: bytes) -> bytes:
    return f"{keys.IDEMPOTENCY_KEY}{owner}:".encode() + digest


def job_command(job_id: bytes) -> bytes:
    """The command whose reply `decode_job` takes, packed."""
    return _READ_JOB_START + job_key(job_id) + _READ_JOB_END


# All ids have 16 bytes, so the packed command differs in the key alone. Packing its 20 words anew takes 2 µs, this 0.2.
_SAMPLE_KEY = job_key(bytes(16))
_READ_JOB_START, _READ_JOB_END = pack(("HMGET", _SAMPLE_KEY, *JOB_FIELDS)).split(_SAMPLE_KEY)


def job_without_item_command(job_id: bytes) -> Command:
    """`job_command` without the fields of chunk 0: in a larger job they hold up to 64 items."""
    return ("HMGET", job_key(job_id), *_FIELDS_WITHOUT_ITEM)


def chunk_command(job_id: bytes, chunk: int) -> Command:
    """The command whose reply has the fields for `decode_items`, then the job's state, None if the job is gone."""
    return ("HMGET", job_key(job_id), chunk_field("results", chunk), chunk_field("names", chunk), FIELDS["state"])


class StoredChunks(NamedTuple):
    """Some chunks of a job as they are stored, for reading very many of them."""

    state: JobState
    failure_code: ItemCode | None
    chunks: list[tuple[bytes | None, bytes | None]]
    """Packed results, None before there are any, and packed names of each chunk."""
    more: bool
    """Whether the job has chunks after these."""


def stored_chunks_command(job_id: bytes, numbers: range) -> Command:
    """The command whose reply `decode_stored_chunks` takes."""
    job_fields = (FIELDS["state"], FIELDS["failure_code"], FIELDS["chunks"])
    prefixes = (FIELDS["results"], FIELDS["names"])
    chunk_fields = (f"{prefix}{number}" for number in numbers for prefix in prefixes)
    return ("HMGET", job_key(job_id), *job_fields, *chunk_fields)


def decode_stored_chunks(reply: Fields, first: int) -> StoredChunks | None:
    """The chunks from the number `first` on, or None if the job is gone."""
    state, failure_code, chunks, *fields = reply
    if state is None:
        return None
    count = max(0, int(chunks or 0) - first)
    pairs = list(zip(fields[::2], fields[1::2], strict=True))
    code = ItemCode(failure_code.decode()) if failure_code else None
    return StoredChunks(STATE_OF_CODE[state], code, pairs[:count], count > len(pairs))


def retained_command(job_id: bytes, chunk: int) -> Command:
    """The command whose reply has the fields for `unpack_retained` and `decode_names`."""
    return ("HMGET", job_key(job_id), chunk_field("retained", chunk), chunk_field("names", chunk))


def decode_names(packed: bytes | None) -> list[str | None]:
    """The names of a chunk's items."""
    return orjson.loads(packed) if packed else [None]


def decode_job(job_id: bytes, fields: Fields) -> Job | None:
    """The job, or None if there is no record."""
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
