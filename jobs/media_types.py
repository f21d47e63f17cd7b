"""The media type of an upload, from its first bytes."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),  # BigTIFF
    (b"MM\x00+", "image/tiff"),
    (b"\xff\x0a", "image/jxl"),
    (b"\x00\x00\x00\x0cJXL ", "image/jxl"),
    (b"\x00\x00\x00\x0cjP  ", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"<svg", "image/svg+xml"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_BRANDS = dict.fromkeys((b"avif", b"avis"), "image/avif") | dict.fromkeys(_HEIC_BRANDS, "image/heic")
_ANY_CODING = frozenset((b"mif1", b"mif2", b"msf1", b"miaf"))  # pictures whose coding another brand names
_BRANDS_BYTES_MAX = 256  # in which a file may list its brands; it has ten or so


def sniff(head: bytes | memoryview) -> str | None:
    """The media type of a file that starts with these bytes (256 are enough), or None."""
    start = bytes(head[:16])
    for magic, media_type in _MAGIC:
        if start.startswith(magic):
            return media_type
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    return _by_brands(bytes(head[:_BRANDS_BYTES_MAX])) if start[4:8] == b"ftyp" else None


def _by_brands(head: bytes) -> str | None:
    """By the first brand that names a coding, of the major and the compatible ones of an ISO media file.

    So a file with a brand of its maker, or of a profile, is a picture if a compatible brand says so.
    """
    length = int.from_bytes(head[:4], "big")
    major, compatible = head[8:12], (head[at : at + 4] for at in range(16, min(length, len(head)), 4))
    coded = (_BRANDS[brand] for brand in (major, *compatible) if brand in _BRANDS)
    return next(coded, "image/heic" if major in _ANY_CODING else None)
