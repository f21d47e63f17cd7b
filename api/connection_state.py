"""What the server says in a request's scope while it is handled: `api/asgi/limited_protocol.py` writes it.

A client that has shut its sending side looks like one that has left. It is answered at once: it waits for no job.
"""

from starlette.requests import Request

LEFT = "darkroom.left"  # in the `extensions` of a scope: the client waits for no response
BODY_ARRIVED = "darkroom.body_arrived"  # there, too: `receive` returns without a wait until the body has been read


def has_left(request: Request) -> bool:
    return LEFT in request.scope.get("extensions", ())


async def wait_for_disconnect(request: Request) -> None:
    while not has_left(request) and (await request.receive())["type"] != "http.disconnect":
        pass
