"""The inputs that are kept of each target: one archive in fuzz/inputs/, so that a thousand files are eight."""

import zipfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parent / "inputs"
KEPT_BYTES_MAX = 16 << 10  # of one input: larger ones are real uploads that have changed little


def kept(target: str) -> list[bytes]:
    path = FOLDER / f"{target}.zip"
    if not path.exists():
        return []
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """In place of those that were kept; the same inputs give the same archive."""
    by_name = {sha256(data).hexdigest(): data for data in inputs if len(data) <= KEPT_BYTES_MAX}
    FOLDER.mkdir(exist_ok=True)
    with zipfile.ZipFile(FOLDER / f"{target}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(by_name):
            archive.writestr(zipfile.ZipInfo(name), by_name[name], zipfile.ZIP_DEFLATED)
