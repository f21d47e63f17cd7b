import pytest

from jobs.media_types import sniff


def brands(major: bytes, *compatible: bytes) -> bytes:
    """The first box of an ISO media file, and zeros."""
    return (16 + 4 * len(compatible)).to_bytes(4, "big") + b"ftyp" + major + bytes(4) + b"".join(compatible) + bytes(9)


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"\xff\xd8\xff\xe0....", "image/jpeg"),
        (b"GIF89a......", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"BM......", "image/bmp"),
        (b"II*\x00....", "image/tiff"),
        (b"\x00\x00\x00\x1cftypavif....", "image/avif"),
        (brands(b"mif1", b"mif1", b"avif", b"miaf"), "image/avif"),
        (brands(b"msf1", b"avis", b"msf1"), "image/avif"),
        (brands(b"mif1", b"mif1", b"heic"), "image/heic"),
        (brands(b"mif1"), "image/heic"),
        (brands(b"heic", b"mif1", b"avif"), "image/heic"),
        (brands(b"avif", b"mif1", b"heic"), "image/avif"),
        (brands(b"phon", *[b"isom"] * 9, b"heic"), "image/heic"),
        (brands(b"mp42", b"isom", b"mp42"), None),
        (brands(b"mp42")[:16] + b"avifheic", None),
        (brands(b"mif1", b"avif")[:18], "image/heic"),
        (b"PK\x03\x04....", "application/zip"),
        (b"plain text", None),
        (b"", None),
    ],
)
def test_media_types_are_detected_by_the_first_bytes(head: bytes, media_type: str | None) -> None:
    assert sniff(head) == media_type
    assert sniff(memoryview(head)) == media_type
