"""The address in a `redis://`, `rediss://` or `unix://` URL."""

import ssl
from dataclasses import dataclass
from typing import Any, cast

from redis.connection import SSLConnection, parse_url

from jobs.errors import SettingsError
from jobs.settings import TLS_FILES


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
    """The parts of the URL, as redis-py reads it.

    Raises:
        SettingsError: redis-py does not understand it, or a file that it names for TLS cannot be read.
    """
    parse = cast("Any", parse_url)  # redis-py has no types for it
    try:
        parts: dict[str, Any] = parse(redis_url)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from None
    encrypted = parts.get("connection_class") is SSLConnection
    return RedisAddress(
        host=parts.get("host", "127.0.0.1"),
        port=int(parts.get("port", 6379)),
        unix_socket=parts.get("path"),
        tls=_tls_context(*map(parts.get, TLS_FILES)) if encrypted else None,
        username=parts.get("username", "default"),
        password=parts.get("password"),
        database=int(parts.get("db") or 0),
    )


def _tls_context(authority: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        if authority is not None:  # beside the system's, as redis-py does
            context.load_verify_locations(authority)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:
        raise SettingsError(f"REDIS_URL: a file of TLS cannot be read: {error.strerror or error}") from None
    return context
