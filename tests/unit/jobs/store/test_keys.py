"""Other releases read the same keys and fields in Redis: a name must not change by accident."""

import re
from importlib.resources import files

from jobs.store import keys
from jobs.store.scripts import NAMES, load_scripts

KEY_NAMES = {
    "TASK": "classify",
    "OUTBOUND_TASK": "outbound",
    "QUEUE": "darkroom.",
    "DOORBELL_PLACEHOLDER": "BELLID",
    "ENDED_CHANNEL": "darkroom.notices",
    "FETCH": "@fetch",
    "JOB": "j:",
    "UPLOAD": "b:",
    "READY": "q:",
    "ROTATION": "ring:",
    "SUSPECTS": "suspect:",
    "SUSPECT_LANE": "s",
    "ITEM_LOST": "lost:",
    "MAIN": "@main",
    "LEASES": "leases",
    "LEASED_CHUNKS": "l:",
    "SUSPECT_ITEM": "suspect_at",
    "OWNER_OF_ALL": "public",
    "OWNERS": "owners",
    "ENDED_OF_OWNER": "ended:",
    "OLDEST_ENDED": "oldest",
    "ENDED": "ended",
    "OWNER_JOBS": "jobs:",
    "OPEN_DEADLINES": "open",
    "IDEMPOTENCY_KEY": "k:",
    "WEBHOOKS_DUE": "hooks",
    "TRASH": "trash",
    "STATS": "stats",
    "DOORBELL_TEMPLATE": "bell:",
    "WAKE": "wake:",
    "DOORBELL_COUNTER": "bells",
    "HEARTBEATS": "serving:",
    "LOAD_ERRORS": "faults",
    "MODEL_CARDS": "models",
    "PACES": "paces",
    "SIGNING_KEY": "secret",
    "STORE_ID": "store_id",
    "API_KEYS": "apikeys",
    "API_KEYS_VERSION": "apikeys_version",
    "API_KEYS_USED": "apikeys_used",
    "ITEMS_OF_DAY": "day:",
    "WRITE_PROBE": "write_probe",
}
FIELD_NAMES = {
    "state": "s",
    "traceparent": "tp",
    "in_share": "ws",
    "owner": "w",
    "model": "m",
    "lane": "l",
    "top_k": "k",
    "accepted_ms": "a",
    "started_ms": "t",
    "ended_ms": "e",
    "active_ms": "la",
    "result_bytes": "rb",
    "items": "n",
    "succeeded": "d",
    "failed": "f",
    "skipped": "j",
    "chunks": "c",
    "failure_code": "g",
    "record_bytes": "z",
    "retry_of": "o",
    "fingerprint": "v",
    "key_digest": "y",
    "at_deadline": "q",
    "webhook_url": "h",
    "webhook_attempts": "ha",
    "retained_spooled": "bs",
    "names": "i",
    "results": "r",
    "failure_counts": "x",
    "progress": "p",
    "retained": "b",
    "part": "u",
}


def test_the_names_of_keys_do_not_change() -> None:
    assert {name: value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)} == KEY_NAMES


def test_the_names_of_fields_do_not_change() -> None:
    assert keys.FIELDS == FIELD_NAMES


def test_every_database_has_a_channel_of_its_own() -> None:
    assert keys.ended_channel(3) == "darkroom.notices.3"


def test_scripts_write_keys_and_fields_by_name() -> None:
    """A raw name in a script would not be found by a search for its uses."""
    folder = files("jobs.store") / "lua"
    for name in (*NAMES, "lib", "admission"):
        text = (folder / f"{name}.lua").read_text()
        for command in re.findall(r"redis\.call\(([^)]*)", text):
            first, *rest = (word.strip() for word in command.split(","))
            assert not re.match(r"'[a-z_:@]+'$", rest[0] if rest else ""), f"{name}.lua: {first} {rest}"


def test_names_in_scripts_become_their_values() -> None:
    source = load_scripts(0)["cancel"].source.decode()
    assert "redis.call('HMGET', job, 's', 'w', 'n', 'd', 'f', 'c')" in source
    assert not re.search(r"\b(K|F|STATE|LANE)\.\w", source)
