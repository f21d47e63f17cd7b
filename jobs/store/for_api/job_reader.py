"""The job store as the API sees it: read, list, cancel, delete, sweep. Submits are in `submit.py` beside it."""

from collections.abc import AsyncIterator, Iterable, Sequence

from jobs.codec import unpack_retained
from jobs.errors import JobExpired, JobNotFound
from jobs.ids import belongs_to
from jobs.records import STATE_OF_CODE, Item, Job, JobState
from jobs.spool.names import Pointer
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.webhooks import Webhook, read_webhook
from jobs.store.job_hash import (
    StoredChunks,
    chunk_command,
    chunk_field,
    decode_items,
    decode_job,
    decode_names,
    decode_stored_chunks,
    idempotency_key_name,
    job_command,
    job_key,
    job_without_item_command,
    retained_command,
    stored_chunks_command,
)
from jobs.store.scripts import sweep_args

_CHUNKS_A_READ = 8  # 512 items at most
_LENGTHS_A_READ = 1000


class JobReader:
    def __init__(self, client: StoreClient) -> None:
        self._client = client

    async def get(self, job_id: bytes, owner: str) -> Job:
        """The current state of the job.

        Raises:
            JobExpired: the id was made for this owner, and the job is gone.
            JobNotFound: the job never existed, or belongs to another owner.
        """
        (fields,) = await self._client.read(job_command(job_id))
        job = decode_job(job_id, fields)
        if job is not None and job.owner == owner:
            return job
        if job is None and self._client.secret and belongs_to(job_id, owner, self._client.secret):
            raise JobExpired
        raise JobNotFound

    async def webhook(self, job: Job) -> Webhook:
        """The state of the job's webhook and its last attempts. Raises StoreUnavailable."""
        return await read_webhook(self._client, job)

    async def ended(self, job_ids: Sequence[bytes]) -> list[bytes]:
        """The ids among these whose jobs have ended or are gone."""
        codes = await self._client.read(*(("HGET", job_key(job_id), keys.FIELDS["state"]) for job_id in job_ids))
        return [
            job_id for job_id, code in zip(job_ids, codes, strict=True) if code is None or STATE_OF_CODE[code].ended
        ]

    async def list(
        self, owner: str, *, before: int | None, limit: int, state: JobState | None
    ) -> tuple[list[Job], int | None]:
        """Up to `limit` jobs of an owner, newest first, and the start of the next page, None at the end.

        `before` is such a start. A page is shorter if jobs in it have another state or were deleted meanwhile.
        """
        newest = "+inf" if before is None else f"({before}"
        (found,) = await self._client.read(
            ("ZRANGE", keys.OWNER_JOBS + owner, newest, "-inf", "BYSCORE", "REV", "LIMIT", 0, limit + 1, "WITHSCORES")
        )
        ids, numbers = found[: 2 * limit : 2], found[1 : 2 * limit : 2]
        rows = list(map(decode_job, ids, await self._client.read(*map(job_without_item_command, ids))))
        single = [at for at, job in enumerate(rows) if job is not None and job.total == 1]
        for at, fields in zip(single, await self._client.read(*(job_command(ids[at]) for at in single)), strict=True):
            rows[at] = decode_job(ids[at], fields)
        jobs = [job for job in rows if job is not None and (state is None or job.state is state)]
        return jobs, int(numbers[-1]) if len(found) > 2 * limit else None

    async def items(
        self, job: Job, *, chunk: int = 0, place: int = 0, index: int = 0
    ) -> AsyncIterator[tuple[int, int, Item]]:
        """The job's items in order, each with its chunk and its place in that chunk.

        Starts at item `index`, which is at `place` in `chunk`. Raises JobExpired if the job is deleted meanwhile.
        """
        first = index - place
        for start in range(chunk, job.chunks, _CHUNKS_A_READ):
            numbers = range(start, min(start + _CHUNKS_A_READ, job.chunks))
            rows = await self._client.read(*(chunk_command(job.id, number) for number in numbers))
            for number, row in zip(numbers, rows, strict=True):
                *fields, state = row
                if state is None:  # it was deleted meanwhile
                    raise JobExpired
                items = decode_items(job, first, fields)
                for at in range(place, len(items)):
                    yield number, at, items[at]
                first, place = first + len(items), 0

    async def by_idempotency_key(self, owner: str, key_digest: bytes) -> Job | None:
        """The job that was made with the Idempotency-Key of this digest."""
        (job_id,) = await self._client.read(("GET", idempotency_key_name(owner, key_digest)))
        if job_id is None:
            return None
        (fields,) = await self._client.read(job_command(job_id))
        return decode_job(job_id, fields)

    async def drained(self) -> tuple[int, int]:
        """How many items have ended, and how many upload bytes were freed, since the store was created."""
        (totals,) = await self._client.read(("HMGET", keys.STATS, "transitions", "drained"))
        return int(totals[0] or 0), int(totals[1] or 0)

    async def stored_chunks(self, job_id: bytes, first: int, count: int) -> StoredChunks | None:
        """Chunks of a job as they are stored, in one read; None if the job is gone."""
        (reply,) = await self._client.read(stored_chunks_command(job_id, range(first, first + count)))
        return decode_stored_chunks(reply, first)

    async def retained_images(self, job: Job) -> AsyncIterator[tuple[str | None, bytes]]:
        """Name and bytes of each failed image that was retained for a retry.

        Raises JobExpired if the job is deleted meanwhile.
        """
        for start in range(0, job.chunks, _LENGTHS_A_READ):
            numbers = range(start, min(start + _LENGTHS_A_READ, job.chunks))
            lengths = await self._client.read(
                *(("HSTRLEN", job_key(job.id), chunk_field("retained", number)) for number in numbers)
            )
            for number in (number for number, length in zip(numbers, lengths, strict=True) if length):
                (row,) = await self._client.read(retained_command(job.id, number))
                if row[0] is None:  # it was deleted meanwhile
                    raise JobExpired
                names = decode_names(row[1])
                pointer = Pointer.unpack(row[0])
                retained = row[0] if pointer is None else await self._client.spool.read(pointer)
                for place, data in unpack_retained(retained or b"").items():
                    yield names[place], bytes(data)

    async def cancel(self, job_id: bytes, owner: str) -> None:
        """Cancel the items that have not ended; an ended job stays unchanged. Raises as `get` does."""
        await self._change("cancel", job_id, owner)

    async def cancel_if_open(self, job_id: bytes, owner: str) -> bool:
        """Cancel a job unless it is sealed. Returns False if it is. Raises StoreUnavailable."""
        return bool(await self._client.call("cancel", job_id, owner, 1) != b"sealed")

    async def delete(self, job_id: bytes, owner: str) -> None:
        """Delete the job and its data, even if it is running. Raises as `get` does."""
        await self._change("delete", job_id, owner)

    async def _change(self, script: str, job_id: bytes, owner: str) -> None:
        if await self._client.call(script, job_id, owner) == b"absent":
            await self.get(job_id, owner)
            raise JobNotFound

    async def sweep(self, models: Iterable[str]) -> None:
        """Free what is due, and ring the doorbells of models with waiting chunks."""
        left = list(sweep_args(self._client.settings, models))
        while left:  # in turns, so that no model waits for the whole sweep of another
            left = [args for args in left if await self._client.call("sweep", *args)]
