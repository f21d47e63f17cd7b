"""How long a picture takes to decode, estimated from its header: it takes time from others, not bytes."""

from worker.inference.images.limits import PIXEL_BYTES_MAX

# Nanoseconds of one core for each pixel, measured with the pictures of tests/support/costly_pictures.py.
_PIXEL = {
    "image/png": 40,
    "image/jpeg": 4,
    "image/webp": 35,
    "image/bmp": 8,
    "image/gif": 26,
    "image/avif": 35,
    "image/heic": 40,
    "image/tiff": 40,
}
_COEFFICIENTS = 8  # more for each pixel of a JPEG of several scans, which are all kept until the last one
_SCAN = 0.2  # more for each pixel and scan


def decode_seconds(media_type: str, pixels: int, *, pixel_bytes: int = PIXEL_BYTES_MAX, scans: int = 1) -> float:
    """Seconds of one core, of 2024 or so. Within a factor of three, and more often too high than too low."""
    nanoseconds: float = _PIXEL[media_type]
    if media_type == "image/png":
        nanoseconds *= pixel_bytes / PIXEL_BYTES_MAX
    if scans > 1:
        nanoseconds += _COEFFICIENTS + _SCAN * scans
    return 1e-9 * nanoseconds * pixels
