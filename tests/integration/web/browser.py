"""A real browser that looks at the page, and what it may not complain of."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
_OPTIONS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""
_DROP = """
([files, text]) => {
  const transfer = new DataTransfer();
  for (const { name, type, data, count } of files) {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    for (let number = 0; number < (count ?? 1); number += 1) {
      transfer.items.add(new File([bytes], name.replace("#", String(number).padStart(5, "0")), { type }));
    }
  }
  if (text) transfer.setData("text/plain", text);
  const kind = EVENT === "paste" ? ClipboardEvent : DragEvent;
  const options = EVENT === "paste" ? { clipboardData: transfer } : { dataTransfer: transfer };
  document.body.dispatchEvent(new kind(EVENT, { bubbles: true, cancelable: true, ...options }));
}
"""
SLOW_FOLDER = """
// A folder of 100 pictures, and one below it that lists nothing until `listNow` is called.
const picture = (name) => ({ isFile: true, name, file: (done) => done(new File([PNG], name, { type: "image/png" })) });
const folder = (name, entries, ready) => ({
  isDirectory: true, name,
  createReader() {
    let listed = false;
    return { readEntries: async (done) => { await ready; done(listed ? [] : entries); listed = true; } };
  },
});
const ready = new Promise((resolve) => (window.listNow = resolve));
const PNG = Uint8Array.from(atob("BAG"), (character) => character.charCodeAt(0));
const entries = Array.from({ length: 100 }, (_, number) => picture(`${String(number).padStart(3, "0")}.png`));
DataTransferItem.prototype.webkitGetAsEntry = () => folder("holiday", [...entries, folder("z", [], ready)], null);
"""
COUNT_THUMBNAILS = """
const decode = createImageBitmap;
window.thumbnails = { drawn: 0, running: 0, mostAtOnce: 0 };
window.createImageBitmap = async (...options) => {
  thumbnails.drawn += 1;
  thumbnails.mostAtOnce = Math.max(thumbnails.mostAtOnce, ++thumbnails.running);
  return decode(...options).finally(() => (thumbnails.running -= 1));
};
"""
TIMEOUT_MS = 45_000
STALLS_MAX = 2  # answers 503: a busy disk keeps Redis from answering for two seconds, and the page asks again
expect.set_options(timeout=TIMEOUT_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """A person with a browser of their own."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.allowed = list[str]()
        """Parts of messages on the console that are expected."""
        self._messages = list[str]()
        self.page = self.new_page()

    def new_page(self) -> Page:
        page = self.context.new_page()
        page.add_init_script(_WATCH)
        page.on("console", lambda it: self._messages.append(it.text) if it.type == "error" else None)
        page.on("pageerror", lambda it: self._messages.append(f"page error: {it}"))
        return page

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.url + path)
        return self.page

    def drop(self, files: Mapping[str, bytes], *, text: str = "", event: str = "drop", count: int = 1) -> None:
        """Drop or paste files; with a `count`, so many of each, whose names have their number in the place of `#`."""
        described = [
            {"name": name, "type": _type(name), "data": base64.b64encode(data).decode(), "count": count}
            for name, data in files.items()
        ]
        self.page.evaluate(_DROP.replace("EVENT", f'"{event}"'), [described, text])

    def headline(self, text: Any) -> None:
        """Wait until the job's headline is this text."""
        expect(self.page.locator(".job h2").first).to_have_text(text)

    def cells(self) -> list[str]:
        """What a screen reader says of each visible picture."""
        return [str(it.get_attribute("aria-label")) for it in self.page.locator(".cell").all()]

    def check(self) -> None:
        """Nothing was blocked, nothing failed, and axe finds nothing."""
        violations = self.page.evaluate("window.violations ?? []")
        assert not violations, violations
        unexpected = [it for it in self._messages if not any(part in it for part in self.allowed)]
        stalls = [it for it in unexpected if "503 (Service Unavailable)" in it]
        assert len(stalls) <= STALLS_MAX, stalls
        assert len(unexpected) == len(stalls), unexpected
        found = Axe().run(self.page)
        assert found.violations_count == 0, found.generate_report()


class Held:
    """Requests that the browser sends, held back until `let_go`."""

    def __init__(self, page: Page, url: str) -> None:
        self._page, self._url = page, url
        self._routes = list[Route]()
        page.route(url, self._hold)

    def _hold(self, route: Route) -> None:
        self._routes.append(route)

    def wait(self) -> None:
        while not self._routes:
            self._page.wait_for_timeout(20)

    def let_go(self) -> None:
        for route in self._routes:
            route.continue_()
        self._page.unroute(self._url)


def _type(name: str) -> str:
    kinds = {"png": "image/png", "zip": "application/zip", "txt": "text/plain", "jpg": "image/jpeg"}
    return kinds.get(name.rpartition(".")[2], "")


def names(cells: Iterable[str]) -> list[str]:
    return [cell.partition(":")[0] for cell in cells]
