"""The files of the page: their size, their types, and what is vendored."""

import json
import re
import shutil
from pathlib import Path

from jobs.item_codes import RETRYABLE
from tests.support.npm import check_types, install, make_types
from tests.support.processes import ROOT

WEB = ROOT / "api/web"
TOOLS = {"dependencies": {"openapi-typescript": "7.8.0", "typescript": "5.9.2"}, "private": True, "type": "module"}


def scripts() -> list[Path]:
    return [*WEB.glob("*.js"), WEB / "vendor/vendor.js"]


def test_the_script_is_small() -> None:
    assert sum(path.stat().st_size for path in scripts()) < 130_000


def test_the_page_by_hand_is_short() -> None:
    by_hand = [path for path in WEB.iterdir() if path.suffix in (".js", ".css", ".html") and path.name != "darkroom.js"]
    assert sum(len(path.read_text().splitlines()) for path in by_hand) <= 1500


def test_each_vendored_package_has_its_version_and_licence() -> None:
    packages = json.loads((WEB / "vendor/package.json").read_text())["dependencies"]
    head = (WEB / "vendor/vendor.js").read_text().splitlines()[0]
    licences = (WEB / "vendor/LICENSES.txt").read_text()
    for name, version in packages.items():
        if name != "esbuild":
            assert f"{name} {version}" in head
            assert f"{name} {version}\n" in licences


def test_failed_images_may_be_retried_where_the_server_keeps_them() -> None:
    (codes,) = re.findall(r'const RETRYABLE = "([a-z_ ]+)"', (WEB / "work.js").read_text())
    not_there = {"fetch_failed", "fetch_timeout"}  # the server has no bytes of what it could not fetch
    assert set(codes.split()) == RETRYABLE - not_there


def test_types_fit_the_document(tmp_path: Path) -> None:
    """As `tsc` sees the JSDoc comments, with the types that openapi-typescript makes of docs/openapi.json."""
    shutil.copytree(WEB, tmp_path / "web")
    (tmp_path / "package.json").write_text(json.dumps(TOOLS))
    modules = install(tmp_path)
    make_types(tmp_path, modules, "web/schema.ts")
    javascript = ("--noEmit", "--allowJs", "--checkJs", "--lib", "es2023,dom,dom.iterable")
    check_types(tmp_path, modules, *javascript, "web/main.js")
