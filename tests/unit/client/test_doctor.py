"""`darkroom doctor`: each check fails by itself, and says what to do."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.processes import free_port
from tests.support.web import Site, serving_site
from tests.unit.client.answers import ITEM, JOB, SERVER, Answer, answer, by_method, problem, run_command

CHECKS = ["address", "redis", "key", "version", "clock", "workers", "picture"]
MODEL = {"id": "m@1", "name": "m", "version": "1", "classes": ["Bag"], "default": True, "serving": {"workers": 1}}
ADVICE = {
    "address": "Is the server running there?",
    "redis": "is Redis (or Valkey) running",
    "key": "Ask who runs the server for a key",
    "version": "Upgrade the server",
    "clock": "Set this machine's clock",
    "workers": "start a worker",
    "picture": "`darkroom status` shows whether the queue moves.",
}


def serve_well(site: Site) -> None:
    now = datetime.now(UTC).isoformat()
    site.at("/livez", answer({"status": "ok"}))
    site.at("/readyz", answer({"status": "ok"}))
    site.at("/v1/server", answer(SERVER | {"time": now}))
    site.at("/v1/models", answer({"models": [MODEL]}))
    result = {"index": 0, "name": "doctor.png", **ITEM}
    site.at("/v1/jobs", by_method(GET=answer({"jobs": [], "next_cursor": None}), POST=answer(JOB | {"result": result})))


def late() -> Answer:
    return answer(SERVER | {"time": (datetime.now(UTC) - timedelta(hours=1)).isoformat()})


failed_item = {"index": 0, "name": "x", "status": "failed", "error": {"code": "model_failed", "detail": "no"}}
FAULTS: dict[str, tuple[str, Answer, int, list[str]]] = {
    "address": ("/livez", problem(502, "api_unreachable"), 3, []),
    "redis": ("/readyz", problem(503, "store_unavailable"), 3, ["address"]),
    "key": ("/v1/jobs", problem(401, "unauthorized"), 4, ["address", "redis"]),
    "version": ("/v1/server", problem(404, "not_found"), 3, [it for it in CHECKS if it not in ("version", "clock")]),
    "clock": ("/v1/server", late(), 3, [it for it in CHECKS if it != "clock"]),
    "workers": (
        "/v1/models",
        answer({"models": [MODEL | {"serving": {"workers": 0}}]}),
        3,
        [it for it in CHECKS if it != "workers"],
    ),
    "picture": (
        "/v1/jobs",
        by_method(GET=answer({"jobs": [], "next_cursor": None}), POST=answer(JOB | {"result": failed_item})),
        1,
        CHECKS[:-1],
    ),
}


@pytest.mark.parametrize("check", FAULTS)
async def test_a_check_that_fails_says_what_to_do(check: str, tmp_path: Path) -> None:
    path, fault, code, well = FAULTS[check]
    async with serving_site() as site:
        serve_well(site)
        site.at(path, fault)
        done = await run_command(site, tmp_path, "doctor")
    shown = done[1].splitlines()
    assert [line.split()[1] for line in shown if line.startswith("ok ")] == [f"{it}:" for it in well], done
    failed = next(place for place, line in enumerate(shown) if line.startswith("FAIL"))
    assert shown[failed].split()[1] == f"{check}:"
    assert ADVICE[check] in shown[failed + 1]
    assert sum(line.startswith("FAIL") for line in shown) == 1
    assert done[0] == code


async def test_all_is_well(tmp_path: Path) -> None:
    async with serving_site() as site:
        serve_well(site)
        code, shown, errors = await run_command(site, tmp_path, "doctor")
    assert [line.split()[:2] for line in shown.splitlines()] == [["ok", f"{it}:"] for it in CHECKS], errors
    assert code == 0


async def test_json_has_the_checks_and_the_advice(tmp_path: Path) -> None:
    async with serving_site() as site:
        serve_well(site)
        site.at(*FAULTS["workers"][:2])
        code, shown, _ = await run_command(site, tmp_path, "doctor", "--json")
    checks = json.loads(shown)
    assert [it["check"] for it in checks] == CHECKS
    assert [it["check"] for it in checks if not it["ok"]] == ["workers"]
    assert ADVICE["workers"] in checks[5]["advice"]
    assert code == 3


async def test_a_server_that_is_away_is_unreachable(tmp_path: Path) -> None:
    nobody = Site()
    nobody.url = f"http://127.0.0.1:{free_port()}"
    code, shown, _ = await run_command(nobody, tmp_path, "doctor")
    assert shown.startswith(f"FAIL  address: {nobody.url} does not answer")
    assert ADVICE["address"] in shown
    assert code == 5


async def test_another_server_is_unreachable_for_any_command(tmp_path: Path) -> None:
    async with serving_site() as site:
        code, shown, errors = await run_command(site, tmp_path, "jobs")
    assert (code, shown) == (5, "")
    assert errors.endswith(": this is no Darkroom server\n")
