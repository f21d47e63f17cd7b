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
_BUNDLER = "esbuild"
_INSTALL = ("install", "--no-package-lock", "--no-audit", "--no-fund", "--silent")
_OPTIONS = ("--bundle", "--minify", "--format=esm", "--target=es2022", "--legal-comments=none", "--log-level=warning")


def main() -> None:
    packages: dict[str, str] = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    used = {name: version for name, version in packages.items() if name != _BUNDLER}
    head = "// Made by docs/vendor_bundle.py of " + ", ".join(f"{name} {version}" for name, version in used.items())
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("package.json", "entry.js"):
            shutil.copy(FOLDER / file, folder)
        subprocess.run([Path(sys.executable).with_name("npm"), *_INSTALL], cwd=folder, check=True)
        made, modules = folder / "vendor.js", folder / "node_modules"
        command: list[str | Path] = [modules / ".bin" / _BUNDLER, "entry.js", *_OPTIONS, f"--outfile={made}"]
        subprocess.run(command, cwd=folder, check=True)
        (FOLDER / "vendor.js").write_text(f"{head}; licences: LICENSES.txt\n{made.read_text()}")
        texts = (f"{it} {used[it]}\n\n{(modules / it / 'LICENSE').read_text().strip()}\n" for it in used)
        (FOLDER / "LICENSES.txt").write_text(f"\n{'-' * 100}\n".join(texts))


if __name__ == "__main__":
    main()
