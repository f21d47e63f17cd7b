"""Takes `ROOT_PATH` off the path of a request: not every proxy strips its prefix."""

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class WithoutRootPath:
    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path
        self._prefix = f"{root_path}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")  # the lifespan has none
        if path == self._root_path:  # the page's own addresses are relative to the path with its slash
            await RedirectResponse(self._prefix)(scope, receive, send)
            return
        if path.startswith(self._prefix):
            scope = {**scope, "path": path[len(self._root_path) :]}
        await self._app(scope, receive, send)
