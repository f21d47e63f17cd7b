"""Settings of decoding and computing. Each is an environment variable of the same name in capitals."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class InferenceSettings(BaseSettings):
    """On what a model is computed, and which images are decoded."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")] = Field(
        "auto",
        description="`auto`, `cpu`, `cuda` or `cuda:N`; auto: GPUs, if there are any. Children take turns on several.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="What convolutions and products are computed in. auto: bfloat16 on a GPU, else float32. On a "
        "processor, bfloat16 is for convolutions alone, and taken only where it is measured to be faster.",
    )
    torch_threads: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Threads that one process computes with; children × threads should match the cores."
    )
    item_pixels_max: Count = Field(50_000_000, description="Pixels of one image, told from its header.")
    item_side_pixels_max: Count = Field(65_535, description="Pixels of one side of an image, told from its header.")
    item_frames_max: Count = Field(1, description="Frames of one image, told from its header; the first is classified.")
    item_scans_max: Count = Field(100, description="Scans of one JPEG; each costs a pass over all its pixels.")
