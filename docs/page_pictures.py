"""Takes the pictures of the page and of the command in docs/pictures/: `make pictures`. Needs Debian's chromium.

.venv/bin/python -m docs.page_pictures
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Browser, Page, expect

from docs.page_states import KEYS, sheet_of_states
from tests.integration.client.conftest import command_environment, command_line
from tests.integration.web.browser import Visitor, chromium
from tests.support.pictures import samples
from tests.support.processes import ROOT
from tests.support.stack import Stack

FOLDER = Path(__file__).parent / "pictures"
WIDE, PHONE = {"width": 1180, "height": 820}, {"width": 390, "height": 844}
PICTURES = samples()
COMMANDS = (["classify", "tests/data", "--name", "000*.png", "--format", "table"], ["status"])
TERMINAL = """<!doctype html><style>
  body { margin: 0; display: inline-block; background: #17181c; border-radius: 10px }
  pre { margin: 0; padding: 26px 34px; color: #d6d8de; font: 15px/1.55 "DejaVu Sans Mono", monospace }
  b { color: #ffffff } b::before { content: "$ "; color: #7fb685 } i { color: #8b90a0; font-style: normal }
</style><pre>"""


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


def take_commands(browser: Browser, url: str, folder: Path) -> None:
    """What a terminal shows of each command: its results, and what it says of itself."""
    shown = []
    for arguments in COMMANDS:
        done = subprocess.run(
            command_line(*arguments),
            cwd=ROOT,
            env=command_environment(folder, url),
            capture_output=True,
            text=True,
            check=True,
        )
        line = " ".join(["darkroom", *(f"'{it}'" if "*" in it else it for it in arguments)])
        shown.append(f"<b>{escape(line)}</b>\n{escape(done.stdout)}<i>{escape(done.stderr)}</i>")
    page = browser.new_page(device_scale_factor=2)
    page.set_content(TERMINAL + "\n".join(shown))
    page.locator("body").screenshot(path=FOLDER / "command.png", omit_background=True)
    page.close()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, Stack(Path(folder), MODEL="fmnist-cnn", DEFAULT_MODEL="fmnist-cnn") as stack:
        api, closed = stack.api(), stack.api(**KEYS)
        stack.worker()
        with chromium() as browser:
            take_commands(browser, api.url, Path(folder))
            (FOLDER / "states.png").write_bytes(sheet_of_states(browser, api.url, closed.url))
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
