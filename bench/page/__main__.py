"""What the page at / costs a browser: first paint, frames and nodes with many pictures, memory with large ones.

    .venv/bin/python -m bench.page [--photos 200]

Debian's chromium, on the machine that also classifies. The first paint is the median of several visits with a CPU
slowed four times. Memory is that of the tab's process, without what it shares with others (/proc/PID/smaps_rollup).
"""

import argparse
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page

from bench.networks import MEGAPIXELS_12, PHOTO_BYTES
from bench.photos import jpeg, photo
from tests.integration.web.browser import Visitor, chromium
from tests.support.pictures import samples
from tests.support.processes import ROOT
from tests.support.stack import Stack
from training.data import load_fashion_mnist

VISITS, SLOWED = 7, 4
PICTURES = 5000
DIFFERENT_PHOTOS = 8
SAMPLE_SECONDS = 0.2
TIMEOUT_MS = 600_000
REACH = {"first paint": "1 s", "frame": "200 ms", "nodes": "600", "memory": "400 MB"}
_WATCH = """
window.seen = { frame: 0, slow: 0, nodes: 0 };
let before = performance.now();
const look = (now) => {
  window.seen.frame = Math.max(window.seen.frame, now - before);
  if (now - before > 50) window.seen.slow += 1;
  window.seen.nodes = Math.max(window.seen.nodes, document.getElementsByTagName("*").length);
  before = now;
  requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""


@contextmanager
def visitor(browser: Browser, url: str) -> Iterator[Visitor]:
    context = browser.new_context(viewport={"width": 1180, "height": 820})
    context.set_default_timeout(TIMEOUT_MS)
    try:
        yield Visitor(context, url)
    finally:
        context.close()


def first_paint_ms(browser: Browser, url: str) -> float:
    found = []
    for _ in range(VISITS):
        with visitor(browser, url) as person:
            person.context.new_cdp_session(person.page).send("Emulation.setCPUThrottlingRate", {"rate": SLOWED})
            page = person.open()
            page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
            found.append(float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")))
    return statistics.median(found)


def many_pictures(browser: Browser, url: str) -> dict[str, float]:
    """The longest frame in ms, frames over 50 ms, and the most nodes, while the results of many pictures come in."""
    with visitor(browser, url) as person:
        page = person.open()
        person.drop({"#.png": samples()["0018-bag.png"]}, count=PICTURES)
        page.locator(".job h2").first.wait_for()
        page.evaluate(_WATCH)
        page.get_by_text(f"All {PICTURES:,} classified").first.wait_for()
        seen: dict[str, float] = page.evaluate("window.seen")
        return seen


def large_photos(browser: Browser, url: str, photos: int) -> dict[str, float]:
    """The most memory in MB of the tab's process, and its memory before anything was dropped."""
    with TemporaryDirectory() as folder, visitor(browser, url) as person:
        paths = _write_photos(Path(folder), photos)
        page = person.open()
        pids = _renderers(browser)
        with _watching(pids) as most:
            empty = sum(map(_private_bytes, pids))
            page.locator("input[type=file]").first.set_input_files(paths)
            _scroll_until(page, f"All {photos} classified")
        return {"empty": empty / 1e6, "most": most[0] / 1e6}


def _scroll_until(page: Page, headline: str) -> None:
    """As who looks at all thumbnails while the results come in."""
    done = page.get_by_text(headline).first
    while not done.is_visible():
        for part in (0, 0.5, 1):
            page.evaluate(f"window.scrollTo(0, {part} * document.documentElement.scrollHeight)")
            page.wait_for_timeout(1000 * SAMPLE_SECONDS)


def _write_photos(folder: Path, photos: int) -> list[Path]:
    rng = np.random.default_rng(20)
    products = load_fashion_mnist(ROOT / "data/training").test.images
    different = [jpeg(photo(products[it], rng, MEGAPIXELS_12), PHOTO_BYTES) for it in range(DIFFERENT_PHOTOS)]
    paths = [folder / f"{number:03}.jpg" for number in range(photos)]
    for number, path in enumerate(paths):
        path.write_bytes(different[number % DIFFERENT_PHOTOS])
    return paths


def _renderers(browser: Browser) -> list[int]:
    """The processes of tabs."""
    session = browser.new_browser_cdp_session()
    found: list[dict[str, Any]] = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return [int(it["id"]) for it in found if it["type"] == "renderer"]


@contextmanager
def _watching(pids: list[int]) -> Iterator[list[int]]:
    """The most bytes that the processes had together."""
    most, ended = [0], Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            most[0] = max(most[0], sum(map(_private_bytes, pids)))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def _private_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200, help="of 12 megapixels")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        uploads = Path(folder) / "uploads"
        uploads.mkdir()
        settings = {"MODEL": "fmnist-cnn", "DEFAULT_MODEL": "fmnist-cnn", "UPLOADS_URL": f"file://{uploads}"}
        with Stack(Path(folder), maxmemory_bytes=1 << 30, **settings) as stack, chromium() as browser:
            api = stack.api()
            stack.worker()
            paint_ms = first_paint_ms(browser, api.url)
            print(f"first paint, CPU slowed {SLOWED} times: {paint_ms:.0f} ms (asked: {REACH['first paint']})")
            seen = many_pictures(browser, api.url)
            print(
                f"{PICTURES:,} pictures: longest frame {seen['frame']:.0f} ms (asked: {REACH['frame']}), "
                f"{seen['slow']:.0f} frames over 50 ms, {seen['nodes']:.0f} nodes (asked: {REACH['nodes']})"
            )
            memory = large_photos(browser, api.url, options.photos)
            print(
                f"{options.photos} photos of 12 megapixels: the tab has {memory['most']:.0f} MB at most "
                f"(asked: {REACH['memory']}), {memory['empty']:.0f} MB before"
            )


if __name__ == "__main__":
    main()
