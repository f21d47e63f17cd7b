import logging
from typing import Any

import pytest

from api.exposure import check_exposure, why_reachable
from api.settings import ApiSettings

KEYS = {"alice": "a-long-random-key"}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, ""),
        ({"host": "127.0.0.1"}, ""),
        ({"host": "127.8.9.1"}, ""),
        ({"host": "localhost"}, ""),
        ({"host": "::1"}, ""),
        ({"host": "0.0.0.0"}, "HOST is 0.0.0.0"),
        ({"host": "::"}, "HOST is ::"),
        ({"host": ""}, "HOST is empty"),
        ({"host": "192.0.2.1"}, "HOST is 192.0.2.1"),
        ({"host": "localhost.example"}, "HOST is localhost.example"),
        ({"host": "127.0.0.1.example"}, "HOST is 127.0.0.1.example"),
        ({"host": "0.0.0.0", "bind": "127.0.0.1"}, ""),
        ({"host": "0.0.0.0", "bind": "[::1]"}, ""),
        ({"host": "0.0.0.0", "bind": "192.0.2.1"}, "BIND is 192.0.2.1"),
        ({"host": "0.0.0.0", "bind": "0.0.0.0"}, "BIND is 0.0.0.0"),
        ({"host": "0.0.0.0", "bind": "127.0.0.1", "domain": "a.example"}, "DOMAIN is a.example"),
        ({"domain": "localhost"}, "DOMAIN is localhost"),
    ],
)
def test_who_can_reach_the_api(values: dict[str, str], reason: str) -> None:
    assert why_reachable(ApiSettings(**values)) == reason


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("API_KEYS", ["API_KEYS contains no key"]),
        ("api_keys", ["api_keys contains no key"]),
        ("API_PROCESSES", []),
        ("S3_ACCESS_KEY_ID", []),
        ("DARKROOM_API_KEY", []),  # the client's
    ],
)
def test_api_keys_without_a_key_are_named(caplog: pytest.LogCaptureFixture, name: str, hints: list[str]) -> None:
    with caplog.at_level(logging.WARNING):
        check_exposure(ApiSettings(), [name, "PATH"])
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == hints


@pytest.mark.parametrize(
    ("values", "callers"),
    [
        ({"host": "0.0.0.0", "api_keys": KEYS}, "owners with a key: 1 of API_KEYS, and those of managed keys"),
        ({"api_keys": KEYS}, "owners with a key: 1 of API_KEYS, and those of managed keys"),
        ({}, "this machine alone, without a key as long as there is no managed one"),
        (
            {"host": "0.0.0.0", "open_to_everybody": True},
            "everybody, without a key as long as there is no managed one",
        ),
    ],
)
def test_one_line_says_who_may_call(caplog: pytest.LogCaptureFixture, values: dict[str, Any], callers: str) -> None:
    with caplog.at_level(logging.INFO):
        check_exposure(ApiSettings(**values), ["API_PROCESSES"])
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert lines == [f"who may call: {callers}"]


def test_with_keys_there_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    check_exposure(ApiSettings(host="0.0.0.0", api_keys=KEYS), ["API_KEYS", "API_KEY"])
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
