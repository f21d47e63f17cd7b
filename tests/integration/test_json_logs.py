"""`LOG_FORMAT=json`: every line of every process is one JSON object, and none has a key."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.store import keys
from tests.support.processes import MAXMEMORY_BYTES, ROOT, Process
from tests.support.stack import PNG, Stack
from tests.support.waiting import wait_until

KEY = "a-key-of-alice-for-the-logs"
SETTINGS = {"LOG_FORMAT": "json", "API_KEYS": json.dumps({"alice": KEY})}
TRACE = "0af7651916cd43dd8448eb211c80319c"


def lines(process: Process) -> list[dict[str, Any]]:
    return lines_of(process.output())


def lines_of(output: str) -> list[dict[str, Any]]:
    assert KEY not in output
    found = [json.loads(line) for line in output.splitlines()]
    assert all(isinstance(line, dict) and {"level", "message"} <= line.keys() for line in found)
    return found


def test_lines_of_the_api_have_the_ids_of_request_job_and_trace(stack: Stack, shirt: bytes) -> None:
    api = stack.api(**SETTINGS)
    own = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "mine-1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    with httpx.Client(base_url=api.url) as client:
        submitted = client.post("/v1/jobs", content=shirt, headers=PNG | own)
        job_id = submitted.json()["id"]
        client.get(f"/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {KEY}x"})
    api.stop()

    access = {line["status"]: line for line in lines(api) if line.get("logger") == "darkroom.access"}
    assert access.keys() == {202, 401}
    fields = {"request_id": "mine-1", "owner": "alice", "method": "POST", "job_id": job_id, "trace_id": TRACE}
    assert access[202].items() >= fields.items()
    assert access[401].items() >= {"owner": "-", "code": "unauthorized", "job_id": job_id}.items()
    assert {line["logger"] for line in lines(api)} >= {"darkroom.access", "uvicorn.error"}


def test_lines_of_a_worker_are_json_if_a_child_is_killed_and_when_it_stops(stack: Stack) -> None:
    worker = stack.worker(children=1, **SETTINGS)
    (child,) = worker.children()
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: child not in worker.children() and worker.children(), what="another child")
    worker.stop()
    messages = [line["message"] for line in lines(worker)]
    assert any("SIGKILL" in message for message in messages), messages
    assert any("shutdown" in message for message in messages), messages


def test_lines_of_an_outbound_worker_are_json(stack: Stack, tmp_path: Path) -> None:
    settings = SETTINGS | {"REDIS_URL": stack.valkey.url, "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES)}
    with Process([sys.executable, "-m", "worker.outbound"], tmp_path / "outbound.log", settings) as outbound:
        wait_until(lambda: stack.redis.zcard(keys.HEARTBEATS + keys.FETCH), what="the outbound worker")
        outbound.stop()
        assert lines(outbound)


@pytest.mark.parametrize("module", ["api", "worker", "worker.outbound"])
def test_the_last_line_of_a_process_that_cannot_start_is_json(module: str) -> None:
    environment = {**os.environ, **SETTINGS, "REDIS_URL": "nonsense"}
    command = [sys.executable, "-m", module]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    last = lines_of(done.stdout + done.stderr)[-1]
    assert last["level"] == "CRITICAL"
    assert "redis_url" in last["message"].lower()


def test_a_traceback_and_a_warning_are_one_line_each() -> None:
    code = """
import threading, warnings
from jobs.logs.formats import configure_logging
configure_logging("json")
warnings.warn("careful")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("two\\nlines")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    warning, *errors = lines_of(done.stdout + done.stderr)
    assert "careful" in warning["message"]
    assert ["ZeroDivisionError" in errors[0]["exception"], "two\nlines" in errors[1]["exception"]] == [True, True]
    assert done.returncode == 1
