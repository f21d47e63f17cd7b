"""The address in a `redis://`, `rediss://` or `unix://` URL."""

import ssl
from dataclasses import dataclass
from typing import Any, cast

from redis.connection import SSLConnection, parse_url


@dataclass(frozen=True, slots=True)
class RedisAddress:
    host: str
    port: int
    unix_socket: str | None
    tls: ssl.SSLContext | None
    username: str
    password: str | None
    database: int


def address_of(redis_url: str) -> RedisAddress:
    """The parts of the URL, as redis-py reads it."""
    parse = cast("Any", parse_url)  # redis-py has no types for it
    parts: dict[str, Any] = parse(redis_url)
    encrypted = parts.get("connection_class") is SSLConnection
    return RedisAddress(
        host=parts.get("host", "127.0.0.1"),
        port=int(parts.get("port", 6379)),
        unix_socket=parts.get("path"),
        tls=ssl.create_default_context(cafile=parts.get("ssl_ca_certs")) if encrypted else None,
        username=parts.get("username", "default"),
        password=parts.get("password"),
        database=int(parts.get("db") or 0),
    )
