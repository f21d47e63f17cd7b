"""Completion notices: what the scripts publish when a job ends, and how a waiting API process applies it."""

import struct
from collections.abc import Iterator

from jobs.codec import unpack_outcomes
from jobs.records import STATE_OF_CODE, Failure, Job
from jobs.store.job_hash import ended_item

_NOTICE = struct.Struct(">16sH")


_TOLD = struct.Struct(">cd")


_MS_MAX = 1 << 47  # in the year 6429


def unpack_notices(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Ids of jobs that have ended, each with what `apply_notice` takes; b"" where that must be read."""
    at = 0
    while at < len(data):
        job_id, size = _NOTICE.unpack_from(data, at)
        at += _NOTICE.size
        yield job_id, data[at : at + size]
        at += size


def apply_notice(job: Job, told: bytes) -> bool:
    """Make of a job what a notice tells that it is now. False: it does not tell, the job must be read."""
    if not told or job.single_item is None:
        return False
    try:
        code, ended_ms = _TOLD.unpack_from(told)
        state = STATE_OF_CODE[code]
        ref, (outcome,) = unpack_outcomes(told[_TOLD.size :])
    except (struct.error, LookupError, ValueError):  # of another version of the scripts
        return False
    if not 0 < ended_ms < _MS_MAX:  # nor is it NaN
        return False
    job.state, job.ended_ms = state, int(ended_ms)
    job.single_item = ended_item(0, job.single_item.name, outcome, ref)
    failed = isinstance(outcome, Failure)
    job.succeeded, job.failed = int(not failed), int(failed)
    return True
