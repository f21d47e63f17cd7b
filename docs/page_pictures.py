"""Takes the pictures of the page in docs/pictures/: `make pictures`. Needs Debian's chromium.

.venv/bin/python -m docs.page_pictures
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.integration.web.browser import Visitor, chromium
from tests.support.pictures import samples
from tests.support.stack import Stack

FOLDER = Path(__file__).parent / "pictures"
WIDE, PHONE = {"width": 1180, "height": 820}, {"width": 390, "height": 844}
PICTURES = samples()


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[tuple[Visitor, Page]]:
    context = browser.new_context(**options)
    try:
        visitor = Visitor(context, url)
        page = visitor.open()
        expect(page.locator(".strip")).to_be_visible()
        yield visitor, page
    finally:
        context.close()


def take(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)  # until the thumbnails are drawn
    page.screenshot(path=FOLDER / f"{name}.png")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, Stack(Path(folder), MODEL="fmnist-cnn", DEFAULT_MODEL="fmnist-cnn") as stack:
        api = stack.api()
        stack.worker()
        with chromium() as browser:
            with visiting(browser, api.url, viewport=WIDE) as (visitor, page):
                take(page, "empty")
                visitor.drop(PICTURES)
                visitor.headline("All 30 classified")
                take(page, "wide")
                page.locator(".cell").nth(4).click()
                take(page, "detail")
            with visiting(browser, api.url, viewport=WIDE, color_scheme="dark") as (visitor, page):
                visitor.drop(PICTURES)
                visitor.headline("All 30 classified")
                take(page, "dark")
            with visiting(browser, api.url, viewport=PHONE, device_scale_factor=2) as (visitor, page):
                visitor.drop(PICTURES)
                visitor.headline("All 30 classified")
                take(page, "phone")
            with visiting(browser, api.url, viewport=WIDE) as (visitor, page):
                visitor.drop({**PICTURES, "notes.png": b"no picture", "half.png": PICTURES["0018-bag.png"][:200]})
                visitor.headline("30 of 32 classified · 2 failed")
                page.get_by_role("button", name="Failed 2").click()
                take(page, "failed")


if __name__ == "__main__":
    main()
