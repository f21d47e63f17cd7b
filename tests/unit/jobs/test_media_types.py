import pytest

from jobs.media_types import sniff


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
        (b"PK\x03\x04....", "application/zip"),
        (b"plain text", None),
        (b"", None),
    ],
)
def test_media_types_are_detected_by_the_first_bytes(head: bytes, media_type: str | None) -> None:
    assert sniff(head) == media_type
    assert sniff(memoryview(head)) == media_type
