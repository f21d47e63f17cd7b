import asyncio
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from api.asgi.uvicorn_protocol import protocol_factory
from api.settings import ApiSettings

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
PIECE = bytes(64 << 10)


async def test_an_application_that_does_not_read_stops_the_client_after_half_a_mebibyte() -> None:
    reading, end = [True], asyncio.Event()

    class Transport(asyncio.Transport):
        def pause_reading(self) -> None:
            reading.append(False)

        def resume_reading(self) -> None:
            reading.append(True)

        def close(self) -> None:
            pass

    async def app(_scope: object, _receive: object, _send: object) -> None:
        await end.wait()

    factory: Callable[..., Any] = protocol_factory(ApiSettings(redis_url="unix:///nowhere"))
    config = uvicorn.Config(app, http=cast("type[asyncio.Protocol]", factory), interface="asgi3", log_config=None)
    config.load()
    protocol = factory(config=config, server_state=ServerState(), app_state={})
    protocol.connection_made(Transport())
    protocol.data_received(HEAD)
    for _ in range(8):
        protocol.data_received(PIECE)
        assert reading[-1]
    protocol.data_received(PIECE)
    assert not reading[-1]
    protocol.connection_lost(None)
    end.set()
    await asyncio.gather(*protocol.tasks)
