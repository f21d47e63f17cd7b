"""An API process's client of Redis: its connections, the server's clock, scripts, and errors of the server."""

import logging
import math
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hiredis import ReplyError

from jobs.errors import QueueFull, StoreUnavailable
from jobs.logs.outage_log import OutageLog
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.pipeline import PipelinedConnection
from jobs.store.for_api.redis_connection import NotSent, OutcomeUnknown
from jobs.store.for_api.upload_spool import UploadSpool
from jobs.store.readings import Reading
from jobs.store.redis_url import address_of
from jobs.store.scripts import Script, load_scripts
from jobs.store.wire import Command, Reply

T = TypeVar("T")

GROUP_SUBMITS_MAX = 64  # submits of one round trip
GROUP_BYTES_MAX = 1 << 20  # bytes of one round trip; a larger submit is sent alone
WRITES_CHECK_SECONDS = 1.0
_API_SCRIPTS = ("enqueue", "part", "seal", "cancel", "delete", "sweep")


class StoreClient:
    """Three connections, so that neither a large upload nor the wait for an fsync delays reads."""

    def __init__(
        self,
        settings: StoreSettings,
        *,
        timeout_seconds: float,
        group_submits_max: int = GROUP_SUBMITS_MAX,
        group_bytes_max: int = GROUP_BYTES_MAX,
    ) -> None:
        self.settings = settings
        self.timeout_seconds = timeout_seconds
        self.group_submits_max = group_submits_max
        self.group_bytes_max = group_bytes_max
        self.secret = b""
        self._writes_checked_at = -math.inf  # by the monotonic clock
        self._writes_refused: StoreUnavailable | QueueFull | None = None
        address = address_of(settings.redis_url)
        self.database = address.database
        self._scripts = load_scripts(address.database)
        self._clock_offset_ms = 0.0
        self._refusals = defaultdict[str, OutageLog](lambda: OutageLog("Redis refuses commands", level=logging.ERROR))

        def connection(on_connect: Callable[..., Awaitable[None]] | None = None) -> PipelinedConnection:
            return PipelinedConnection(
                address,
                timeout_seconds=timeout_seconds,
                group_requests_max=group_submits_max,
                group_bytes_max=group_bytes_max,
                on_connect=on_connect,
            )

        self.commits = connection(self._on_connect)
        self.uploads = connection()
        self.reads = connection()
        self.spool = UploadSpool(settings)
        """Where large uploads lie outside Redis."""

    def start(self) -> None:
        """Open the connections. If the server is unreachable, calls raise StoreUnavailable until it is back."""
        for connection in (self.commits, self.uploads, self.reads):
            connection.start()

    async def close(self) -> None:
        for connection in (self.reads, self.uploads, self.commits):
            await connection.close()
        self.spool.close()

    async def ready(self) -> None:
        """Return once the server's clock and the key that signs ids are known.

        Raises:
            StoreUnavailable
        """
        if not self.secret:
            await self.run(self.commits, ("PING",))

    def now_ms(self) -> float:
        """The server's clock, as this process last read it."""
        return time.monotonic() * 1000 + self._clock_offset_ms

    async def set_clock(self) -> None:
        """Read the server's clock, which may have been stepped since."""
        (now,) = await self.read(("TIME",))
        self._clock_offset_ms = _offset_ms(now)

    async def keep_secret(self) -> None:
        """Write the key that signs ids again if the server has lost it; take over that of another process."""
        (secret,) = await self.read(("GET", keys.SIGNING_KEY))
        if secret is None and self.secret:
            commands = ("SET", keys.SIGNING_KEY, self.secret, "NX"), ("GET", keys.SIGNING_KEY)
            _, secret = await self.run(self.commits, *commands)
        if isinstance(secret, bytes):
            self.secret = secret

    def script(self, name: str) -> Script:
        return self._scripts[name]

    async def run(self, connection: PipelinedConnection, *commands: Command | bytes) -> list[Reply]:
        """Run commands that may safely run twice.

        Raises:
            StoreUnavailable: no reply.
        """
        if not commands:
            return []
        try:
            return await connection.execute(*commands)
        except (NotSent, OutcomeUnknown):
            raise StoreUnavailable from None

    async def read(self, *commands: Command | bytes) -> list[Reply]:
        replies = await self.run(self.reads, *commands)
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise self.refusal(reply)
        return replies

    async def follow(self, reading: Reading[T]) -> T:
        """What it reads. Raises StoreUnavailable."""
        try:
            commands = next(reading)
            while True:
                commands = reading.send(await self.read(*commands))
        except StopIteration as done:
            result: T = done.value
            return result

    async def call(self, name: str, *args: bytes | str | int, after: Command | None = None) -> Reply:
        """Call a script that may safely run twice; `after` is a large write that is sent before it in one pipeline."""
        script = self._scripts[name]
        connection = self.commits if after is None else self.uploads
        command: Command = ("EVALSHA", script.sha1, 0, *args)
        *written, reply = await self.run(connection, *((after,) if after else ()), command)
        if is_noscript(reply):
            _, reply = await self.run(connection, ("SCRIPT", "LOAD", script.source), command)
        for each in (*written, reply):
            if isinstance(each, ReplyError):
                raise self.refusal(each)
        return reply

    async def check_writes(self) -> None:
        """Check that the server accepts writes. The answer of the last second holds: anybody may ask, without a key.

        Raises:
            StoreUnavailable, QueueFull
        """
        if time.monotonic() > self._writes_checked_at + WRITES_CHECK_SECONDS:
            self._writes_refused = None
            try:
                await self._probe_writes()
            except (StoreUnavailable, QueueFull) as error:
                self._writes_refused = error
            self._writes_checked_at = time.monotonic()
        if self._writes_refused is not None:
            raise self._writes_refused.with_traceback(None)

    async def _probe_writes(self) -> None:
        (reply,) = await self.run(self.commits, ("SET", keys.WRITE_PROBE, 1, "PX", 1000))
        if isinstance(reply, ReplyError):
            raise self.refusal(reply)

    def refusal(self, reply: ReplyError) -> QueueFull | StoreUnavailable:
        """The request error for an error reply of the server. The reply's own text goes to the log only."""
        kind, _, _ = str(reply).partition(" ")
        self._refusals[kind].failed(reply)  # never recovered(): other replies do not show that this error is over
        return QueueFull() if kind == "OOM" else StoreUnavailable()

    async def _on_connect(self, execute: Callable[..., Awaitable[list[Reply]]]) -> None:
        _, secret, now, *_ = await execute(
            ("SET", keys.SIGNING_KEY, secrets.token_bytes(32), "NX"),
            ("GET", keys.SIGNING_KEY),
            ("TIME",),
            *(("SCRIPT", "LOAD", self._scripts[name].source) for name in _API_SCRIPTS),
        )
        self.secret = secret
        self._clock_offset_ms = _offset_ms(now)


def _offset_ms(now: list[bytes]) -> float:
    seconds, micros = now
    return int(seconds) * 1000 + int(micros) / 1000 - time.monotonic() * 1000


def is_noscript(reply: Reply) -> bool:
    """Whether the server has lost its script cache, as after a restart; the script did not run."""
    return isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT")
