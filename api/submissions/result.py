"""The result of a submit, from which its route makes the response."""

from dataclasses import dataclass

from jobs.records import Job
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.submission import ExistingJob, Submission, accepted_job


@dataclass(frozen=True, slots=True)
class SubmitResult:
    job: Job
    replayed: bool = False
    """Whether an earlier request with the same Idempotency-Key created the job, or added the part."""
    current: bool = True
    """False if the store did not answer after a wait: `job` is then as it was accepted, and may have ended since."""


async def submit_result(submission: Submission, outcome: int | ExistingJob, reader: JobReader) -> SubmitResult:
    """The result of `Submitter.enqueue`. Reads the job only if an earlier request created it."""
    if isinstance(outcome, ExistingJob):
        return SubmitResult(await reader.get(outcome.job_id, submission.owner), replayed=True)
    return SubmitResult(accepted_job(submission, outcome))
