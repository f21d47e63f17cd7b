"""Which image formats are decoded."""

from typing import Literal

from pydantic import Field

from jobs.settings import SettingsGroup

ALWAYS = ("png", "jpeg", "webp", "gif", "bmp")


class ImageFormatSettings(SettingsGroup):
    """Formats that an operator may turn off. Workers decode them; the API says which there are."""

    image_formats: list[Literal["avif", "heic", "tiff"]] = Field(
        ["avif", "heic", "tiff"],
        description="Formats that are decoded beside PNG, JPEG, WebP, GIF and BMP, as JSON. Their decoders are large, "
        "and had security faults in the past; `[]` turns them off. The API only shows them in `GET /v1/server`.",
    )
