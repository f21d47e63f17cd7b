"""Settings of earlier versions: one that is still set gets a warning."""

import logging
from collections.abc import Iterable

log = logging.getLogger(__name__)

_FORMER_DEFAULT = "its former default now always applies"
REMOVED_SETTINGS = {
    "OPEN_JOB_AT_DEADLINE": "an open job is always canceled at its deadline",
    **dict.fromkeys(
        (
            "BATCH_BYTES_MAX",
            "BATCH_ITEMS_MAX",
            "FETCH_CONNECT_SECONDS",
            "FETCH_REDIRECTS_MAX",
            "FETCH_TRIES_MAX",
            "GROUP_BYTES_MAX",
            "GROUP_SUBMITS_MAX",
            "ITEM_SCANS_MAX",
            "ITEM_SIDE_PIXELS_MAX",
            "PROGRESS_POLL_SECONDS",
            "REREAD_SECONDS",
            "RETRY_AFTER_SECONDS_MAX",
            "RETRY_FRACTION",
            "SSE_HEARTBEAT_SECONDS",
            "SWEEP_SECONDS",
            "ZIP_SPOOL_BYTES_MAX",
        ),
        _FORMER_DEFAULT,
    ),
}
"""Environment variables that were settings once, and what applies now."""


def warn_of_removed_settings(environment: Iterable[str]) -> None:
    """Log one line for each variable of the environment that was a setting once."""
    for name in sorted({name.upper() for name in environment} & REMOVED_SETTINGS.keys()):
        log.warning("%s is no longer a setting and is ignored: %s", name, REMOVED_SETTINGS[name])
