"""What `darkroom-host` has compose do, with stand-ins for docker, aws and the metadata. No engine is needed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a key to Redis' user")

DOCKER = """#!/bin/bash
cd "$(dirname "$0")/.."
line="$*"
if [[ $line == compose* ]]; then
  grep -o -- '--file [^ ]*' <<<"$line" | cut -d ' ' -f 2 | xargs >files
  echo "${UPLOADS_URL:+folder }${line#*release.env }" | sed 's/--file [^ ]* //g' >>log
fi
case $line in
  login*) cat >/dev/null ;;
  run*) tar -C bin -c --files-from /dev/null ;;
  *"config --images") echo registry/darkroom-worker:1 ;;
  *"hget stats spooled") head -n 1 spooled; sed -i 1d spooled ;;
  compose*" up "*) ! grep -qxF -e "${line##* up }" fails ;;
esac
"""
AWS = """#!/bin/bash
line="$*"
case $line in
  *get-login-password*) echo password ;;
  *--name*) name=${line#*--name }; cat "$(dirname "$0")/../parameters${name%% *}" ;;
esac
"""
CURL = """#!/bin/bash
case $* in *local-ipv4) echo 10.0.0.5 ;; *) echo token ;; esac
"""
UP = "up --detach --no-build --pull never --wait --wait-timeout 300"
CONFIGURATION = {
    "NAME": "n",
    "AWS_DEFAULT_REGION": "r",
    "REGISTRY": "registry",
    "TAG_PARAMETER": "/n/tag",
    "ENVIRONMENT_PARAMETER": "/n/environment",
    "VOLUME": "vol-1",
    "ADDRESS": "a",
    "GPU": "",
    "S3": "",
}


class HostScript:
    """The script with its folders below another root."""

    def __init__(self, root: Path, **configuration: str) -> None:
        self.root = root
        for name, text in {"docker": DOCKER, "aws": AWS, "curl": CURL, "sleep": "#!/bin/sh\n"}.items():
            self._write(f"bin/{name}", text).chmod(0o755)
        values = CONFIGURATION | configuration
        self._write("etc/darkroom/host.conf", "".join(f"{name}={value}\n" for name, value in values.items()))
        script = (ROOT / "deploy/ec2/host/darkroom-host.sh").read_text()
        script = re.sub(r"(?<=[ =])/(etc|opt|run|srv)/darkroom", rf"{root}/\1/darkroom", script)
        self._write("darkroom-host", script).chmod(0o755)
        for name in ("log", "spooled", "fails"):
            self._write(name, "")
        (root / "run").mkdir()
        self.parameter("/n/workers/redis.crt", "certificate")
        self.parameter("/n/redis.key", "key")

    def runs(self, environment: str, release: str = "TAG=0\n") -> None:
        self._write("opt/darkroom/current/.env", environment)
        self._write("opt/darkroom/current/release.env", release)

    def parameter(self, name: str, value: str) -> None:
        self._write(f"parameters{name}", value)

    def counts(self, *sizes: int | str) -> None:
        """What Redis counts outside of it, each time that it is asked."""
        self._write("spooled", "".join(f"{size}\n" for size in sizes))

    def fails(self, *arguments: str) -> None:
        self._write("fails", "".join(f"{UP[3:]} {line}\n" for line in arguments))

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        (self.root / "log").write_text("")
        environment = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        environment.pop("UPLOADS_URL", None)
        command = [str(self.root / "darkroom-host"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    @property
    def steps(self) -> list[str]:
        """What compose was told, without what only reads."""
        lines = (self.root / "log").read_text().replace(UP, "up").splitlines()
        return [line for line in lines if line.split()[0] not in ("config", "ps", "logs", "exec")]

    @property
    def files(self) -> list[str]:
        """Of compose, in the last call."""
        return (self.root / "files").read_text().split()

    def release(self) -> dict[str, str]:
        text = (self.root / "opt/darkroom/current/release.env").read_text()
        return dict(line.split("=", 1) for line in text.splitlines())

    def _write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


@pytest.fixture
def first(tmp_path: Path) -> HostScript:
    return HostScript(tmp_path)


@pytest.fixture
def worker(tmp_path: Path) -> HostScript:
    return HostScript(
        tmp_path,
        VOLUME="''",
        ADDRESS="''",
        TAG_PARAMETER="/n/workers/tag",
        ENVIRONMENT_PARAMETER="/n/workers/environment",
    )


def test_workers_go_before_the_api(first: HostScript) -> None:
    first.runs("A=1\n")
    first.parameter("/n/environment", "A=2\n")
    done = first("upgrade", "1")
    assert done.returncode == 0, done.stderr
    assert first.steps == ["up --no-deps worker outbound", "up --no-deps api", "up --remove-orphans"]
    assert first.release() == {"REGISTRY": "registry/", "TAG": "1"}
    assert first.files == ["docker-compose.yml", "docker-compose.ec2.yml"]


def test_redis_opens_on_the_private_address_and_uploads_move_into_it(first: HostScript) -> None:
    """The API stops, and the folder is emptied by workers that look into it, before any other reads Redis alone."""
    first.runs("A=1\n")
    first.parameter("/n/environment", "A=1\nREDIS_TLS_PORT=6380\n")
    first.counts(7, 5, 0)
    done = first("upgrade", "1")
    assert done.returncode == 0, done.stderr
    assert first.steps == [
        "stop api",
        "up --no-deps redis",
        "folder up --no-deps worker outbound",
        "folder up --no-deps worker outbound",
        "stop worker outbound",
        "up --no-deps api",
        "up --remove-orphans",
    ]
    assert first.files == ["docker-compose.yml", "docker-compose.ec2.yml", "docker-compose.hosts.yml"]
    tls = first.root / "etc/darkroom/tls"
    assert first.release() == {
        "REGISTRY": "registry/",
        "TAG": "1",
        "REDIS_TLS_FOLDER": str(tls),
        "REDIS_TLS_BIND": "10.0.0.5",
        "UPLOADS_URL": "redis:",
    }
    assert (tls / "redis.crt").read_text() == "certificate"
    key = (tls / "redis.key").stat()
    assert (key.st_uid, key.st_mode & 0o777) == (999, 0o600)
    assert (tls / "redis.crt").stat().st_mode & 0o777 == 0o444
    assert tls.stat().st_mode & 0o777 == 0o755

    first.runs("A=1\nREDIS_TLS_PORT=6380\n", "TAG=1\nUPLOADS_URL=redis:\n")
    assert first("upgrade", "1").returncode == 0
    assert first.steps[0] == "up --no-deps worker outbound", "they do not move again"


def test_uploads_that_are_never_done_keep_the_former_release(first: HostScript) -> None:
    first.runs("A=1\n")
    first.parameter("/n/environment", "REDIS_TLS_PORT=6380\n")
    first.counts(7)
    first.fails("--no-deps worker outbound")
    done = first("upgrade", "1")
    assert done.returncode == 1
    assert first.steps[-4:] == ["stop api", "stop worker outbound", "up --no-deps api", "up --remove-orphans"]
    assert "7 bytes of uploads wait in file:///var/lib/darkroom/uploads" in done.stdout
    assert "1 did not get healthy; 0 runs again" in done.stderr
    assert first.release() == {"TAG": "0"}


def test_uploads_of_s3_are_done_before_they_are_looked_for_elsewhere(first: HostScript) -> None:
    first.runs("UPLOADS_URL=s3://a/b\n")
    first.parameter("/n/environment", "UPLOADS_URL=redis:\n")
    first.counts(7, 0)
    done = first("upgrade", "1")
    assert done.returncode == 0, done.stderr
    assert "7 bytes of uploads wait in s3://a/b" in done.stdout
    assert first.steps[:2] == ["stop api", "up --no-deps redis"]
    assert first.steps[2].endswith("up --no-deps worker outbound")
    assert first.steps[3:] == ["stop worker outbound", "up --no-deps api", "up --remove-orphans"]


def test_an_error_of_redis_is_no_empty_place(first: HostScript) -> None:
    first.runs("A=1\n")
    first.parameter("/n/environment", "REDIS_TLS_PORT=6380\n")
    first.counts("LOADING Redis is loading the dataset in memory")
    done = first("upgrade", "1")
    assert done.returncode == 1
    assert "Redis does not say what waits: LOADING" in done.stderr


def test_uploads_in_s3_stay_there(first: HostScript) -> None:
    first.runs("UPLOADS_URL='s3://a/b'\n")
    first.parameter("/n/environment", 'REDIS_TLS_PORT=6380\nUPLOADS_URL="s3://a/b"\n')
    assert first("upgrade", "1").returncode == 0
    assert first.steps[0] == "up --no-deps worker outbound"
    assert "UPLOADS_URL" not in first.release()
    assert first.files[2:] == ["docker-compose.s3.yml", "docker-compose.hosts.yml"]


def test_back_to_the_folder_the_api_goes_first(first: HostScript) -> None:
    """It marks the folder, without which workers do not start."""
    first.runs("REDIS_TLS_PORT=6380\n", "TAG=0\nUPLOADS_URL=redis:\n")
    first.parameter("/n/environment", "A=1\n")
    assert first("upgrade", "1").returncode == 0
    assert first.steps == ["stop api", "stop worker outbound", "up --no-deps api", "up --remove-orphans"]


def test_a_worker_host_starts_without_volume_and_address(worker: HostScript) -> None:
    worker.parameter("/n/workers/tag", "1")
    worker.parameter("/n/workers/environment", "UPLOADS_URL=redis:\nREDIS_URL=rediss://x\n")
    (worker.root / "parameters/n/redis.key").unlink()  # its role may not read it
    done = worker("start")
    assert done.returncode == 0, done.stderr
    assert worker.steps == ["up --remove-orphans"]
    assert worker.release() == {
        "REGISTRY": "registry/",
        "TAG": "1",
        "REDIS_TLS_FOLDER": f"{worker.root}/etc/darkroom/tls",
    }
    assert [it.name for it in (worker.root / "etc/darkroom/tls").iterdir()] == ["redis.crt"]
    assert worker.files == ["docker-compose.worker.yml"]
    assert worker("upgrade", "2").returncode == 0
    assert worker.steps == ["up --remove-orphans"]
    assert worker("stop").returncode == 0
    assert worker.steps == ["stop"]


def test_a_worker_host_goes_back(worker: HostScript) -> None:
    worker.runs("A=1\n")
    worker.parameter("/n/workers/environment", "A=2\n")
    (worker.root / "parameters/n/workers/redis.crt").unlink()
    done = worker("upgrade", "1")
    assert done.returncode == 1
    assert "1 cannot be fetched; 0 runs on" in done.stderr
    assert worker.steps == []
