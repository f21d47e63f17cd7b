"""A spool in an S3 bucket, for workers on other hosts."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

from jobs.errors import SettingsError, one_line
from jobs.s3 import open_bucket
from jobs.settings import S3Settings
from jobs.spool.names import Pointer
from jobs.spool.spool import SpoolAway, SpoolNotMarked, checked
from jobs.urls import S3Url

CONNECT_SECONDS, REQUEST_SECONDS = 2, 8  # of one try; a call takes at most twice as long as a request
_PAGE = 1000  # the most that S3 lists at once
_NO_LIMIT = 1 << 62  # bytes


class SpoolBucket:
    """Objects below `uploads/` in a prefix; the object `store` beside that names the store whose uploads these are.

    So a lifecycle rule for `uploads/` may delete what this stack has left behind, and does not touch the mark.
    """

    pass_seconds = 60.0  # S3 bills each page that it lists

    def __init__(self, place: S3Url, settings: S3Settings) -> None:
        self._place = place
        root = f"{place.key.removesuffix('/')}/".removeprefix("/")
        self._uploads, self._mark = f"{root}uploads/", f"{root}store"
        self._bucket = open_bucket(
            place.bucket, settings, connect_seconds=CONNECT_SECONDS, request_seconds=REQUEST_SECONDS
        )

    # -- at start

    def check(self, store: str | None, *, is_new: bool = True, may_mark: bool = True) -> None:
        """See `Spool`. Tries each right that is needed; deleting first, so that no probe is left behind."""
        probe = f"{self._mark}-probe-{os.urandom(8).hex()}"
        self._try("delete", lambda: obstore.delete(self._bucket, [probe]))
        self._try("list", lambda: next(iter(obstore.list(self._bucket, self._uploads, chunk_size=1)), None))
        self._try("write", lambda: obstore.put(self._bucket, probe, b"probe", use_multipart=False))
        self._try("read", lambda: obstore.get(self._bucket, probe).bytes())
        self._try("delete", lambda: obstore.delete(self._bucket, [probe]))
        with _reached():
            if store is not None and not self._is_marked():
                if not is_new:
                    raise SettingsError(f"UPLOADS_URL: {self._place} lacks the uploads that Redis counts")
                if not may_mark:
                    raise SpoolNotMarked(self._place)
                with suppress(AlreadyExistsError):  # another process was faster
                    obstore.put(self._bucket, self._mark, store.encode(), mode="create", use_multipart=False)
            if store is not None and obstore.get(self._bucket, self._mark).bytes() != store.encode():
                raise SettingsError(f"UPLOADS_URL: {self._place} holds the uploads of another Redis: choose another")

    def _try(self, verb: str, step: Callable[[], object]) -> None:
        try:
            step()
        except FileNotFoundError:
            raise SettingsError(f"UPLOADS_URL: there is no bucket {self._place.bucket}") from None
        except BaseError as error:
            # What S3 answers to a list and to a delete of several objects, obstore passes on as text.
            is_refused = "AccessDenied" in str(error) or "403 Forbidden" in str(error)
            if is_refused or isinstance(error, PermissionDeniedError | UnauthenticatedError):
                raise SettingsError(
                    f"UPLOADS_URL: S3 does not allow to {verb} objects below {self._place} with these credentials"
                ) from None
            if "NoSuchBucket" in str(error):
                raise SettingsError(f"UPLOADS_URL: there is no bucket {self._place.bucket}") from None
            raise SpoolAway(one_line(error)) from None

    def _is_marked(self) -> bool:
        try:
            obstore.head(self._bucket, self._mark)
        except FileNotFoundError:
            return False
        return True

    def _require_mark(self) -> None:
        if not self._is_marked():
            raise SpoolAway(f"{self._place} lacks its object `store`")

    # -- uploads

    def room_bytes(self) -> int:
        with _reached():
            self._require_mark()
        return _NO_LIMIT

    def write(self, name: str, data: bytes) -> Pointer:
        with _reached():
            obstore.put(self._bucket, self._uploads + name, data, use_multipart=False)
        return Pointer.to(name, data)

    def commit(self) -> None:
        """S3 has stored an object before it answers."""

    def read(self, pointer: Pointer) -> bytes | None:
        with _reached():
            try:
                found = obstore.get(self._bucket, self._uploads + pointer.name)
            except FileNotFoundError:
                self._require_mark()  # else the bucket is gone, not the object
                return checked(pointer, None)
            # One of another size is damaged: it is not loaded.
            return checked(pointer, bytes(found.bytes()) if found.meta["size"] == pointer.size else b"")

    def delete(self, names: Sequence[str]) -> None:
        with _reached():
            obstore.delete(self._bucket, [self._uploads + name for name in names])

    def names(self) -> Iterator[str]:
        with _reached():
            for page in obstore.list(self._bucket, self._uploads, chunk_size=_PAGE):
                for found in page:
                    yield found["path"].removeprefix(self._uploads)


@contextmanager
def _reached() -> Iterator[None]:
    """Errors of S3, and of the way there, are `SpoolAway`."""
    try:
        yield
    except BaseError as error:
        raise SpoolAway(one_line(error)) from None
