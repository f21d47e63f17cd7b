"""The edge: a real Caddy with the shipped Caddyfile, whose certificates are of its own authority."""

import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import Self

import httpx

from tests.support.processes import ROOT, Process, free_port
from tests.support.waiting import wait_until

CADDY = Path(sys.executable).parent / "caddy"
KEY = "edge-key-0123456789"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
CADDYFILE = ROOT / "deploy" / "edge" / "Caddyfile"


class Edge(Process):
    """In front of an upstream, `HOST:PORT`. The log has an access log's lines, too."""

    def __init__(self, upstream: str, folder: Path, *, domain: str = "localhost") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.domain = domain
        self.http_port, self.port = free_port(), free_port()
        self.url = f"https://{domain}:{self.port}"
        self.authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        environment = {
            "DOMAIN": domain,
            "UPSTREAM": upstream,
            "EDGE_HTTP_PORT": str(self.http_port),
            "EDGE_HTTPS_PORT": str(self.port),
            "XDG_DATA_HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
        }
        command = [str(CADDY), "run", "--config", str(CADDYFILE), "--adapter", "caddyfile"]
        super().__init__(command, folder / "edge.log", environment)

    def start(self) -> None:
        super().start()
        wait_until(self._answers, what="the edge")

    def tls(self) -> ssl.SSLContext:
        """Trusts this edge's authority alone."""
        return ssl.create_default_context(cafile=str(self.authority))

    def client(self, *, timeout_seconds: float = 30) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.tls(), timeout=timeout_seconds)

    def connect(self) -> ssl.SSLSocket:
        """A TLS connection of HTTP/1.1."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return self.tls().wrap_socket(plain, server_hostname=self.domain)

    def _answers(self) -> bool:
        assert self.running(), self.output()
        if not self.authority.exists():
            return False
        try:
            self.connect().close()
        except OSError:
            return False
        return True


class Sink:
    """An upstream that counts the bytes of one chunked request."""

    def __init__(self) -> None:
        self.received = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.upstream = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._take)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)
        self._server.close()

    def _take(self) -> None:
        self._server.settimeout(30)
        connection, _ = self._server.accept()
        end = b""
        with connection:
            while not end.endswith(b"0\r\n\r\n") and (data := connection.recv(1 << 16)):
                self.received += len(data)
                end = (end + data)[-5:]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
