"""Somebody who comes back: the jobs of this browser, and a job by its address in another."""

import json
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.integration.web.browser import Visitor
from tests.integration.web.conftest import Visit
from tests.support.pictures import samples
from tests.support.processes import Api
from tests.support.stack import Stack

BAG = samples()["0018-bag.png"]
LAPTOP = {"width": 1280, "height": 680}
DAY_MS = 86_400_000
KEY = "alice-key-0123456789"


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    folder = tmp_path / "clothes"
    folder.mkdir()
    for name in ("one.png", "two.png"):
        (folder / name).write_bytes(BAG)
    return folder


def classify(person: Visitor, folder: Path) -> Page:
    page = person.open()
    page.locator("input[webkitdirectory]").first.set_input_files(folder)
    person.headline("All 2 classified")
    return page


def come_back(person: Visitor) -> Page:
    """Close the tab, and open the plain address in another."""
    person.page.close()
    person.page = person.new_page()
    return person.open()


def remember(person: Visitor, *titles: str, until_ms: int) -> None:
    """As if this browser had made jobs of these titles, the newest first."""
    ids = [f"01a22d44-f505-7cf9-a716-0b0b1180bd{number:02}" for number in range(len(titles))]
    jobs = [
        {"id": id_, "title": title, "images": 12_345, "at": until_ms - DAY_MS, "until": until_ms}
        for id_, title in zip(ids, titles, strict=True)
    ]
    person.page.add_init_script(f"localStorage.setItem('darkroom.jobs', {json.dumps(json.dumps(jobs))})")


def test_a_job_is_found_again_after_its_tab_was_closed(visit: Visit, api: Api, clothes: Path) -> None:
    person = visit(api.url, viewport=LAPTOP)
    classify(person, clothes)
    page = come_back(person)
    row = page.locator(".earlier li")
    expect(row).to_be_in_viewport(ratio=1)
    expect(row).to_contain_text("2 pictures")
    expect(row).to_contain_text("kept until")
    page.get_by_role("link", name="clothes").click()
    person.headline("All 2 classified")
    expect(page.locator(".about")).to_contain_text("clothes · ")
    expect(page.locator(".about")).to_contain_text("kept until")
    expect(page).to_have_title("clothes – Darkroom")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "darkroom-clothes.csv"


def test_a_browser_keeps_a_job_that_it_has_opened_by_its_address(visit: Visit, api: Api, clothes: Path) -> None:
    page = classify(visit(api.url), clothes)
    other = visit(api.url, viewport=LAPTOP)
    page = other.open("/" + page.url.rpartition("/")[2])
    other.headline("All 2 classified")
    expect(page.locator(".about")).to_contain_text("one.png and 1 more · ")
    page = come_back(other)
    expect(page.get_by_role("link", name="one.png and 1 more")).to_be_in_viewport(ratio=1)


def test_a_job_by_its_address_waits_for_the_key(visit: Visit, server: Stack, clothes: Path) -> None:
    api = server.api(API_KEYS=json.dumps({"alice": KEY}))
    person, other = visit(api.url), visit(api.url, allowed=("401",))
    person.page.add_init_script(f"sessionStorage.setItem('darkroom.key', '{KEY}')")
    page = classify(person, clothes)
    page = other.open("/" + page.url.rpartition("/")[2])
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    other.headline("All 2 classified")
    expect(page.get_by_label("API key")).to_be_hidden()


def test_the_jobs_are_one_click_away_from_each_job(visit: Visit, api: Api) -> None:
    person = visit(api.url, viewport={"width": 320, "height": 568})
    page = person.open()
    expect(page.get_by_role("link", name="Your jobs")).to_have_count(0)  # there are none
    page.get_by_role("button", name="Bag", exact=True).click()
    person.headline("Classified")
    page.get_by_role("link", name="Your jobs").click()
    expect(page.get_by_role("link", name="bag.png")).to_be_in_viewport(ratio=1)
    expect(page).to_have_title("Darkroom")


def test_a_row_says_that_its_results_are_no_longer_kept(person: Visitor) -> None:
    remember(person, "holiday", until_ms=int(time.time() * 1000) - 1000)
    expect(person.open().locator(".earlier li")).to_contain_text("no longer kept")


def test_of_many_jobs_the_newest_are_shown(person: Visitor) -> None:
    remember(person, *(f"job {number}" for number in range(7)), until_ms=int(time.time() * 1000) + DAY_MS)
    page = person.open()
    expect(page.locator(".earlier li")).to_have_count(5)
    page.get_by_role("button", name="2 more").click()
    expect(page.locator(".earlier li")).to_have_count(7)


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_no_row_is_cut_and_each_can_be_tapped(visit: Visit, api: Api, width: int) -> None:
    person = visit(api.url, viewport={"width": width, "height": 700}, has_touch=True)
    long = "a-name-without-any-space-" * 4 + ".zip"
    remember(person, "shoes", long, "0000-ankle-boot.png and 12,344 more", until_ms=int(time.time() * 1000) + DAY_MS)
    page = person.open()
    rows = page.locator(".earlier li")
    expect(rows).to_have_count(3)
    for row in rows.all():
        targets = [it.bounding_box() for it in row.locator("a, button").all()]
        link, button = (box for box in targets if box)
        assert min(link["height"], button["height"], button["width"]) >= 44
        assert link["x"] >= 0
        assert button["x"] + button["width"] <= width
        assert link["x"] + link["width"] <= button["x"], "they do not overlap"
        assert abs(link["y"] - button["y"]) <= link["height"] / 2, "they are beside each other"
        for part in row.locator("a, span, small").all():
            assert part.evaluate("(it) => it.scrollWidth <= Math.max(it.clientWidth, it.offsetWidth)"), "nothing is cut"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    person.allowed.append("404")
    rows.first.locator("small").tap()
    person.headline("This job is gone: results are kept for a while only, or it belongs to another key")


def test_files_that_are_not_of_the_job_are_told(person: Visitor, clothes: Path, tmp_path: Path) -> None:
    page = classify(person, clothes)
    page.reload()
    person.headline("All 2 classified")
    (tmp_path / "other.png").write_bytes(BAG)
    page.get_by_label("Show pictures").set_input_files(tmp_path / "other.png")
    expect(page.get_by_role("alert")).to_have_text("None of those has a name of this job.")
    person.check()
    page.get_by_label("Show a folder").set_input_files(clothes)
    expect(page.locator(".cell canvas")).to_have_count(2)
