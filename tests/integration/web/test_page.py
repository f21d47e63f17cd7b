"""The page in a real browser: what people do with it."""

import csv
import json
import re
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.integration.web.browser import COUNT_THUMBNAILS, Visitor, names
from tests.integration.web.conftest import Visit
from tests.support.archives import make_zip
from tests.support.pictures import samples
from tests.support.processes import ROOT, Api

BAG = samples()["0018-bag.png"]
DATA = ROOT / "tests/data"
CALLS = {"curl": "--data-binary @'trouser.png'", "Python": "darkroom.classify(", "JavaScript": "new Darkroom("}
JOB = re.compile(r"#job=[0-9a-f-]{36}$")


def test_a_sample_is_classified_by_one_click(person: Visitor) -> None:
    page = person.open()
    expect(page.get_by_text("Drop pictures here")).to_be_visible()
    page.get_by_role("button", name="Bag", exact=True).click()
    person.headline("Classified")
    assert len(person.cells()) == 1
    assert person.cells()[0].startswith("bag.png: Bag, ")
    expect(page).to_have_url(JOB)


def test_a_folder_is_filtered_sorted_and_saved(person: Visitor, tmp_path: Path) -> None:
    page = person.open()
    page.locator("input[type=file]").first.set_input_files(sorted(DATA.glob("*.png")))
    person.headline("All 30 classified")
    shown = names(person.cells())
    assert shown == sorted(path.name for path in DATA.glob("*.png"))[: len(shown)]
    assert len(shown) >= 14, "those that are visible"
    chips = page.get_by_role("group", name="Show")
    chips.get_by_role("button", name="Bag 3").click()
    expect(page.locator(".cell")).to_have_count(3)
    chips.get_by_role("button", name="Bag 3").click()
    page.get_by_label("Sort").select_option("doubtful first")
    shares = [int(share) for cell in person.cells() for share in re.findall(r"(\d+)%", cell)]
    assert shares == sorted(shares)
    page.get_by_label("Confidence up to").fill("10")
    expect(page.get_by_text("No picture is like that.")).to_be_visible()
    expect(page.get_by_text("0 of 30 shown")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(page.locator(".none")).to_be_hidden()
    for name in ("CSV", "JSON"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {name}").click()
        download.value.save_as(tmp_path / name)
    rows = list(csv.DictReader((tmp_path / "CSV").read_text(encoding="utf-8-sig").splitlines()))
    assert len(rows) == len(json.loads((tmp_path / "JSON").read_text())) == 30


def test_everything_goes_by_keyboard(person: Visitor) -> None:
    page = person.open()
    page.get_by_role("button", name="trouser").focus()
    page.keyboard.press("Enter")
    person.headline("Classified")
    page.locator(".cell").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("Trouser")
    expect(dialog.locator(".ranks li")).to_have_count(5)
    dialog.get_by_text("The call in code").click()
    for language, part in CALLS.items():
        dialog.get_by_role("button", name=language).click()
        expect(dialog.locator("pre")).to_contain_text(part)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_arrows_move_through_the_pictures(person: Visitor) -> None:
    page = person.open()
    person.drop({"#.png": BAG}, count=12)
    person.headline("All 12 classified")
    page.locator(".cell").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".cell:focus")).to_have_attribute("aria-label", re.compile(r"^00002\.png: Bag"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").locator(".name")).not_to_have_text("00002.png")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")


def test_a_picture_is_pasted_and_a_zip_is_dropped(person: Visitor) -> None:
    page = person.open()
    person.drop({"image.png": BAG}, event="paste")
    person.headline("Classified")
    person.drop({"photos.zip": make_zip({"a.png": BAG, "b/c.png": BAG})})
    person.headline("All 2 classified")
    assert names(person.cells()) == ["a.png", "b/c.png"]
    page.get_by_role("button", name="New job").click()
    expect(page.locator(".earlier li")).to_have_count(2)
    page.get_by_role("link", name="image.png").click()
    person.headline("Classified")
    page.go_back()
    expect(page.get_by_text("Your earlier jobs")).to_be_visible()
    page.get_by_role("button", name="Forget photos.zip").click()
    expect(page.locator(".earlier li")).to_have_count(1)


def test_a_job_is_opened_by_its_address(person: Visitor, api: Api) -> None:
    job = httpx.post(
        f"{api.url}/v1/jobs", content=BAG, headers={"Content-Type": "image/png", "Prefer": "wait=20"}
    ).json()
    page = person.open(f"/#job={job['id'].upper()}")
    person.headline("Classified")
    assert person.cells()[0].startswith("image 1: Bag, ")
    page.locator(".cell").click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text("Bag")


def test_failed_pictures_say_why(person: Visitor) -> None:
    page = person.open()
    person.drop({"good.png": BAG, "bad.png": b"no picture", "half.png": BAG[:200]})
    person.headline("1 of 3 classified · 2 failed")
    page.get_by_label("Confidence up to").fill("50")
    page.get_by_role("button", name="Failed 2").click()
    expect(page.locator(".cell")).to_have_count(2)
    page.locator(".cell").first.click()
    expect(page.locator(".reason")).to_contain_text("not an image")
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".name")).to_have_text("half.png")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Retry failed")).to_be_hidden()  # they would fail again


def test_pictures_of_an_earlier_job_are_chosen_again(person: Visitor, tmp_path: Path) -> None:
    (tmp_path / "clothes").mkdir()
    for name in ("one.png", "two.png"):
        (tmp_path / "clothes" / name).write_bytes(BAG)
    page = person.open()
    page.locator("input[webkitdirectory]").first.set_input_files(tmp_path / "clothes")
    person.headline("All 2 classified")
    page.get_by_role("button", name="New job").click()
    page.get_by_role("link", name="clothes").click()
    expect(page.locator(".cell canvas")).to_have_count(2)  # this tab has sent them
    page.reload()
    person.headline("All 2 classified")
    expect(page.locator(".cell .blank")).to_have_count(2)
    page.locator(".again input[webkitdirectory]").set_input_files(tmp_path / "clothes")
    expect(page.locator(".cell canvas")).to_have_count(2)
    expect(page.get_by_text("choose the same files")).to_be_hidden()


def test_all_failed(person: Visitor) -> None:
    person.open()
    person.drop({"bad.png": b"no picture"})
    person.headline("0 of 1 classified · 1 failed")


def test_what_is_no_picture_is_named_and_left_out(person: Visitor) -> None:
    page = person.open()
    person.drop({"notes.txt": b"text", "a.png": BAG, ".hidden.png": BAG})
    person.headline("Classified")
    expect(page.locator(".message")).to_have_text("Left out, as no picture: notes.txt.")
    person.drop({}, text="https://example.com/")
    expect(page.locator(".message")).to_have_text("That is text. Drop pictures, a folder, a zip or a tar.")
    person.drop({".hidden.png": BAG})
    expect(page.locator(".message")).to_have_text("There are no pictures in it.")


def test_a_name_is_text(person: Visitor) -> None:
    page = person.open()
    person.drop({"<img src=x onerror=alert(1)>.png": BAG})
    person.headline("Classified")
    expect(page.locator(".cell small")).to_contain_text("<img src=x onerror=alert(1)>.png")
    page.locator(".cell").click()
    expect(page.locator("article .name")).to_have_text("<img src=x onerror=alert(1)>.png")
    assert page.locator("img[src=x]").count() == 0


def test_too_many_pictures_are_for_the_command(person: Visitor) -> None:
    page = person.open()
    person.drop({"#.png": b"x"}, count=20_001)
    expect(page.locator(".message")).to_contain_text("darkroom classify FOLDER")
    expect(page.get_by_text("Drop pictures here")).to_be_visible()


def test_thousands_of_pictures_are_few_nodes(person: Visitor) -> None:
    person.page.add_init_script(COUNT_THUMBNAILS)
    page = person.open()
    person.drop({"#.png": BAG}, count=5000)
    person.headline("All 5,000 classified")
    assert page.evaluate("[thumbnails.mostAtOnce, thumbnails.drawn < 100]") == [4, True]
    assert page.evaluate("document.querySelectorAll('*').length") <= 600
    page.keyboard.press("End")
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    expect(page.locator(".cell").last).to_have_attribute("aria-label", re.compile(r"^04999\.png: Bag"))
    assert page.evaluate("document.querySelectorAll('*').length") <= 600


def test_a_picture_that_is_gone_fails_in_its_place(person: Visitor, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(40)]
    for file in files:
        file.write_bytes(BAG)
    page = person.open()
    person.allowed.append("ERR_FILE_NOT_FOUND")

    def remove(route: object) -> None:  # while the first part is under way
        files[35].unlink(missing_ok=True)
        route.continue_()  # type: ignore[attr-defined]

    page.route("**/items", remove)
    page.locator("input[type=file]").first.set_input_files(files)
    person.headline("39 of 40 classified · 1 failed")
    page.get_by_role("button", name="Failed 1").click()
    page.locator(".cell").click()
    expect(page.locator(".reason")).to_contain_text("unreadable")
    expect(page.locator("article .name")).to_have_text("35.png")


@pytest.mark.parametrize("path", ["/#job=nonsense", "/#job="])
def test_an_address_that_names_no_job(person: Visitor, path: str) -> None:
    page = person.open(path)
    expect(page.locator(".message")).to_have_text("The address names no job.")
    expect(page.get_by_text("Drop pictures here")).to_be_visible()


def test_a_job_that_is_gone(person: Visitor) -> None:
    person.allowed.append("404")
    page = person.open("/#job=01a22d44-f505-7cf9-a716-0b0b1180bd01")
    person.headline(re.compile("This job is gone"))
    page.get_by_role("button", name="New job").click()
    expect(page.get_by_text("Drop pictures here")).to_be_visible()


def test_an_upload_that_was_interrupted_is_taken_as_it_is(person: Visitor, api: Api) -> None:
    opened = httpx.post(f"{api.url}/v1/jobs?open=true").json()
    httpx.post(f"{api.url}/v1/jobs/{opened['id']}/items", files={"files": ("a.png", BAG)})
    page = person.open(f"/#job={opened['id']}")
    person.headline("This upload was interrupted: 1 pictures have arrived")
    page.get_by_role("button", name="Classify what has arrived").click()
    person.headline("Classified")


def test_without_scripts_the_page_says_what_else_there_is(browser: Browser, api: Api) -> None:
    context = browser.new_context(java_script_enabled=False)
    with closing(context):
        page = context.new_page()
        page.goto(api.url)
        assert "This page needs scripts." in page.locator("body").inner_text()


def test_without_storage_the_page_works(visit: Visit, api: Api) -> None:
    person = visit(api.url)
    person.page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, { get() { throw new DOMException('off'); } });"
    )
    page = person.open()
    page.get_by_role("button", name="Bag", exact=True).click()
    person.headline("Classified")


def test_two_tabs_know_each_others_jobs(person: Visitor) -> None:
    page, other = person.open(), person.new_page()
    other.goto(person.url)
    page.get_by_role("button", name="Bag", exact=True).click()
    person.headline("Classified")
    expect(other.get_by_role("link", name="bag.png")).to_be_visible()


@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "dark"},
        {"viewport": {"width": 320, "height": 640}},
        {"forced_colors": "active"},
        {"reduced_motion": "reduce"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_the_page_is_readable_everywhere(visit: Visit, api: Api, options: dict[str, object]) -> None:
    person = visit(api.url, **options)
    page = person.open()
    person.check()
    person.drop({"good.png": BAG, "bad.png": b"no picture"})
    person.headline("1 of 2 classified · 1 failed")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing is cut off"
    person.check()
    page.locator(".cell").first.click()
