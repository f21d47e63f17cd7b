"""Makes vendor.js of entry.js and the packages that package.json pins, and LICENSES.txt of their licences.

.venv/bin/python api/web/vendor/make_vendor.py
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).parent
_BUNDLER = "esbuild"
_OPTIONS = ("--bundle", "--minify", "--format=esm", "--target=es2022", "--legal-comments=none")


def main() -> None:
    packages: dict[str, str] = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    used = {name: version for name, version in packages.items() if name != _BUNDLER}
    head = "// Made by make_vendor.py of " + ", ".join(f"{name} {version}" for name, version in used.items())
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("package.json", "entry.js"):
            shutil.copy(FOLDER / file, folder)
        npm = Path(sys.executable).with_name("npm")
        subprocess.run(
            [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True
        )
        made = folder / "vendor.js"
        bundler = folder / "node_modules/.bin" / _BUNDLER
        subprocess.run(
            [bundler, "entry.js", *_OPTIONS, f"--outfile={made}", "--log-level=warning"], cwd=folder, check=True
        )
        (FOLDER / "vendor.js").write_text(f"{head}; licences: LICENSES.txt\n{made.read_text()}")
        texts = [
            f"{it} {used[it]}\n\n{(folder / 'node_modules' / it / 'LICENSE').read_text().strip()}\n" for it in used
        ]
        (FOLDER / "LICENSES.txt").write_text(f"\n{'-' * 100}\n".join(texts))


if __name__ == "__main__":
    main()
