"""Settings of decoding and computing. Each is an environment variable of the same name in capitals."""

from typing import Annotated, Literal

from pydantic import Field

from jobs.settings import SettingsGroup, advanced

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class InferenceSettings(SettingsGroup):
    """Which device computes a model, and which images are decoded."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")] = Field(
        "auto",
        description="`auto`, `cpu`, `cuda` or `cuda:N`. `auto` uses the GPUs, if there are any, else the CPU. With "
        "several GPUs, the worker's processes are distributed over them.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of convolutions and products: `float32`, `bfloat16`, or `auto` (bfloat16 on a "
        "GPU, float32 on a CPU). On a CPU, `bfloat16` applies to convolutions only, and only if it measures faster.",
    )
    torch_threads: Annotated[int, Field(ge=1, le=256)] = Field(
        1,
        description="Threads that one worker process computes with. `WORKER_CHILDREN` × `TORCH_THREADS` should equal "
        "the number of CPU cores.",
    )
    item_pixels_max: Count = Field(
        50_000_000, description="Maximum pixels of one image, as stated in its header: a larger image is not decoded."
    )
    item_frames_max: Count = advanced(
        1, description="Maximum frames of one image, as stated in its header. Only the first frame is classified."
    )
