"""One picture of the page in each of its states, beside each other: a part of `make pictures`."""

import base64
from collections.abc import Callable
from html import escape
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.integration.web.browser import SLOW_FOLDER, Held, Visitor
from tests.support.pictures import samples
from tests.support.processes import ROOT

_SIZE = ViewportSize(width=860, height=640)
_PICTURES = dict(list(samples().items())[:12])
_KEYS = '{"alice": "alice-key-0123456789"}'
_FULL = {"code": "queue_full", "title": "The queue is full", "status": 503}
_ABSENT = "01a22d44-f505-7cf9-a716-0b0b1180bd01"
_SHEET = """<!doctype html><style>
  body { margin: 0; padding: 24px; width: 1320px; background: #e7e7ea; font: 15px system-ui, "DejaVu Sans", sans-serif }
  main { display: grid; grid-template-columns: repeat(3, 1fr); gap: 24px }
  figure { margin: 0; color: #333 } img { width: 100%; display: block; margin-bottom: 8px }
</style><main>"""

State = Callable[[Visitor, Page], Any]


def _dragging(_: Visitor, page: Page) -> None:
    page.evaluate("document.body.dispatchEvent(new DragEvent('dragover', { bubbles: true, cancelable: true }))")


def _counting(visitor: Visitor, page: Page) -> None:
    bag = base64.b64encode(_PICTURES["0007-shirt.png"]).decode()
    page.evaluate(f"(() => {{ {SLOW_FOLDER.replace('BAG', bag)} }})()")
    visitor.drop({"holiday": b""})
    expect(page.get_by_text("Counting: 100 pictures")).to_be_visible()


def _uploading(visitor: Visitor, page: Page) -> None:
    held = Held(page, "**/items")
    visitor.drop(_PICTURES)
    held.wait()


def _canceled(visitor: Visitor, page: Page) -> None:
    _uploading(visitor, page)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Canceled · 0 of 12 classified").first).to_be_visible()


def _interrupted(visitor: Visitor, page: Page) -> None:
    job = httpx.post(f"{visitor.url}/v1/jobs?open=true").json()["id"]
    files = [("files", (name, data)) for name, data in _PICTURES.items()]
    httpx.post(f"{visitor.url}/v1/jobs/{job}/items", files=files)
    page.evaluate(f"location.hash = '#job={job}'")
    expect(page.get_by_role("button", name="Classify what has arrived")).to_be_visible()


def _gone(_: Visitor, page: Page) -> None:
    page.evaluate(f"location.hash = '#job={_ABSENT}'")
    expect(page.get_by_text("This job is gone").first).to_be_visible()


def _all_failed(visitor: Visitor, _: Page) -> None:
    visitor.drop({"notes.png": b"no picture", "half.png": _PICTURES["0007-shirt.png"][:200]})
    visitor.headline("0 of 2 classified · 2 failed")


def _unfamiliar(visitor: Visitor, page: Page) -> None:
    visitor.drop({"cat.jpg": (ROOT / "tests/photos/cat.jpg").read_bytes(), **_PICTURES})
    visitor.headline("All 13 classified")
    page.get_by_label("Sort").select_option("doubtful first")


def _earlier(visitor: Visitor, page: Page) -> None:
    visitor.drop(dict(list(_PICTURES.items())[:1]))
    visitor.headline("Classified")
    visitor.drop(_PICTURES)
    visitor.headline("All 12 classified")
    page.get_by_role("link", name="Your jobs").click()
    expect(page.locator(".earlier li")).to_have_count(2)


def _left_out(visitor: Visitor, _: Page) -> None:
    visitor.drop({"notes.txt": b"text", "scan.png": bytes((10 << 20) + 1), **_PICTURES})
    visitor.headline("All 12 classified")


def _too_many(visitor: Visitor, page: Page) -> None:
    visitor.drop({"#.png": b"x"}, count=20_001)
    expect(page.get_by_text("darkroom classify FOLDER")).to_be_visible()


def _away(visitor: Visitor, page: Page) -> None:
    page.route("**/items", lambda route: route.abort())
    visitor.drop(_PICTURES)
    expect(page.locator(".trouble")).to_be_visible()


def _full(visitor: Visitor, page: Page) -> None:
    headers = {"Retry-After": "7"}
    page.route("**/items", lambda route: route.fulfill(status=503, json=_FULL, headers=headers))
    visitor.drop(_PICTURES)
    expect(page.locator(".trouble")).to_be_visible()


def _no_worker(visitor: Visitor, page: Page) -> None:
    server = httpx.get(f"{visitor.url}/v1/server").json() | {"workers": 0}
    page.route("**/v1/server", lambda route: route.fulfill(json=server))
    page.reload()
    expect(page.get_by_text("No worker runs")).to_be_visible()


def _key_needed(_: Visitor, page: Page) -> None:
    expect(page.get_by_text("This server asks for a key")).to_be_visible()


def _key_wrong(_: Visitor, page: Page) -> None:
    page.get_by_label("API key").fill("a-wrong-key")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_text("This key is not accepted")).to_be_visible()


OPEN: dict[str, State] = {
    "pictures held over the page": _dragging,
    "counting a folder": _counting,
    "uploading": _uploading,
    "doubtful first": _unfamiliar,
    "earlier jobs": _earlier,
    "some left out": _left_out,
    "all failed": _all_failed,
    "canceled": _canceled,
    "an upload that was interrupted": _interrupted,
    "gone": _gone,
    "more than 20,000 files": _too_many,
    "the server is away": _away,
    "the queue is full": _full,
    "no worker": _no_worker,
}
WITH_KEYS: dict[str, State] = {"a key is needed": _key_needed, "the key is wrong": _key_wrong}
KEYS = {"API_KEYS": _KEYS}


def sheet_of_states(browser: Browser, open_url: str, closed_url: str) -> bytes:
    """A PNG with all states."""
    shown = list[str]()
    for url, states in ((open_url, OPEN), (closed_url, WITH_KEYS)):
        for name, state in states.items():
            context = browser.new_context(viewport=_SIZE)
            visitor = Visitor(context, url)
            page = visitor.open()
            expect(page.get_by_role("heading", name="Darkroom")).to_be_visible()
            state(visitor, page)
            page.mouse.move(0, 0)
            page.wait_for_timeout(300)  # until the thumbnails are drawn
            data = base64.b64encode(page.screenshot()).decode()
            shown.append(f'<figure><img src="data:image/png;base64,{data}">{escape(name)}</figure>')
            context.close()
    page = browser.new_page(viewport={"width": 1368, "height": 800})
    page.set_content(_SHEET + "".join(shown))
    picture = page.screenshot(full_page=True)
    page.close()
    return picture
