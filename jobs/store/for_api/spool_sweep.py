"""Deletes files of the spool that no job needs: of uploads that were never accepted, and of jobs that have ended."""

import logging
import time
from collections.abc import Iterator
from itertools import islice

from jobs.records import STATE_OF_CODE
from jobs.spool.names import Pointer, SpooledFile
from jobs.spool.open import store_identity
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.job_hash import chunk_field, job_key
from jobs.store.wire import Command

log = logging.getLogger(__name__)

_FILES_A_RUN = 1000


class SpoolSweep:
    """A run looks at some files, and the next run at the next ones. Files of other names are left alone."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client
        self._spool = client.spool
        self._names: Iterator[str] = iter(())
        self._next_pass_at = 0.0
        self._orphans = dict[str, float]()
        """Files without a job, by the time of the monotonic clock at which they were first seen."""
        self._seen = set[str]()
        """The orphans of this pass through all names."""
        self._foreign = self._foreign_logged = 0

    async def run_once(self) -> None:
        """Refresh what the spool knows of its space, and look at some of its files. Raises StoreUnavailable."""
        if self._spool.spool is None:
            return
        await self._client.ready()  # the signing key is known from here on
        store = store_identity(self._client.secret)
        spooled, known = await self._client.read(("HGET", keys.STATS, "spooled"), ("GET", keys.STORE_ID))
        await self._spool.refresh(store, int(spooled or 0))  # first: workers expect the mark of a store that is known
        if known != store.encode():  # workers read it when they start; after a refusal the next run tries again
            await self._client.run(self._client.commits, ("SET", keys.STORE_ID, store))
        if not self._spool.is_open:
            return
        try:
            names = await self._spool.run(self._next_names)
        except OSError:  # the next refresh logs it
            self._names = iter(())
            return
        if unneeded := await self._unneeded(names):
            await self._spool.discard(*unneeded)
            for name in unneeded:
                self._orphans.pop(name, None)

    def _next_names(self) -> list[str]:
        """The names of the next files; after the last ones, a new pass starts with the first again."""
        assert self._spool.spool is not None
        names = list(islice(self._names, _FILES_A_RUN))
        if not names and time.monotonic() >= self._next_pass_at:
            self._end_pass()
            self._next_pass_at = time.monotonic() + self._spool.spool.pass_seconds
            self._names = self._spool.spool.names()
            names = list(islice(self._names, _FILES_A_RUN))
        return names

    def _end_pass(self) -> None:
        self._orphans = {name: since for name, since in self._orphans.items() if name in self._seen}
        self._seen.clear()
        if self._foreign > self._foreign_logged:
            log.warning("UPLOADS_URL has %d files that are not Darkroom's; they stay", self._foreign)
        self._foreign, self._foreign_logged = 0, self._foreign

    async def _unneeded(self, names: list[str]) -> list[str]:
        files = dict[str, SpooledFile]()
        for name in names:
            file = SpooledFile.named(name)
            if file is None:
                self._foreign += 1
            else:
                files[name] = file
        found = await self._client.read(*map(_needed_by, files.values()))
        now, unneeded = time.monotonic(), list[str]()
        for (name, file), value in zip(files.items(), found, strict=True):
            if file.failed_chunk is None and value is not None:
                if STATE_OF_CODE[value].ended:
                    unneeded.append(name)
            elif file.failed_chunk is None or not (value or b"").startswith(Pointer.prefix(name)):
                # It may be about to be accepted, or to be named as failed images.
                self._seen.add(name)
                if now - self._orphans.setdefault(name, now) > self._client.settings.upload_ttl_seconds:
                    unneeded.append(name)
        return unneeded


def _needed_by(file: SpooledFile) -> Command:
    """Reads the state of an upload's job, or what the job has of a chunk's failed images."""
    field = keys.FIELDS["state"] if file.failed_chunk is None else chunk_field("retained", file.failed_chunk)
    return ("HGET", job_key(file.job_id), field)
