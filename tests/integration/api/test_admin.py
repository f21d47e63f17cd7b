"""The command `darkroom-admin`, as an operator types it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api import admin
from tests.support.processes import ROOT, Valkey

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(valkey: Valkey, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command. Returns what it writes to the standard output, and to the standard error."""
    monkeypatch.setenv("REDIS_URL", valkey.url)

    def run(line: str) -> tuple[str, str]:
        admin.main(["keys", *line.split()])
        sys.stdout.flush()
        return capfd.readouterr()

    return run


def listed(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list --json")[0])
    return found


def refused(run: Run, line: str) -> str:
    with pytest.raises(SystemExit) as ended:
        run(line)
    assert ended.value.code not in (0, None)
    return str(ended.value.code)


def test_it_is_a_command_of_its_own(valkey: Valkey) -> None:
    """Only the key is on the standard output, so that a script can take it."""
    ran = subprocess.run(
        [sys.executable, "-m", "api.admin", "keys", "create", "alice"],
        cwd=ROOT,
        env={**os.environ, "REDIS_URL": valkey.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    key = ran.stdout.removesuffix("\n")
    _, key_id, _ = key.split("_", 2)
    assert ran.stderr == (
        f"Key {key_id} of alice: scope all, no limits, never expires. It is shown only now: keep it.\n"
    )


def test_a_key_is_made_listed_and_revoked(run: Run) -> None:
    key, note = run("create alice --scope read --items-per-day 1000 --requests-per-second 5 --pending-items 70")
    assert "scope read, requests per second 5, items per day 1000, pending items 70, never expires" in note
    (row,) = listed(run)
    assert row | {"id": "", "created_at": ""} == {
        "id": "",
        "owner": "alice",
        "state": "valid",
        "scope": "read",
        "requests_per_second": 5,
        "items_per_day": 1000,
        "pending_items": 70,
        "created_at": "",
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": None,
    }
    assert key.startswith(f"dk_{row['id']}_")
    assert datetime.fromisoformat(row["created_at"]) <= datetime.now(UTC) + timedelta(seconds=1)

    (_, note) = run(f"revoke {row['id']}")
    (revoked,) = listed(run)
    assert note == f"Key {row['id']} of alice is revoked since {revoked['revoked_at']}.\n"
    assert revoked == row | {"state": "revoked", "revoked_at": revoked["revoked_at"]}


def test_the_list_is_a_table(run: Run) -> None:
    run("create alice --items-per-day 1000")
    run("create bob --scope read")
    (table, _) = run("list")
    head, alice, bob = (line.split() for line in table.splitlines())
    assert head[:4] == ["id", "owner", "state", "scope"]
    assert alice[1:7] == ["alice", "valid", "all", "-", "1000", "-"]
    assert bob[1:7] == ["bob", "valid", "read", "-", "-", "-"]


def test_limits_of_an_owner_are_changed(run: Run) -> None:
    run("create alice --items-per-day 1000 --pending-items 5")
    run("create alice")
    (_, note) = run("limit alice --items-per-day none --requests-per-second 3")
    assert note.count("requests per second 3") == 2
    limits = [(it["requests_per_second"], it["items_per_day"], it["pending_items"]) for it in listed(run)]
    assert limits == [(3, None, 5), (3, None, None)]


@pytest.mark.parametrize(
    ("expires", "days"),
    [
        ("1", 1),
        ("3650", 3650),
        ((datetime.now(UTC) + timedelta(days=90)).strftime("%Y-%m-%d"), 90),
    ],
)
def test_a_key_expires_after_days_or_at_a_date(run: Run, expires: str, days: int) -> None:
    before = datetime.now(UTC)
    run(f"create alice --expires {expires}")
    (row,) = listed(run)
    ends = datetime.fromisoformat(row["expires_at"])
    assert abs(ends - before - timedelta(days=days)) <= timedelta(days=1)
    if "-" in expires:
        assert row["expires_at"] == f"{expires}T00:00:00.000Z"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("revoke 0123456789ab", "darkroom-admin: there is no key '0123456789ab'"),
        ("limit alice --items-per-day 5", "darkroom-admin: 'alice' has no valid key"),
        ("limit alice", "darkroom-admin: name at least one limit: --requests-per-second, --items-per-day, "),
        ("create alice --expires 2020-01-01", "darkroom-admin: the key would have expired already"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run: Run, line: str, problem: str) -> None:
    said = refused(run, line)
    assert said.startswith(problem)
    assert "\n" not in said
    assert listed(run) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("create al.ice", "'al.ice' must be 1 to 32 letters, digits, - or _"),
        (f"create {'a' * 33}", "must be 1 to 32 letters"),
        ("create alice --scope write", "invalid choice: 'write'"),
        ("create alice --items-per-day 0", "'0' must be a number from 1 to 1000000000000"),
        ("create alice --items-per-day none", "'none' must be a number"),
        ("create alice --pending-items 1e3", "'1e3' must be a number"),
        ("create alice --requests-per-second 9999999999999", "must be a number from 1 to"),
        ("create alice --expires 0", "'0' must be 1 to 3650 days, or a date"),
        ("create alice --expires 3651", "'3651' must be 1 to 3650 days"),
        ("create alice --expires tomorrow", "'tomorrow' must be 1 to 3650 days"),
        ("revoke", "arguments are required: ID"),
        ("", "arguments are required"),
    ],
)
def test_what_is_not_understood_changes_nothing(
    run: Run, capfd: pytest.CaptureFixture[str], line: str, problem: str
) -> None:
    assert refused(run, line) == "2"
    assert problem in capfd.readouterr().err
    assert listed(run) == []


def test_a_wrong_setting_or_an_absent_server_is_said_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("REDIS_URL", "http://example.com")
    assert refused(run, "list").startswith("darkroom-admin: REDIS_URL: ")
    monkeypatch.setenv("REDIS_URL", f"unix://{tmp_path}/absent.sock")
    assert refused(run, "create alice").startswith("darkroom-admin: the API keys cannot be read or written: Conn")
