"""Opens the spool that the settings name."""

from hashlib import blake2b
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jobs.settings import SpoolSettings
from jobs.spool.bucket import SpoolBucket
from jobs.spool.folder import SpoolFolder
from jobs.spool.spool import Spool


def open_spool(settings: SpoolSettings) -> Spool | None:
    """The spool, or None if all uploads go to Redis. Reads and writes nothing yet."""
    if settings.uploads_url == "redis:":
        return None
    if settings.uploads_place is not None:
        return SpoolBucket(settings.uploads_place, settings)
    folder = Path(unquote(urlsplit(settings.uploads_url).path))
    return SpoolFolder(folder, free_bytes_min=settings.uploads_free_bytes_min)


def store_identity(signing_key: bytes) -> str:
    """Identifies a store to its spool: two stores must not share one, each would delete the other's files."""
    return blake2b(signing_key, digest_size=16).hexdigest()
