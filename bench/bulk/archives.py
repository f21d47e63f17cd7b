"""The images that benchmarks submit, and archives of them."""

import tarfile
import zipfile
from collections.abc import AsyncIterator, Sequence
from io import BytesIO
from pathlib import Path

from training.data import load_fashion_mnist
from training.fmnist_mlp import png_on_white

_PIECE_BYTES = 256 << 10


def images() -> list[bytes]:
    """The 10,000 test images of Fashion-MNIST, each a PNG of about 600 B."""
    return [png_on_white(image) for image in load_fashion_mnist(Path("data/training")).test.images]


def tar_of(pngs: Sequence[bytes], first: int = 0, *, names: Sequence[str] = ()) -> bytes:
    """A tar of files that are numbered from `first`, or have these names."""
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, png in enumerate(pngs, first):
            member = tarfile.TarInfo(names[number - first] if names else f"{number:07}.png")
            member.size = len(png)
            archive.addfile(member, BytesIO(png))
    return file.getvalue()


def zip_of(pngs: Sequence[bytes]) -> bytes:
    """A zip of numbered files."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, png in enumerate(pngs):
            archive.writestr(f"{number:07}.png", png)
    return file.getvalue()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """The data in pieces of 256 KiB, as a request body."""
    for at in range(0, len(data), _PIECE_BYTES):
        yield data[at : at + _PIECE_BYTES]
