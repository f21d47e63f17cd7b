"""Completion notices: what the scripts publish when a job ends, and how a waiting API process applies it."""

import struct
from collections.abc import Iterator

from jobs.codec import unpack_outcomes
from jobs.records import STATE_OF_CODE, Failure, Job
from jobs.store.job_hash import ended_item

_NOTICE = struct.Struct(">16sH")


_PAYLOAD = struct.Struct(">cd")


_MS_MAX = 1 << 47  # in the year 6429


def unpack_notices(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The ids of ended jobs, each with the payload for `apply_notice`; the payload is b"" if the job must be read."""
    at = 0
    while at < len(data):
        job_id, size = _NOTICE.unpack_from(data, at)
        at += _NOTICE.size
        yield job_id, data[at : at + size]
        at += size


def apply_notice(job: Job, payload: bytes) -> bool:
    """Update `job` from a completion notice. Returns False if the notice has no result: then the job must be read."""
    if not payload or job.single_item is None:
        return False
    try:
        code, ended_ms = _PAYLOAD.unpack_from(payload)
        state = STATE_OF_CODE[code]
        ref, (outcome,) = unpack_outcomes(payload[_PAYLOAD.size :])
    except (struct.error, LookupError, ValueError):  # written by another version of the scripts
        return False
    if not 0 < ended_ms < _MS_MAX:  # also False for NaN
        return False
    job.state, job.ended_ms = state, int(ended_ms)
    job.single_item = ended_item(0, job.single_item.name, outcome, ref)
    failed = isinstance(outcome, Failure)
    job.succeeded, job.failed = int(not failed), int(failed)
    return True
