"""The instance metadata, version 2 alone: without its token it answers 401. And the VPC's DNS, of names in NAMES.

`metadata.py INSTANCE PRIVATE_ADDRESS`; NAMES has lines of a name and its address.
"""

import json
import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "token"
ROLE = "/latest/meta-data/iam/security-credentials/"
CREDENTIALS = {
    "Code": "Success",
    "Type": "AWS-HMAC",
    "AccessKeyId": "key",
    "SecretAccessKey": "secret",
    "Token": "session",
    "LastUpdated": "2026-01-01T00:00:00Z",
    "Expiration": "2099-01-01T00:00:00Z",
}


PAGES = {
    "/latest/meta-data/instance-id": sys.argv[1],
    "/latest/meta-data/local-ipv4": sys.argv[2],
    ROLE: "darkroom",
    f"{ROLE}darkroom": json.dumps(CREDENTIALS),
}


class Metadata(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        asked = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self.answer(200 if asked else 400, TOKEN if asked else "")

    def do_GET(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            self.answer(401, "")
        else:
            self.answer(200 if self.path in PAGES else 404, PAGES.get(self.path, ""))

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def resolved(query: bytes, names: dict[str, str]) -> bytes:
    """The answer to a query of DNS: an address of type A, or none."""
    labels, at = [], 12
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode())
        at += 1 + size
    kind, address = query[at + 1 : at + 3], names.get(".".join(labels).lower())
    record = b""
    if address and kind == b"\0\1":
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + socket.inet_aton(address)
    head = query[:2] + (b"\x81\x80" if address else b"\x81\x83") + b"\0\1\0" + bytes([bool(record)]) + bytes(4)
    return head + query[12 : at + 5] + record


def serve_dns() -> None:
    names = dict(line.split() for line in os.environ.get("NAMES", "").splitlines())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("169.254.169.253", 53))
        while True:
            query, client = server.recvfrom(1500)
            server.sendto(resolved(query, names), client)


Thread(target=serve_dns, daemon=True).start()
ThreadingHTTPServer(("169.254.169.254", 80), Metadata).serve_forever()
