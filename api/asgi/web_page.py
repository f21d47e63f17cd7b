"""The page at /, whose files are in api/web/: nothing of it comes from elsewhere, and no script stands in the page."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from api.asgi.endpoint import add_page

FOLDER = Path(__file__).parents[1] / "web"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # all files of a page are of one release
}


class _Files(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update({name: _HEADERS[name] for name in ("X-Content-Type-Options", "Cache-Control")})
        return response


def add_web_page(app: FastAPI) -> None:
    page = Response((FOLDER / "index.html").read_text(), media_type="text/html", headers=_HEADERS)
    add_page(app, "/", page)
    app.mount("/web", _Files(directory=FOLDER))
