"""Somebody who has never seen the page: what it says of itself, and in which order."""

import json
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from tests.integration.web.browser import Visitor, names
from tests.support.pictures import samples
from tests.support.processes import ROOT

PICTURES = samples()
BAG, TROUSER = PICTURES["0018-bag.png"], PICTURES["0002-trouser.png"]
CAT = (ROOT / "tests/photos/cat.jpg").read_bytes()


def chips(page: Page) -> list[str]:
    found = page.get_by_role("group", name="Show").get_by_role("button").all_inner_texts()
    return [" ".join(text.split()) for text in found]


def test_the_samples_say_what_they_are(person: Visitor) -> None:
    page = person.open()
    shown = page.locator(".samples button")
    expect(shown).to_have_text(["Ankle boot", "Bag", "Dress", "Sneaker", "Shirt", "Trousers"])
    for name in ("Ankle boot", "Trousers"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()


def test_the_classes_are_those_of_the_model_that_is_chosen(person: Visitor) -> None:
    page = person.open()
    expect(page.get_by_label("Model").locator("option:checked")).to_have_text("fmnist-mlp")
    expect(page.get_by_text("fmnist-mlp tells 10 classes apart")).to_be_visible()
    page.get_by_label("Model").select_option("fmnist-cnn@2")
    expect(page.get_by_text("fmnist-cnn tells 10 classes apart")).to_be_visible()


def test_a_chosen_folder_is_in_the_order_of_its_names(person: Visitor, tmp_path: Path) -> None:
    shown = [f"{number:02}.png" for number in range(12)]
    for name in reversed(shown):
        (tmp_path / name).write_bytes(BAG)
    person.open().locator("input[webkitdirectory]").first.set_input_files(tmp_path)
    person.headline("All 12 classified")
    assert names(person.cells()) == shown


def test_chips_stay_in_their_places_until_the_job_has_ended(person: Visitor) -> None:
    """Its pictures are three parts, of which the last is held back."""
    parts = list[Route]()

    def hold_the_last(route: Route) -> None:
        parts.append(route)
        if len(parts) != 3:
            route.continue_()

    page = person.open()
    page.route("**/items", hold_the_last)
    bags = {f"a{number:02}.png": BAG for number in range(32)}
    trousers = {f"b{number:03}.png": TROUSER for number in range(500)}
    person.drop(bags | trousers | {"c.png": b"no picture", "d.png": BAG})
    expect(page.get_by_role("button", name="Trouser 500")).to_be_visible()
    assert chips(page) == ["All 534", "Bag 32", "Trouser 500"]
    while len(parts) < 3:
        page.wait_for_timeout(20)
    parts[2].continue_()
    person.headline("533 of 534 classified · 1 failed")
    assert chips(page) == ["All 534", "Trouser 500", "Bag 33", "Failed 1"]


def test_doubtful_pictures_are_one_click_away(person: Visitor) -> None:
    page = person.open()
    page.get_by_label("Model").select_option("fmnist-cnn@2")
    person.drop({"bag.png": BAG, "shirt.png": PICTURES["0004-shirt.png"], "cat.jpg": CAT, "bad.png": b"no picture"})
    person.headline("3 of 4 classified · 1 failed")
    found = chips(page)
    assert found[-3:] == ["Failed 1", "Unfamiliar 1", "Doubtful 1"]
    page.get_by_label("Sort").select_option("doubtful first")
    assert names(person.cells())[0] == "cat.jpg"
    page.get_by_role("button", name="Doubtful 1").click()
    assert names(person.cells()) == ["cat.jpg"]


def test_a_picture_of_little_confidence_is_doubtful(person: Visitor) -> None:
    page = person.open()
    person.drop({"sneaker.png": PICTURES["0012-sneaker.png"], "bag.png": BAG})
    person.headline("All 2 classified")
    page.get_by_role("button", name="Doubtful 1").click()
    expect(page.locator(".cell")).to_have_count(1)
    assert person.cells()[0].startswith("sneaker.png: ")


def test_doubtful_first_begins_with_what_is_unlike_the_training_data(person: Visitor) -> None:
    """The job is made up: a network is rarely sure of a picture that it marks."""
    job_id, time = "01a22d44-f505-7cf9-a716-0b0b1180bd01", "2026-12-01T10:00:00Z"
    counts = {"total": 3, "pending": 0, "succeeded": 3, "failed": 0, "canceled": 0}
    job = {"id": job_id, "status": "completed", "counts": counts} | dict.fromkeys(
        ("created_at", "completed_at", "expires_at"), time
    )
    items = [
        {"index": index, "name": f"{share}.png", "confidence": share, "warnings": warnings}
        | {"status": "succeeded", "class": "Bag", "top_k": []}
        for index, (share, warnings) in enumerate(((0.99, []), (0.4, []), (0.95, ["unfamiliar"])))
    ]
    person.page.route(f"**/v1/jobs/{job_id}*", lambda route: route.fulfill(json=job))
    person.page.route("**/results*", lambda route: route.fulfill(body="".join(json.dumps(it) + "\n" for it in items)))
    page = person.open(f"/#job={job_id}")
    person.headline("All 3 classified")
    page.get_by_label("Sort").select_option("doubtful first")
    assert names(person.cells()) == ["0.95.png", "0.4.png", "0.99.png"]
    page.get_by_role("button", name="Doubtful 2").click()
    assert names(person.cells()) == ["0.95.png", "0.4.png"]
