"""`python -m api.doctor`: each finding, against a real server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api import doctor
from api.settings import ApiSettings
from jobs import VERSION
from jobs.store import keys
from jobs.store.for_api.server_facts import read_server_facts
from jobs.store.keys import Heartbeat, LoadError
from tests.support.deploy.tls import Certificate, TlsFront
from tests.support.processes import MAXMEMORY_BYTES, ROOT, Valkey
from tests.support.store import Store

FAR_FUTURE = 10**15


def settings(valkey: Valkey, **others: object) -> ApiSettings:
    return ApiSettings.model_validate({"redis_url": valkey.url, "redis_maxmemory_bytes": MAXMEMORY_BYTES, **others})


def problems(check: doctor.Check, its_settings: ApiSettings) -> list[str]:
    return [finding.problem for finding in check(its_settings, read_server_facts(its_settings))]


def run(valkey_url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"REDIS_URL": valkey_url, "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES), **environment}
    command = [sys.executable, "-m", "api.doctor"]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_says_what_is_well_and_what_to_do(store: Store, valkey: Valkey, tmp_path: Path) -> None:
    failed = run(valkey.url)
    assert failed.returncode == 1
    assert "FAIL  versions: no worker serves a model\n      Start a worker" in failed.stdout
    assert "ok    aof\n" in failed.stdout
    store.redis.zadd(f"{keys.HEARTBEATS}m", {Heartbeat("m@1", "w", 1).pack(): FAR_FUTURE})
    well = run(valkey.url)
    assert (well.returncode, "FAIL" in well.stdout) == (0, False)
    gone = run(f"unix://{tmp_path}/none.sock")
    assert (gone.returncode, gone.stdout.startswith("FAIL  redis: ")) == (doctor.NO_REDIS, True)


def test_a_server_that_can_lose_jobs_is_found(tmp_path: Path) -> None:
    with Valkey(tmp_path / "vk") as server, server.client as client:
        assert problems(doctor.check_aof, settings(server)) == []
        client.config_set("appendfsync", "everysec")
        assert "power cut" in problems(doctor.check_aof, settings(server))[0]
        client.config_set("appendonly", "no")
        assert "no append-only file" in problems(doctor.check_aof, settings(server))[0]
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", MAXMEMORY_BYTES - 1)
        evicts, small = problems(doctor.check_memory, settings(server))
        assert "allkeys-lru" in evicts
        assert str(MAXMEMORY_BYTES - 1) in small


def test_a_disk_that_is_full_or_away_is_found(valkey: Valkey, tmp_path: Path) -> None:
    uploads = f"file://{tmp_path}"
    full = settings(valkey, uploads_url=uploads, uploads_free_bytes_min=1 << 60)
    assert "no large uploads" in problems(doctor.check_disk, full)[0]
    away = settings(valkey, uploads_url=f"{uploads}/away")
    assert "No such file" in problems(doctor.check_disk, away)[0]
    assert problems(doctor.check_disk, settings(valkey)) == []


def test_overcommit_is_found(valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OVERCOMMIT", tmp_path / "overcommit_memory")
    doctor.OVERCOMMIT.write_text("0\n")
    assert "overcommit_memory is not 1" in problems(doctor.check_overcommit, settings(valkey))[0]
    doctor.OVERCOMMIT.write_text("1\n")
    assert problems(doctor.check_overcommit, settings(valkey)) == []


def test_a_clock_that_differs_is_found(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(doctor.check_clock, settings(valkey)) == []
    monkeypatch.setattr("jobs.store.for_api.server_facts.time.time", lambda: 1e9)
    assert "clock" in problems(doctor.check_clock, settings(valkey))[0]


def test_versions_that_differ_and_models_that_are_not_served_are_found(store: Store, valkey: Valkey) -> None:
    now = int(store.redis.time()[0])
    members = {Heartbeat("m@1", "w", 1).pack(): FAR_FUTURE, Heartbeat("m@2", "v", 2).pack(): FAR_FUTURE}
    store.redis.zadd(f"{keys.HEARTBEATS}m", members)
    store.redis.zadd(f"{keys.HEARTBEATS}old", {Heartbeat("old@1", "w", 1).pack(): 1})
    store.redis.zadd(keys.LOAD_ERRORS, {LoadError("n", "w", "it is broken").pack(): now + 60})
    several, broken = problems(doctor.check_versions, settings(valkey))
    assert "m@1, m@2" in several
    assert "n is not served: it is broken" in broken


def test_workers_of_another_release_are_found(store: Store, valkey: Valkey) -> None:
    def found() -> list[str]:
        return [it for it in problems(doctor.check_versions, settings(valkey)) if "workers run" in it]

    store.leases.show_alive("this", seconds=60)
    assert found() == []
    for ref in ("@main", "@main@9.8.7"):  # as releases before 0.1.0 show themselves, and as a later one does
        store.redis.zadd(keys.HEARTBEATS + keys.MAIN, {Heartbeat(ref, "w", 1).pack(): FAR_FUTURE})
    assert found() == [f"this is Darkroom {VERSION}, and workers run 9.8.7, an earlier one"]


def test_an_open_port_without_a_key_is_found(valkey: Valkey) -> None:
    assert "does not start" in problems(doctor.check_keys, settings(valkey, bind="0.0.0.0"))[0]
    everybody = settings(valkey, bind="0.0.0.0", open_to_everybody=True)
    assert "everybody" in problems(doctor.check_keys, everybody)[0]
    with_key = settings(valkey, bind="0.0.0.0", api_keys={"alice": "a-key-of-alice-alone"})
    assert problems(doctor.check_keys, with_key) == problems(doctor.check_keys, settings(valkey)) == []


def test_a_certificate_that_expires_or_is_another_is_found(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = Certificate.make(tmp_path, "localhost")  # for an hour
    with TlsFront(certificate, valkey.socket) as front:
        monkeypatch.setenv("DARKROOM_EDGE", f"localhost:{front.port}")
        at_localhost = settings(valkey, domain="localhost")
        assert "CERTIFICATE_VERIFY_FAILED" in problems(doctor.check_certificate, at_localhost)[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
        assert problems(doctor.check_certificate, at_localhost) == ["that of localhost expires in 0 days"]
        assert "Hostname mismatch" in problems(doctor.check_certificate, settings(valkey, domain="a.example"))[0]
        monkeypatch.setattr(doctor, "CERTIFICATE_SECONDS_MIN", 60)
        assert problems(doctor.check_certificate, at_localhost) == []
    assert problems(doctor.check_certificate, settings(valkey)) == []
