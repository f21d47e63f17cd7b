"""Whether a client still waits for its response. The server marks who has left: `api/asgi/limited_protocol.py`.

A client that has shut its sending side looks like one that has left. It is answered at once: it waits for no job.
"""

from starlette.requests import Request

LEFT = "darkroom.left"  # in the `extensions` of a scope


def has_left(request: Request) -> bool:
    return LEFT in request.scope.get("extensions", ())


async def wait_for_disconnect(request: Request) -> None:
    while not has_left(request) and (await request.receive())["type"] != "http.disconnect":
        pass
