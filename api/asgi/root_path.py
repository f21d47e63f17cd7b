"""Takes `ROOT_PATH` off the path of a request: not every proxy strips its prefix."""

from starlette.types import ASGIApp, Receive, Scope, Send


class WithoutRootPath:
    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path
        self._prefix = f"{root_path}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")  # the lifespan has none
        if path == self._root_path or path.startswith(self._prefix):
            scope = {**scope, "path": path[len(self._root_path) :] or "/"}
        await self._app(scope, receive, send)
