"""The stack on two hosts: a Redis with TLS and the users of deploy/redis/users.conf, and services of these users."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Self

import redis

from chaos.clients.load import OWNERS
from chaos.fleet import MODELS, write_models
from chaos.hosts.network import FIRST, python_on
from jobs.store import keys
from tests.support.deploy.tls import Certificate
from tests.support.outbound import SECRET
from tests.support.processes import ROOT, Api, Process, Worker
from tests.support.waiting import wait_until

MAXMEMORY_BYTES = 512 << 20
REDIS_PORT = 6380
PASSWORDS = {"ADMIN_HASH": "of-the-administrator", "API_HASH": "of-the-api", "WORKER_HASH": "of-workers"}


class RedisServer(Process):  # type: ignore[misc]  # mypy skips the tests
    """Redis 7.0 of Debian's redis-tools, configured as deploy/redis/start does, with TLS alone."""

    def __init__(self, folder: Path, certificate: Certificate, log: Path) -> None:
        folder.mkdir()
        config = folder / "redis.conf"
        own = (ROOT / "deploy/redis/redis.conf").read_text().replace("/var/lib/darkroom", str(folder))
        users = (ROOT / "deploy/redis/users.conf").read_text()
        for name, password in PASSWORDS.items():
            users = users.replace(f"#{name}", f">{password}")
        options = {
            "port": 0,
            "tls-port": REDIS_PORT,
            "tls-cert-file": certificate.certificate,
            "tls-key-file": certificate.key,
            "tls-auth-clients": "no",
            "maxmemory": MAXMEMORY_BYTES,
        }
        config.write_text("\n".join([own, users, *(f"{name} {value}" for name, value in options.items()), ""]))
        command = f"exec -a redis-server {_binary()} {config}"  # one program, which looks at its name
        super().__init__(["bash", "-c", command], log)
        self._authority = certificate.certificate

    def url(self, user: str, password: str, host: str = FIRST) -> str:
        return f"rediss://{user}:{password}@{host}:{REDIS_PORT}/0?ssl_ca_certs={self._authority}"

    def start(self) -> None:
        super().start()
        with redis.Redis.from_url(self.url("default", PASSWORDS["ADMIN_HASH"])) as client:
            wait_until(lambda: self._answers(client), what="Redis")

    def _answers(self, client: Any) -> bool:
        try:
            return bool(client.ping())
        except redis.exceptions.RedisError:
            assert self.running(), self.output()
            return False


def _binary() -> str:
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if found is None:
        sys.exit("there is no Redis here: apt-get install redis-tools")
    return found


class NoUploads:
    """With `UPLOADS_URL=redis:` there are no files, as no folder is shared."""

    @staticmethod
    def names() -> list[str]:
        return []


class TwoHosts:
    def __init__(self, folder: Path, logs: Path, second: str, *, workers: int, **settings: str) -> None:
        """`second` is the namespace of the workers; this process is in the other one."""
        write_models(folder / "models")
        self.models_dir = folder / "models"
        certificate = Certificate.make(folder, FIRST)
        self.server = RedisServer(folder / "redis", certificate, logs / "redis.log")
        settings = {
            "REDIS_MAXMEMORY_BYTES": str(MAXMEMORY_BYTES),
            "UPLOADS_URL": "redis:",
            "MODELS": ",".join(MODELS),
            "MODELS_DIR": str(self.models_dir),
            "API_KEYS": json.dumps(OWNERS),
            "WEBHOOK_SECRETS": json.dumps(dict.fromkeys(OWNERS, SECRET)),
            "FETCH_ALLOW_NETWORKS": '["127.0.0.0/8"]',
            "PYTHONPATH": str(ROOT),
        } | settings
        of_api, of_worker = (self.server.url(name, PASSWORDS[f"{name.upper()}_HASH"]) for name in ("api", "worker"))
        self.api = Api(of_api, logs / "api.log", **settings)
        outbound = [sys.executable, "-m", "worker.outbound"]
        self.outbound = Process(outbound, logs / "outbound.log", {"REDIS_URL": of_worker, **settings})
        self.workers = [
            Worker(of_worker, logs / f"worker{number}.log", children=1, **settings) for number in range(workers)
        ]
        for worker in self.workers:
            worker.arguments = python_on(second, "-m", "worker")
        admin = self.server.url("default", PASSWORDS["ADMIN_HASH"])
        self.redis: Any = redis.Redis.from_url(admin, socket_timeout=5)
        self.uploads = NoUploads()
        self.starts = 0
        """Of workers that have exited, as the watchdog may, and were started again."""

    def __enter__(self) -> Self:
        try:
            for process in (self.server, self.api, self.outbound, *self.workers):
                process.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.redis.close()
        for process in (*self.workers, self.outbound, self.api, self.server):
            process.stop()

    @property
    def urls(self) -> list[str]:
        return [self.api.url]

    def stat(self, name: str) -> int:
        return int(self.redis.hget(keys.STATS, name) or 0)

    def pending(self) -> int:
        """Images of all owners that have not ended."""
        return sum(self.stat(f"pending:{owner}") for owner in OWNERS)

    def restart_exited(self) -> None:
        """Start workers that have exited, without waiting for them."""
        for worker in self.workers:
            if not worker.running():
                Process.start(worker)
                self.starts += 1
