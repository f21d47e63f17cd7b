"""Paths that clients follow: a job's, below the path that a proxy serves the API under."""

import re

from pydantic import field_validator

from jobs.settings import SettingsGroup, advanced

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?", re.ASCII)


class LinkSettings(SettingsGroup):
    """Where clients find the API."""

    root_path: str = advanced(
        "",
        description="Path below which a proxy serves the API, as `/darkroom`, whether it strips that or not: links "
        "begin with it.",
    )

    @field_validator("root_path")
    @classmethod
    def _is_a_path(cls, path: str) -> str:
        if not _PATH.fullmatch(path):
            raise ValueError("must be a path like /darkroom")
        return path.rstrip("/")


def job_path(job_id: str, root_path: str = "") -> str:
    """The URL path of a job, from its id as text."""
    return f"{root_path}/v1/jobs/{job_id}"
