"""Submits that share a call of the script: what they have in common costs the server once.

While one pipeline is in flight, the submits that arrive are collected for the next one. A lone submit does not wait.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import chain

from hiredis import ReplyError

from jobs.store.for_api.client import StoreClient, is_noscript
from jobs.store.for_api.redis_connection import NotSent, OutcomeUnknown
from jobs.store.wire import Command, Reply

BATCH_SUBMITS_MAX = (
    32  # bounds the keys that one call of the script touches: seven a submit if each has its own API key
)


class _Submit:
    __slots__ = ("args", "outcome", "set_upload", "upload_bytes")

    def __init__(self, args: list[bytes | str | int], set_upload: Command | None, upload_bytes: int) -> None:
        self.args = args
        self.set_upload = set_upload
        self.upload_bytes = upload_bytes
        self.outcome: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


_Batch = list[_Submit]


class SubmitBatches:
    """Sends submits over the client's connection for commits. `head` is the script's call without the submits' args."""

    def __init__(self, client: StoreClient, head: Sequence[bytes | str | int]) -> None:
        self._client = client
        self._head = head
        self._waiting = deque[_Submit]()
        self._sender: asyncio.Task[None] | None = None

    async def submit(self, args: list[bytes | str | int], set_upload: Command | None, upload_bytes: int) -> list[Reply]:
        """Call the script for one submit, after writing its upload. Returns the script's outcome for it.

        An error reply of the server, to either, is returned as the only element.

        Raises:
            NotSent, OutcomeUnknown
        """
        submit = _Submit(args, set_upload, upload_bytes)
        self._waiting.append(submit)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return await submit.outcome

    async def _send_all(self) -> None:
        """Send what waits, one pipeline after another, until nothing waits."""
        try:
            while self._waiting:
                await self._send_pipeline()
        finally:
            self._sender = None

    async def _send_pipeline(self) -> None:
        try:
            await self._client.commits.idle()
        except NotSent as error:
            self._fail_waiting(error)
            return
        sent = list[tuple[_Batch, asyncio.Future[list[Reply]]]]()
        for batch in self._next_batches():
            try:
                sent.append((batch, self._client.commits.send(*_uploads(batch), self._call(batch))))
            except Exception as error:  # a command that cannot be packed fails its batch alone
                _fail(batch, error)
        for batch, replies in sent:
            await self._resolve(batch, replies)

    async def _resolve(self, batch: _Batch, sent: asyncio.Future[list[Reply]]) -> None:
        """Give each submit of the batch its outcome."""
        try:
            *written, outcomes = await sent
            if is_noscript(outcomes):
                source = self._client.script("enqueue").source
                _, outcomes = await self._client.commits.execute(("SCRIPT", "LOAD", source), self._call(batch))
            uploads = iter(written)
            for at, submit in enumerate(batch):
                upload = next(uploads) if submit.set_upload is not None else None
                error = next((it for it in (upload, outcomes) if isinstance(it, ReplyError)), None)
                if not submit.outcome.done():
                    submit.outcome.set_result([error] if error is not None else outcomes[at])
        except Exception as error:  # no caller waits for ever, whatever went wrong
            _fail(batch, error)
            if isinstance(error, NotSent) or (isinstance(error, OutcomeUnknown) and error.timed_out):
                self._fail_waiting(NotSent())

    def _next_batches(self) -> list[_Batch]:
        """The batches of the next pipeline. Submits whose caller went away are left out: nothing of them is written."""
        batches = list[_Batch]()
        submits, size = 0, 0
        submits_max, bytes_max = self._client.group_submits_max, self._client.group_bytes_max
        while self._waiting and submits < submits_max:
            submit = self._waiting[0]
            if submit.outcome.done():
                self._waiting.popleft()
                continue
            size += submit.upload_bytes
            if batches and size > bytes_max:
                break
            if not batches or len(batches[-1]) >= min(BATCH_SUBMITS_MAX, submits_max):
                batches.append([])
            batches[-1].append(self._waiting.popleft())
            submits += 1
        return batches

    def _call(self, batch: _Batch) -> Command:
        return (*self._head, *chain.from_iterable(submit.args for submit in batch))

    def _fail_waiting(self, error: Exception) -> None:
        while self._waiting:
            self._waiting.popleft().fail(error)


def _uploads(batch: _Batch) -> list[Command]:
    return [submit.set_upload for submit in batch if submit.set_upload is not None]


def _fail(batch: _Batch, error: Exception) -> None:
    for submit in batch:
        submit.fail(error)
