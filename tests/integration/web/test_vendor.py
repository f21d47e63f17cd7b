"""What is vendored is what docs/vendor_bundle.py makes of the packages that package.json pins."""

import shutil
from pathlib import Path

from docs.vendor_bundle import FOLDER, SOURCES, bundle
from tests.support.npm import install


def test_the_vendored_files_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    for name in SOURCES:
        shutil.copy(FOLDER / name, tmp_path)
    install(tmp_path)
    for name, text in bundle(tmp_path).items():
        assert (FOLDER / name).read_bytes() == text.encode(), name
