import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from chaos.lines import Line, Proxy
from tests.support.waiting import eventually

DEADLINE_SECONDS = 10


@asynccontextmanager
async def echo_server(path: Path) -> AsyncIterator[list[bytes]]:
    """A server that sends back what it gets; the list has it, too."""
    received = list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            received.append(data)
            writer.write(data)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield received
    finally:
        server.close()


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def read(reader: asyncio.StreamReader, size: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(size), DEADLINE_SECONDS)


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection closes."""
    return await asyncio.wait_for(reader.read(), DEADLINE_SECONDS)


async def test_a_line_leads_to_the_socket_itself_but_during_a_block(tmp_path: Path) -> None:
    line = Line(tmp_path / "line", tmp_path / "server")
    async with echo_server(tmp_path / "server") as received, connected(tmp_path / "line") as (direct_reader, direct):
        async with line.through_proxy() as proxy, connected(tmp_path / "line") as (reader, writer):
            proxy.hold()
            writer.write(b"held")
            direct.write(b"direct")
            assert await read(direct_reader, 6) == b"direct"
            assert received == [b"direct"]
            proxy.pass_on()
            assert await read(reader, 4) == b"held"
            await proxy.stop()
            assert await end_of(reader) == b""
        async with connected(tmp_path / "line") as (reader, writer):
            writer.write(b"again")
            assert await read(reader, 5) == b"again"


async def test_requests_arrive_although_their_replies_are_lost(tmp_path: Path) -> None:
    line = Line(tmp_path / "line", tmp_path / "server")
    async with (
        echo_server(tmp_path / "server") as received,
        line.through_proxy() as proxy,
        connected(tmp_path / "line") as (reader, writer),
    ):
        proxy.loses_replies = True
        writer.write(b"lost")
        await eventually(lambda: received, seconds=DEADLINE_SECONDS)
        await proxy.cut()
        assert await end_of(reader) == b""
        assert received == [b"lost"]


async def test_a_slow_line_takes_as_long_as_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept, sleep = list[float](), asyncio.sleep

    async def record(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    line = Line(tmp_path / "line", tmp_path / "server")
    async with (
        echo_server(tmp_path / "server"),
        line.through_proxy() as proxy,
        connected(tmp_path / "line") as (reader, writer),
    ):
        proxy.bytes_per_second = 1000
        monkeypatch.setattr("chaos.lines.asyncio.sleep", record)
        writer.write(bytes(10_000))
        assert await read(reader, 10_000) == bytes(10_000)
    assert sum(slept) == pytest.approx(20)  # there and back


async def test_a_proxy_of_a_server_that_is_away_closes_what_it_accepts(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path / "nobody")
    await proxy.start(tmp_path / "proxy")
    async with connected(tmp_path / "proxy") as (reader, _):
        assert await end_of(reader) == b""
    await proxy.stop()
