"""Settings of decoding and computing. Each is an environment variable of the same name in capitals."""

from typing import Annotated, Literal

from pydantic import Field

from jobs.image_formats import ImageFormatSettings
from jobs.settings import advanced

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class InferenceSettings(ImageFormatSettings):
    """Which device computes a model, and which images are decoded."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")] = Field(
        "auto",
        description="`auto`, `cpu`, `cuda` or `cuda:N`. `auto` uses the GPUs, if there are any, else the CPU. With "
        "several GPUs, the worker's processes are distributed over them.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of convolutions and products: `float32`, `bfloat16`, or `auto` (bfloat16 on a "
        "GPU, float32 on a CPU). `bfloat16` is used only if it measures faster and no confidence changes by more than "
        "0.01; on a CPU, for convolutions only.",
    )
    torch_threads: Annotated[int, Field(ge=1, le=256)] = Field(
        1,
        description="Threads that one worker process computes with. `WORKER_CHILDREN` × `TORCH_THREADS` should equal "
        "the number of CPU cores.",
    )
    batch_seconds_max: Annotated[float, Field(gt=0, le=10)] = advanced(
        0.05,
        description="Seconds that one batch of images may take, as measured: bounds how many images are computed, and "
        "claimed, at once. A worker finds the size from which on an image gets no cheaper.",
    )
    item_pixels_max: Count = Field(
        50_000_000,
        description="Maximum pixels of one image, as stated in its header: a larger image is not decoded. "
        "16-bit pixels of more than one channel count for more: RGB by half, RGBA twice. A process takes 12 bytes of "
        "memory for each while it decodes.",
    )
    item_frames_max: Count = advanced(
        1, description="Maximum frames of one image, as stated in its header. Only the first frame is classified."
    )
    slow_image_seconds: Annotated[float, Field(gt=0, le=60)] = advanced(
        0.5,
        description="Seconds of decoding, as estimated from an image's header, from which on an image is slow: it runs "
        "alone, after others' images, and never in all of a model's processes at once.",
    )
