"""The page when the server is full, away, without workers, or asks for a key."""

import json
import re

import httpx
from playwright.sync_api import expect

from tests.integration.web.conftest import NewStack, Visit
from tests.support.pictures import samples
from tests.support.processes import Api
from tests.support.stack import Stack

BAG = samples()["0018-bag.png"]
KEYS = json.dumps({"alice": "alice-key-0123456789"})


def test_a_key_is_asked_for_and_kept_for_the_tab(visit: Visit, server: Stack) -> None:
    api = server.api(API_KEYS=KEYS)
    person = visit(api.url, allowed=("401",))
    page = person.open()
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_text("This key is not accepted")).to_be_visible()
    person.check()
    page.get_by_label("API key").fill("alice-key-0123456789")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_label("API key")).to_be_hidden()
    page.get_by_role("button", name="Bag", exact=True).click()
    person.headline("Classified")
    page.reload()
    person.headline("Classified")
    assert page.evaluate("[sessionStorage.length, localStorage.getItem('darkroom.key')]") == [1, None]


def test_a_key_that_is_revoked_is_asked_for_again(visit: Visit, server: Stack) -> None:
    api = server.api(API_KEYS=KEYS)
    person = visit(api.url, allowed=("401",))
    person.page.add_init_script("sessionStorage.setItem('darkroom.key', 'alice-key-0123456789')")
    page = person.open()
    page.get_by_role("button", name="Bag", exact=True).click()
    person.headline("Classified")
    page.route("**/v1/**", lambda route: route.fulfill(status=401, json={"code": "unauthorized", "title": "No"}))
    page.get_by_role("button", name="New job").click()
    page.get_by_role("button", name="Bag", exact=True).click()
    expect(page.get_by_text("This key is not accepted")).to_be_visible()


def test_a_server_that_goes_away_gets_no_picture_twice(visit: Visit, server: Stack) -> None:
    api = server.api()
    person = visit(api.url, allowed=("ERR_",))
    page = person.open()
    expect(page.locator(".strip")).to_be_visible()
    parts = list[str]()

    def stop_at_the_second_part(route: object) -> None:
        parts.append("")
        if len(parts) == 2:
            api.kill()
        route.continue_()  # type: ignore[attr-defined]

    page.route("**/items", stop_at_the_second_part)
    person.drop({"#.png": BAG}, count=600)
    expect(page.locator(".trouble")).to_contain_text("The server does not answer: trying again in")
    person.check()
    api.start()
    person.headline("All 600 classified")
    expect(page.locator(".trouble")).to_be_hidden()
    job = page.url.partition("#job=")[2]
    counts = httpx.get(f"{api.url}/v1/jobs/{job}").json()["counts"]
    assert (counts["total"], counts["succeeded"]) == (600, 600)


def test_a_full_queue_and_no_worker_are_waited_for(visit: Visit, new_stack: NewStack) -> None:
    stack = new_stack(OWNER_PENDING_ITEMS_MAX="300")
    person = visit(stack.api().url, allowed=("503", "429"))
    page = person.open()
    expect(page.get_by_text("No worker runs")).to_be_visible()
    person.drop({"#.png": BAG}, count=600)
    expect(page.locator(".trouble")).to_contain_text(re.compile("trying again in"))
    person.check()
    stack.worker(children=1)
    person.headline("All 600 classified")
    assert page.locator(".trouble").count() == 0


def test_a_picture_that_is_too_large_is_not_sent(visit: Visit, server: Stack) -> None:
    api: Api = server.api(ITEM_BYTES_MAX="10000")
    person = visit(api.url)
    page = person.open()
    expect(page.locator(".strip")).to_be_visible()
    person.drop({"small.png": BAG, "large.png": BAG + bytes(10_000)})
    person.headline("Classified")
    expect(page.locator(".message")).to_contain_text("Left out, as larger than 9 kB: large.png.")


def test_a_job_is_canceled(visit: Visit, new_stack: NewStack) -> None:
    person = visit(new_stack().api().url, allowed=("409",))  # the part that was under way came too late
    page = person.open()
    person.drop({"#.png": BAG}, count=40)
    page.get_by_role("button", name="Cancel").click()
    person.headline("Canceled · 0 of 40 classified")


def test_a_server_that_was_upgraded_is_told(visit: Visit, server: Stack) -> None:
    api = server.api()
    person = visit(api.url)
    page = person.open()
    expect(page.locator(".strip")).to_be_visible()
    state = httpx.get(f"{api.url}/v1/server").json() | {"version": "99.0"}
    page.route("**/v1/server", lambda route: route.fulfill(json=state))
    expect(page.get_by_text("The server was upgraded.")).to_be_visible()


def test_the_page_works_below_a_path(visit: Visit, server: Stack) -> None:
    api = server.api(ROOT_PATH="/shop/darkroom")
    person = visit(f"{api.url}/shop/darkroom")
    page = person.open()
    page.get_by_role("button", name="Bag", exact=True).click()
    person.headline("Classified")
