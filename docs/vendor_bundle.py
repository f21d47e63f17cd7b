"""Makes api/web/vendor/vendor.js of entry.js and the packages that package.json pins there, and LICENSES.txt.

.venv/bin/python -m docs.vendor_bundle
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).parents[1] / "api/web/vendor"
SOURCES = ("package.json", "entry.js")
_BUNDLER = "esbuild"
_INSTALL = ("install", "--no-package-lock", "--no-audit", "--no-fund", "--silent")
_OPTIONS = ("--bundle", "--minify", "--format=esm", "--target=es2022", "--legal-comments=none", "--log-level=warning")


def bundle(folder: Path) -> dict[str, str]:
    """The made files, by name, of a folder that has the sources and their installed packages."""
    packages: dict[str, str] = json.loads((folder / "package.json").read_text())["dependencies"]
    used = {name: version for name, version in packages.items() if name != _BUNDLER}
    head = "// Made by docs/vendor_bundle.py of " + ", ".join(f"{name} {version}" for name, version in used.items())
    made, modules = folder / "vendor.js", folder / "node_modules"
    command: list[str | Path] = [modules / ".bin" / _BUNDLER, "entry.js", *_OPTIONS, f"--outfile={made}"]
    subprocess.run(command, cwd=folder, check=True)
    texts = (f"{it} {used[it]}\n\n{(modules / it / 'LICENSE').read_text().strip()}\n" for it in used)
    return {
        "vendor.js": f"{head}; licences: LICENSES.txt\n{made.read_text()}",
        "LICENSES.txt": f"\n{'-' * 100}\n".join(texts),
    }


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in SOURCES:
            shutil.copy(FOLDER / file, folder)
        subprocess.run([Path(sys.executable).with_name("npm"), *_INSTALL], cwd=folder, check=True)
        for file, text in bundle(folder).items():
            (FOLDER / file).write_text(text)


if __name__ == "__main__":
    main()
