"""States of the page that pass quickly, held so that they can be looked at; and what it promises of itself."""

import base64
import re
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Route, expect

from jobs.settings import StoreSettings
from jobs.store.for_api.api_key_registry import ApiKeyRegistry
from jobs.store.for_api.api_keys import KeyLimits, Scope
from tests.integration.web.browser import SLOW_FOLDER, Held, Visitor, names
from tests.integration.web.conftest import NewStack, Visit
from tests.support.pictures import samples
from tests.support.processes import MAXMEMORY_BYTES, ROOT, Api
from tests.support.waiting import wait_until

BAG = samples()["0018-bag.png"]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def test_the_policy_is_the_strictest_that_the_page_works_with(api: Api) -> None:
    assert httpx.get(f"{api.url}/").headers["content-security-policy"] == POLICY


def test_pictures_held_over_the_page_show_where_they_go(person: Visitor) -> None:
    said = "getComputedStyle(document.body, '::after').content"
    page = person.open()
    assert page.evaluate(said) == "none"
    page.evaluate("document.body.dispatchEvent(new DragEvent('dragover', { bubbles: true, cancelable: true }))")
    assert page.evaluate(said) == '"Drop to classify"'
    person.check()
    page.evaluate("document.body.dispatchEvent(new DragEvent('dragleave', { bubbles: true }))")
    assert page.evaluate(said) == "none"


def test_a_large_folder_is_counted(person: Visitor) -> None:
    person.page.add_init_script(SLOW_FOLDER.replace("BAG", base64.b64encode(BAG).decode()))
    page = person.open()
    person.drop({"holiday": b""})
    expect(page.get_by_text("Counting: 100 pictures")).to_be_visible()
    person.check()
    page.evaluate("listNow()")
    person.headline("All 100 classified")


def test_an_upload_shows_its_bytes_and_then_its_classes(visit: Visit, new_stack: NewStack) -> None:
    stack = new_stack()
    person = visit(stack.api().url)
    page = person.open()
    held = Held(page, "**/items")
    person.drop({"#.png": BAG}, count=40)
    person.headline(re.compile(r"Uploading \d+ kB of \d+ kB · 0 of 40 classified"))
    expect(page.get_by_role("progressbar", name="Uploaded")).to_have_attribute("max", str(40 * len(BAG)))
    held.wait()
    expect(page.get_by_text("Another job: drop more pictures")).to_be_visible()
    person.check()
    held.let_go()
    person.headline("0 of 40 classified")
    expect(page.get_by_role("progressbar", name="Uploaded")).to_have_count(0)
    person.check()
    stack.worker(children=1)
    person.headline("All 40 classified")
    expect(page.locator(".job [role=status]")).to_have_text("All 40 classified")
    assert page.locator(".job [role=status]").evaluate("(it) => it.ariaLive ?? 'polite'") == "polite"


def test_a_full_queue_is_told_with_its_seconds(person: Visitor) -> None:
    person.allowed.append("503")
    page = person.open()
    full = {"code": "queue_full", "title": "The queue is full", "status": 503}
    page.route("**/items", lambda route: route.fulfill(status=503, json=full, headers={"Retry-After": "7"}), times=1)
    person.drop({"a.png": BAG})
    expect(page.locator(".trouble")).to_have_text("The queue is full: trying again in 7 s. Nothing is lost.")
    person.check()
    person.headline("Classified")


def test_an_upload_goes_on_with_another_key_when_its_own_is_revoked(visit: Visit, new_stack: NewStack) -> None:
    stack = new_stack()
    stack.worker(children=1)
    settings = StoreSettings(redis_url=stack.valkey.url, redis_maxmemory_bytes=MAXMEMORY_BYTES)
    registry = ApiKeyRegistry(settings)
    (first, key), (_, other) = (registry.create("alice", Scope.ALL, KeyLimits(), expires_ms=None) for _ in range(2))
    api = stack.api()

    def is_let_in() -> bool:
        return httpx.get(f"{api.url}/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200

    wait_until(is_let_in, what="the key")
    person = visit(api.url, allowed=("401", "503"))  # 503 on a busy machine, for which the page waits
    person.page.add_init_script(f"sessionStorage.setItem('darkroom.key', '{key}')")
    page = person.open()
    held = Held(page, "**/items")
    person.drop({"#.png": BAG}, count=40)
    held.wait()
    registry.revoke(first.id)
    wait_until(lambda: not is_let_in(), what="the end of the key")
    held.let_go()
    expect(page.get_by_text("This key is not accepted")).to_be_visible()
    page.get_by_label("API key").fill(other)
    page.get_by_label("remember it").check()
    page.get_by_role("button", name="Use this key").click()
    person.headline("All 40 classified")
    assert page.evaluate("localStorage.getItem('darkroom.key')") == other


def test_of_two_pictures_with_one_name_both_are_classified(person: Visitor, tmp_path: Path) -> None:
    files = [tmp_path / folder / "x.y.png" for folder in ("a", "b", "c")]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(BAG)
    person.open().locator("input[type=file]").first.set_input_files(files)
    person.headline("All 3 classified")
    assert names(person.cells()) == ["x.y.png", "x.y (2).png", "x.y (3).png"]


def test_counts_go_on_behind_the_pictures_that_are_shown(person: Visitor) -> None:
    """The job is made up: twelve thousand pictures would take the test a minute."""
    ended, total = 10_000, 12_000
    job_id = "01a22d44-f505-7cf9-a716-0b0b1180bd01"

    def job(route: Route) -> None:
        nonlocal ended
        if "wait=" in route.request.url:
            return  # for ever: the job does not end
        ended += 7
        counts = {"total": total, "pending": total - ended, "succeeded": ended, "failed": 0, "canceled": 0}
        route.fulfill(json={"id": job_id, "status": "running", "counts": counts, "completed_at": None})

    line = '{"index": %d, "name": null, "status": "succeeded", "class": "Bag", "confidence": 0.5, "top_k": []}\n'
    page = person.page
    page.route(f"**/v1/jobs/{job_id}*", job)
    page.route("**/results*", lambda route: route.fulfill(body="".join(line % number for number in range(ended))))
    person.open(f"/#job={job_id}")
    for seen in ("10,021", "10,028"):
        person.headline(f"{seen} of 12,000 classified")
    expect(page.get_by_text("The first 10,000 pictures are shown; files have all.")).to_be_visible()


def test_a_full_storage_keeps_nothing_and_breaks_nothing(person: Visitor) -> None:
    full = "throw new DOMException('', 'QuotaExceededError')"
    person.page.add_init_script(f"Storage.prototype.setItem = () => {{ {full} }}")
    page = person.open()
    page.get_by_role("button", name="Bag", exact=True).click()
    person.headline("Classified")


def test_a_reload_in_an_upload_is_asked_about_and_leaves_what_has_arrived(person: Visitor) -> None:
    page = person.open()
    person.allowed.append("ERR_")
    page.mouse.click(5, 5)  # a browser asks only whoever has touched the page
    held = Held(page, "**/items")
    asked = list[str]()

    def leave(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", leave)
    person.drop({"a.png": BAG})
    held.wait()
    page.reload()
    assert asked == ["beforeunload"]
    person.headline("This upload was interrupted: 0 pictures have arrived")


def test_a_model_is_chosen_and_what_is_unlike_its_pictures_is_marked(person: Visitor, api: Api) -> None:
    page = person.open()
    page.get_by_label("Model").select_option("fmnist-cnn@2")
    person.drop({"cat.jpg": (ROOT / "tests/photos/cat.jpg").read_bytes()})
    person.headline("Classified")
    job = httpx.get(f"{api.url}/v1/jobs/{page.url.partition('#job=')[2]}").json()
    assert job["result"]["model"] == "fmnist-cnn@2"
    page.get_by_role("button", name="Unfamiliar 1").click()
    page.locator(".cell").click()
    expect(page.get_by_text("This picture is unlike those that the model was trained on.")).to_be_visible()
