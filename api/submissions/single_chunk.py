"""Submits a job of one chunk: the store accepts or refuses it as a whole."""

from api.submissions.digests import request_digest, update_digest
from api.submissions.result import SubmitResult, submit_result
from jobs.errors import UploadTooLarge
from jobs.item_codes import ItemCode
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.submission import Chunk, Submission
from jobs.store.for_api.submit import Submitter


class SingleChunkSubmitter:
    def __init__(self, submitter: Submitter, reader: JobReader, *, item_bytes_max: int) -> None:
        self._submitter = submitter
        self._reader = reader
        self._item_bytes_max = item_bytes_max

    async def submit(self, submission: Submission, chunk: Chunk) -> SubmitResult:
        """Submit the chunk as a job. An error leaves nothing in the store.

        Raises:
            UploadTooLarge: the only image is too large.
            And as `Submitter.write_upload` and `Submitter.enqueue`.
        """
        if chunk.only_refused is ItemCode.ITEM_TOO_LARGE:
            raise UploadTooLarge(f"An image may have at most {self._item_bytes_max} bytes.")
        submission.chunk = chunk
        if submission.key:
            digest = request_digest(submission)
            update_digest(digest, chunk)
            submission.fingerprint = digest.digest()
        if self._submitter.writes_ahead(chunk):
            await self._submitter.write_upload(submission, chunk)
        return await submit_result(submission, await self._submitter.enqueue(submission), self._reader)
