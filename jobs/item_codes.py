"""Why one item failed while its job went on: stable codes, and a sentence for each."""

from enum import StrEnum


class ItemCode(StrEnum):
    """Why one item failed while its job went on."""

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
"""What may not happen again when the image is tried again: the image itself is not at fault, or not for certain."""


ITEM_DETAIL: dict[ItemCode, str] = {
    ItemCode.EMPTY_UPLOAD: "The upload has no bytes.",
    ItemCode.NOT_AN_IMAGE: "The bytes are not an image in a known format.",
    ItemCode.UNSUPPORTED_FORMAT: "Images of this format are not accepted.",
    ItemCode.CORRUPT_IMAGE: "The image is cut off or damaged.",
    ItemCode.TOO_MANY_PIXELS: "The image has more pixels, in all or on one side, than are accepted.",
    ItemCode.TOO_MANY_FRAMES: "The image has more frames than are accepted.",
    ItemCode.ITEM_TOO_LARGE: "The upload has more bytes than are accepted for one item.",
    ItemCode.UPLOAD_LOST: "The stored upload bytes were not found.",
    ItemCode.WORKER_CRASHED: "The worker process died each time it tried this image.",
    ItemCode.TIMEOUT: "The worker ran out of time each time it tried this image.",
    ItemCode.OUT_OF_MEMORY: "The worker ran out of memory on this image.",
    ItemCode.WORKER_LOST: "Too many workers were lost while they held this image.",
    ItemCode.MODEL_FAILED: "The model raised an error on this image.",
    ItemCode.DEADLINE_EXCEEDED: "No worker took the image before its job's deadline.",
    ItemCode.TOO_MANY_SCANS: "The JPEG has more scans than are accepted.",
    ItemCode.LINK_ENTRY: "The archive's entry is a link, and links are not followed.",
    ItemCode.SPECIAL_ENTRY: "The archive's entry is a device, a pipe or something else that is no file.",
    ItemCode.ABSOLUTE_PATH: "The archive's entry has an absolute path.",
    ItemCode.PARENT_PATH: "The path of the archive's entry leads out of the archive.",
    ItemCode.NESTED_ARCHIVE: "The entry is an archive itself, and archives in archives are not opened.",
    ItemCode.ENCRYPTED_ENTRY: "The archive's entry is encrypted.",
    ItemCode.DUPLICATE_NAME: "An earlier entry of the archive has the same name.",
    ItemCode.COMPRESSION_BOMB: "The entry grows more when it is unpacked than is accepted.",
    ItemCode.UNSUPPORTED_COMPRESSION: "The archive's entry is compressed by a method that is not supported.",
    ItemCode.CORRUPT_ENTRY: "The archive's entry is damaged.",
    ItemCode.INVALID_URL: "The reference is no http, https or s3 URL that can be fetched.",
    ItemCode.FORBIDDEN_ADDRESS: "The URL leads to an address that is not fetched from.",
    ItemCode.FETCH_FAILED: "The URL could not be fetched.",
    ItemCode.FETCH_TIMEOUT: "Fetching the URL took too long.",
    ItemCode.FETCH_DENIED: "The URL's server refused access.",
    ItemCode.FETCH_NOT_FOUND: "There is nothing at the URL.",
    ItemCode.TOO_MANY_REDIRECTS: "The URL redirects more often than is followed.",
}
