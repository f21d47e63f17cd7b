"""The operator's command `darkroom-admin`: API keys that are managed without a restart, and how the server is.

    python -m api.admin keys create alice --items-per-day 10000
    python -m api.admin status --watch

It reads the same environment as the API: `REDIS_URL` and `REDIS_PASSWORD` say where the keys and the jobs are. A new
key is written to the standard output once, all else about it to the standard error.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson

from api.settings import OWNER_RULE, is_owner
from api.status_command import WATCH_SECONDS_MAX, WATCH_SECONDS_MIN, show_status
from jobs.errors import ApiKeyError, SettingsError, StoreUnavailable
from jobs.settings import StoreSettings, load
from jobs.store.for_api.api_key_registry import ApiKeyRegistry
from jobs.store.for_api.api_keys import ApiKeyRecord, KeyLimits, Scope
from jobs.times import iso_time

_EXPIRES_DAYS_MAX = 3650
_LIMIT_MAX = 10**12
_OPTIONS = {
    "requests_per_second": "requests a second, over all API processes",
    "items_per_day": "images submitted in a UTC day",
    "pending_items": "images of the owner that wait or are being classified, at a submit with this key",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exits with 1 and one line if it is refused, with 2 if it is not understood."""
    options = _parser().parse_args(arguments)
    try:
        options.run(load(StoreSettings), options)
    except (ApiKeyError, SettingsError) as error:
        sys.exit(f"darkroom-admin: {error}")
    except StoreUnavailable as error:
        sys.exit(f"darkroom-admin: {error.detail}")
    except KeyboardInterrupt:  # the way to end `status --watch`
        sys.exit(130)


def _create(settings: StoreSettings, options: argparse.Namespace) -> None:
    registry = ApiKeyRegistry(settings)
    expires_ms = options.expires
    if isinstance(expires_ms, timedelta):
        expires_ms = registry.now_ms() + expires_ms // timedelta(milliseconds=1)
    limits = KeyLimits(**{name: value for name in _OPTIONS if (value := getattr(options, name)) is not None})
    record, key = registry.create(options.owner, Scope(options.scope), limits, expires_ms=expires_ms)
    sys.stdout.write(f"{key}\n")
    sys.stderr.write(f"Key {record.id} of {record.owner}: {_described(record)}. It is shown only now: keep it.\n")


def _list(settings: StoreSettings, options: argparse.Namespace) -> None:
    registry = ApiKeyRegistry(settings)
    now_ms = registry.now_ms()
    views = [_view(record, used_ms, now_ms) for record, used_ms in registry.records()]
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(views, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return
    names = ["id", "owner", "state", "scope", *_OPTIONS, "created_at", "expires_at", "last_used_at"]
    rows = [[name.removesuffix("_at").replace("_", " ") for name in names]]
    rows += [["-" if view[name] is None else str(view[name]) for name in names] for view in views]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        sys.stdout.write("  ".join(map(str.ljust, row, widths)).rstrip() + "\n")


def _revoke(settings: StoreSettings, options: argparse.Namespace) -> None:
    registry = ApiKeyRegistry(settings)
    record = registry.revoke(options.id)
    sys.stderr.write(f"Key {record.id} of {record.owner} is revoked since {iso_time(record.revoked_ms)}.\n")


def _limit(settings: StoreSettings, options: argparse.Namespace) -> None:
    registry = ApiKeyRegistry(settings)
    limits = {name: value or None for name in _OPTIONS if (value := getattr(options, name)) is not None}
    if not limits:
        raise ApiKeyError(f"name at least one limit: {', '.join(map(_flag, _OPTIONS))}")
    for record in registry.limit(options.owner, limits):
        sys.stderr.write(f"Key {record.id} of {record.owner}: {_described(record)}.\n")


def _status(settings: StoreSettings, options: argparse.Namespace) -> None:
    show_status(settings, as_json=options.json, watch_seconds=options.watch)


def _view(record: ApiKeyRecord, used_ms: int | None, now_ms: int) -> dict[str, Any]:
    state = "expired" if record.has_ended(now_ms) else "valid"
    return {
        "id": record.id,
        "owner": record.owner,
        "state": "revoked" if record.revoked_ms is not None else state,
        "scope": str(record.scope),
        **record.limits.model_dump(),
        "created_at": iso_time(record.created_ms),
        "expires_at": iso_time(record.expires_ms),
        "revoked_at": iso_time(record.revoked_ms),
        "last_used_at": iso_time(used_ms),
    }


def _described(record: ApiKeyRecord) -> str:
    limits = [f"{name.replace('_', ' ')} {value}" for name, value in record.limits if value is not None]
    ends = "never expires" if record.expires_ms is None else f"expires at {iso_time(record.expires_ms)}"
    return f"scope {record.scope}, {', '.join(limits) or 'no limits'}, {ends}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("darkroom-admin", description="Manages Darkroom's API keys, and shows how it is.")
    commands = parser.add_subparsers(required=True, metavar="keys|status")
    _add_status(commands)
    verbs = commands.add_parser("keys", help="create, list, revoke or limit API keys")
    commands = verbs.add_subparsers(required=True, metavar="create|list|revoke|limit")

    create = commands.add_parser("create", help="make a key, and show it once")
    create.add_argument("owner", metavar="OWNER", type=_owner, help=f"whose jobs it may use: {OWNER_RULE}")
    scopes = list(map(str, Scope))
    create.add_argument("--scope", choices=scopes, default=str(Scope.ALL), help="read: GET and HEAD only")
    create.add_argument("--expires", type=_expires, metavar="DAYS|DATE", help="days from now, or YYYY-MM-DD, 0:00 UTC")
    create.set_defaults(run=_create)

    listed = commands.add_parser("list", help="show all keys, also those that were revoked")
    listed.add_argument("--json", action="store_true", help="as JSON")
    listed.set_defaults(run=_list)

    revoke = commands.add_parser("revoke", help="make a key invalid, within two seconds")
    revoke.add_argument("id", metavar="ID", help="the key's id, as `keys list` shows it")
    revoke.set_defaults(run=_revoke)

    limit = commands.add_parser("limit", help="change limits of all valid keys of an owner")
    limit.add_argument("owner", metavar="OWNER", type=_owner)
    limit.set_defaults(run=_limit)

    for name, text in _OPTIONS.items():
        create.add_argument(_flag(name), type=_number, metavar="N", help=f"most {text}")
        limit.add_argument(_flag(name), type=_number_or_none, metavar="N|none", help=f"most {text}")
    return parser


def _add_status(commands: Any) -> None:
    status = commands.add_parser("status", help="show what waits, budgets, who serves, and Redis")
    status.add_argument("--json", action="store_true", help="as JSON, under the names that Prometheus has")
    status.add_argument(
        "--watch", nargs="?", type=_watch_seconds, const=2, metavar="SECONDS", help="again every 2 seconds, or so many"
    )
    status.set_defaults(run=_status)


def _watch_seconds(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or not WATCH_SECONDS_MIN <= int(text) <= WATCH_SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} must be {WATCH_SECONDS_MIN} to {WATCH_SECONDS_MAX} seconds")
    return int(text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _owner(text: str) -> str:
    if not is_owner(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be {OWNER_RULE}")
    return text


def _number(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or not 1 <= int(text) <= _LIMIT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 1 to {_LIMIT_MAX}")
    return int(text)


def _number_or_none(text: str) -> int:
    """0 stands for none: None is that of an option that was not given."""
    return 0 if text == "none" else _number(text)


def _expires(text: str) -> int | timedelta:
    """A time in ms since 1970, or a time from now."""
    if text.isdecimal() and text.isascii() and len(text) <= 4 and 1 <= int(text) <= _EXPIRES_DAYS_MAX:
        return timedelta(days=int(text))
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be 1 to {_EXPIRES_DAYS_MAX} days, or a date as YYYY-MM-DD"
        ) from None
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


if __name__ == "__main__":
    main()
