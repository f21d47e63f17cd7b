"""Stable codes for the failure of one item of a job, and a sentence for each."""

from collections.abc import Collection
from enum import StrEnum


class ItemCode(StrEnum):
    """Why one item of an accepted job failed."""

    EMPTY_UPLOAD = "empty_upload"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    CORRUPT_IMAGE = "corrupt_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_FRAMES = "too_many_frames"
    ITEM_TOO_LARGE = "item_too_large"
    UPLOAD_LOST = "upload_lost"
    WORKER_CRASHED = "worker_crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    MODEL_FAILED = "model_failed"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    TOO_MANY_SCANS = "too_many_scans"
    # Entries of an archive
    LINK_ENTRY = "link_entry"
    SPECIAL_ENTRY = "special_entry"
    ABSOLUTE_PATH = "absolute_path"
    PARENT_PATH = "parent_path"
    NESTED_ARCHIVE = "nested_archive"
    ENCRYPTED_ENTRY = "encrypted_entry"
    DUPLICATE_NAME = "duplicate_name"
    COMPRESSION_BOMB = "compression_bomb"
    UNSUPPORTED_COMPRESSION = "unsupported_compression"
    CORRUPT_ENTRY = "corrupt_entry"
    # Images by reference
    INVALID_URL = "invalid_url"
    FORBIDDEN_ADDRESS = "forbidden_address"
    FETCH_FAILED = "fetch_failed"
    FETCH_TIMEOUT = "fetch_timeout"
    FETCH_DENIED = "fetch_denied"
    FETCH_NOT_FOUND = "fetch_not_found"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    NAME_TOO_LONG = "name_too_long"
    # Images again
    TOO_MANY_PARTS = "too_many_parts"


class FoundFormat(StrEnum):
    """What an upload is that fails as `unsupported_format`, by the name that its owner knows."""

    HEIC = "HEIC"
    AVIF = "AVIF"
    TIFF = "TIFF"
    JPEG_XL = "JPEG XL"
    JPEG_2000 = "JPEG 2000"
    JPEG_12_BIT = "JPEG of 12 bits"
    JPEG_LOSSLESS = "lossless or hierarchical JPEG"
    TIFF_32_BIT = "TIFF of 32 bits a channel"
    ICO = "ICO"
    PSD = "Photoshop file"
    SVG = "SVG"
    PDF = "PDF"
    ZIP = "zip archive"
    GZIP = "gzip file"
    BIG_TIFF_BIG_ENDIAN = "big-endian BigTIFF"


FOUND_FORMATS: dict[str, FoundFormat] = {
    "image/heic": FoundFormat.HEIC,
    "image/avif": FoundFormat.AVIF,
    "image/tiff": FoundFormat.TIFF,
    "image/jxl": FoundFormat.JPEG_XL,
    "image/jp2": FoundFormat.JPEG_2000,
    "image/x-icon": FoundFormat.ICO,
    "image/vnd.adobe.photoshop": FoundFormat.PSD,
    "image/svg+xml": FoundFormat.SVG,
    "application/pdf": FoundFormat.PDF,
    "application/zip": FoundFormat.ZIP,
    "application/gzip": FoundFormat.GZIP,
}
"""By media type."""
ARCHIVES = frozenset((FoundFormat.ZIP, FoundFormat.GZIP))
OPTIONAL_FORMATS = (FoundFormat.AVIF, FoundFormat.HEIC, FoundFormat.TIFF)
"""That an operator may turn off. Stored results have a bit for each in this order: a new one must be the last."""


def taken_formats(optional: Collection[FoundFormat]) -> str:
    """The formats that are decoded, for a sentence; `optional` has those of `OPTIONAL_FORMATS` that are on."""
    *names, last = ("JPEG", "PNG", "WebP", "GIF", "BMP", *(it for it in OPTIONAL_FORMATS if it in optional))
    return f"{', '.join(names)} or {last}"


RETRYABLE = frozenset(
    {
        ItemCode.WORKER_CRASHED,
        ItemCode.TIMEOUT,
        ItemCode.OUT_OF_MEMORY,
        ItemCode.WORKER_LOST,
        ItemCode.MODEL_FAILED,
        ItemCode.DEADLINE_EXCEEDED,
        ItemCode.FETCH_FAILED,
        ItemCode.FETCH_TIMEOUT,
    }
)
"""Failures that a retry may cure: the image itself is not at fault, or not for certain."""


ITEM_DETAIL: dict[ItemCode, str] = {
    ItemCode.EMPTY_UPLOAD: "The upload is empty.",
    ItemCode.NOT_AN_IMAGE: "The bytes are not an image in a known format.",
    ItemCode.UNSUPPORTED_FORMAT: "This image format is not supported.",
    ItemCode.CORRUPT_IMAGE: "The image is truncated or damaged.",
    ItemCode.TOO_MANY_PIXELS: "The image has too many pixels, in total or on one side.",
    ItemCode.TOO_MANY_FRAMES: "The image has too many frames.",
    ItemCode.ITEM_TOO_LARGE: "The image has too many bytes.",
    ItemCode.UPLOAD_LOST: "The stored upload bytes were not found.",
    ItemCode.WORKER_CRASHED: "The worker process crashed on each attempt to classify this image.",
    ItemCode.TIMEOUT: "The worker ran out of time on each attempt to classify this image.",
    ItemCode.OUT_OF_MEMORY: "The worker ran out of memory on this image.",
    ItemCode.WORKER_LOST: "Too many workers were lost while this image was being processed.",
    ItemCode.MODEL_FAILED: "The model raised an error on this image.",
    ItemCode.DEADLINE_EXCEEDED: "No worker claimed the image before the job's deadline.",
    ItemCode.TOO_MANY_SCANS: "The JPEG has too many scans.",
    ItemCode.LINK_ENTRY: "The archive entry is a link; links are not followed.",
    ItemCode.SPECIAL_ENTRY: "The archive entry is not a regular file.",
    ItemCode.ABSOLUTE_PATH: "The archive entry has an absolute path.",
    ItemCode.PARENT_PATH: "The path of the archive entry leads out of the archive.",
    ItemCode.NESTED_ARCHIVE: "The archive entry is itself an archive; nested archives are not opened.",
    ItemCode.ENCRYPTED_ENTRY: "The archive entry is encrypted.",
    ItemCode.DUPLICATE_NAME: "An earlier entry of the archive has the same name.",
    ItemCode.COMPRESSION_BOMB: "The archive entry expands to more bytes than allowed.",
    ItemCode.UNSUPPORTED_COMPRESSION: "The archive entry uses an unsupported compression method.",
    ItemCode.CORRUPT_ENTRY: "The archive entry is damaged.",
    ItemCode.INVALID_URL: "The reference is not a valid http, https or s3 URL.",
    ItemCode.FORBIDDEN_ADDRESS: "The URL resolves to an address that is not allowed.",
    ItemCode.FETCH_FAILED: "The URL could not be fetched.",
    ItemCode.FETCH_TIMEOUT: "Fetching the URL took too long.",
    ItemCode.FETCH_DENIED: "The server of the URL denied access.",
    ItemCode.FETCH_NOT_FOUND: "The URL was not found.",
    ItemCode.TOO_MANY_REDIRECTS: "The URL redirects too many times.",
    ItemCode.NAME_TOO_LONG: "The name of the archive entry is too long.",
    ItemCode.TOO_MANY_PARTS: "The image file consists of too many segments, chunks or blocks.",
}


_RETRY = "Retry the job: its bytes are kept, and the cause may have passed."
_FETCH_AGAIN = "Retry the job: the server of the URL may have been away or busy."
_PACK_AGAIN = "Pack the archive again without this entry, or send the file by itself."
ITEM_ADVICE: dict[ItemCode, str] = {
    ItemCode.EMPTY_UPLOAD: "Send a file with content.",
    ItemCode.NOT_AN_IMAGE: "Send an image; look at the file's first bytes if you thought that it is one.",
    ItemCode.UNSUPPORTED_FORMAT: f"Convert it to {taken_formats(())}.",
    ItemCode.CORRUPT_IMAGE: "Save or download the file again.",
    ItemCode.TOO_MANY_PIXELS: "Send a smaller copy, or ask the operator for a larger ITEM_PIXELS_MAX.",
    ItemCode.TOO_MANY_FRAMES: "Send one frame, or ask the operator for a larger ITEM_FRAMES_MAX.",
    ItemCode.ITEM_TOO_LARGE: "Send a smaller copy, or ask the operator for a larger ITEM_BYTES_MAX.",
    ItemCode.UPLOAD_LOST: "Submit the image again; the operator should look at the store of uploads.",
    ItemCode.WORKER_CRASHED: "Retry the job once. If it fails again, this image is at fault: send a converted copy.",
    ItemCode.TIMEOUT: "Retry the job once. If it fails again, send a smaller copy.",
    ItemCode.OUT_OF_MEMORY: "Retry the job once. If it fails again, send a smaller copy.",
    ItemCode.WORKER_LOST: _RETRY,
    ItemCode.MODEL_FAILED: "Retry the job once. If it fails again, the model cannot take this image.",
    ItemCode.DEADLINE_EXCEEDED: "Retry the job once a worker serves the model: GET /v1/models shows which do.",
    ItemCode.TOO_MANY_SCANS: "Save the JPEG again, not progressive.",
    ItemCode.LINK_ENTRY: _PACK_AGAIN,
    ItemCode.SPECIAL_ENTRY: _PACK_AGAIN,
    ItemCode.ABSOLUTE_PATH: "Pack the archive again with relative names.",
    ItemCode.PARENT_PATH: "Pack the archive again with names that stay inside it.",
    ItemCode.NESTED_ARCHIVE: "Submit the inner archive as an upload of its own.",
    ItemCode.ENCRYPTED_ENTRY: "Pack the archive again without a password.",
    ItemCode.DUPLICATE_NAME: "Give each file of the archive a name of its own.",
    ItemCode.COMPRESSION_BOMB: _PACK_AGAIN,
    ItemCode.UNSUPPORTED_COMPRESSION: "Pack the archive again with Deflate, or without compression.",
    ItemCode.CORRUPT_ENTRY: "Pack the archive again, or send it again if it was damaged on the way.",
    ItemCode.INVALID_URL: "Write a whole URL, with its scheme and host.",
    ItemCode.FORBIDDEN_ADDRESS: "Use a public address, or ask the operator for FETCH_ALLOW_HOSTS or _NETWORKS.",
    ItemCode.FETCH_FAILED: _FETCH_AGAIN,
    ItemCode.FETCH_TIMEOUT: _FETCH_AGAIN,
    ItemCode.FETCH_DENIED: "Let the workers read the URL, or sign it; of S3, check the key's rights.",
    ItemCode.FETCH_NOT_FOUND: "Correct the URL.",
    ItemCode.TOO_MANY_REDIRECTS: "Use the address at which the image is in the end.",
    ItemCode.NAME_TOO_LONG: "Give the entry a shorter name.",
    ItemCode.TOO_MANY_PARTS: "Save the image again with another program.",
}
"""What whoever sent the image can do; docs/reference/errors.md shows it."""
