"""Refuses variables of the environment that look like settings and are none."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic_settings import BaseSettings

from jobs.errors import SettingsError
from jobs.removed_settings import REMOVED_SETTINGS

_ALIKE = 0.85  # similarity, from 0 to 1: one or two letters of a name are wrong or missing
_NAME_CHARS_MIN = 6  # shorter names resemble too many others: MODEL of `make run`, PORTS
_OF_OTHER_PROGRAMS = "AWS_"  # AWS_ACCESS_KEY_ID is a name of its own beside S3_ACCESS_KEY_ID
_ELSEWHERE = {"BATCH_SECONDS_MAX", "FETCH_SECONDS_MAX", "LOAD_SECONDS_MAX", "UPLOAD_SECONDS_MAX"}
"""Settings of one service that resemble one of another; an environment may be common to all services."""


def refuse_misspelt_settings(settings: type[BaseSettings], environment: Iterable[str]) -> None:
    """Check that no variable of the environment is a misspelt setting: what it was meant to limit would be open.

    A variable that resembles a setting which is set as well is somebody else's.

    Raises:
        SettingsError: one is; one line names each, and the setting that it resembles.
    """
    known = {name.upper() for name in settings.model_fields}
    variables = {name.upper(): name for name in environment}
    unset = [name for name in known - variables.keys() if len(name) >= _NAME_CHARS_MIN]
    problems = list[str]()
    for name in sorted(variables.keys() - known - REMOVED_SETTINGS.keys() - _ELSEWHERE):
        if name.startswith(_OF_OTHER_PROGRAMS) or len(name) < _NAME_CHARS_MIN:
            continue
        if alike := get_close_matches(name, unset, 1, _ALIKE):
            problems.append(f"{variables[name]} is not a setting; {alike[0]} is")
    if problems:
        raise SettingsError("; ".join(problems) + ": rename the variable, or remove it")
