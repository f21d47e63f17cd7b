"""The calls that the page shows of a picture do what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.integration.web.conftest import Visit
from tests.support.npm import BIN
from tests.support.pictures import samples
from tests.support.stack import Stack

BAG = samples()["0018-bag.png"]
NAME = 'a bag\'s "picture".png'
KEY = "alice-key-0123456789"


def call(page: Page, language: str) -> str:
    page.get_by_role("button", name=language, exact=True).click()
    expect(page.get_by_role("button", name=language, exact=True)).to_have_attribute("aria-pressed", "true")
    return page.locator("article pre").inner_text()


@pytest.mark.parametrize("key", ["", KEY])
def test_the_calls_classify_the_picture(visit: Visit, server: Stack, tmp_path: Path, key: str) -> None:
    api = server.api(API_KEYS=json.dumps({"alice": KEY})) if key else server.api()
    person = visit(api.url)
    person.page.add_init_script(f"sessionStorage.setItem('darkroom.key', '{key}')")
    page = person.open()
    person.drop({NAME: BAG})
    person.headline("Classified")
    page.locator(".cell").click()
    page.get_by_text("The call in code").click()
    (tmp_path / NAME).write_bytes(BAG)

    def run(*command: str | Path) -> str:
        environment = {**os.environ, "DARKROOM_API_KEY": key}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert json.loads(run("bash", "-c", call(page, "curl")))["result"]["class"] == "Bag"

    (tmp_path / "call.py").write_text(call(page, "Python"))
    assert re.fullmatch(r"Bag 0\.99\d+\n", run(sys.executable, "call.py"))

    script = call(page, "JavaScript")
    (first,) = re.findall(r"^// In Node, after: (curl .+)$", script, re.MULTILINE)
    run("bash", "-c", first)
    (tmp_path / "call.mjs").write_text(script)
    assert re.fullmatch(r"Bag 0\.99\d+\n", run(BIN / "node", "call.mjs"))
