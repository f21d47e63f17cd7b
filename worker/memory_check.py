"""Whether a worker's container has the memory that its settings let its processes take."""

from jobs.errors import SettingsError
from jobs.model_packages import package_folder
from worker.inference.allocator import MIB, container_memory_bytes
from worker.inference.images.limits import DECODE_PIXEL_BYTES
from worker.settings import WorkerSettings

MAIN_PROCESS_BYTES = 100 * MIB
CHILD_BYTES = 350 * MIB  # of one child with a small model that has classified photos (docs/decisions/0042-allocator.md)


def check_memory(settings: WorkerSettings, models: tuple[str, ...]) -> None:
    """Called before any child is started. A machine without a container's limit is not checked.

    Raises:
        SettingsError: all children may together need more memory than the container has: its kernel would kill them.
    """
    available, needed = container_memory_bytes(), needed_bytes(settings, models)
    if available is not None and available < needed:
        raise SettingsError(
            f"{settings.worker_children} processes that decode images of {settings.item_pixels_max:,} pixels may take "
            f"{needed // MIB:,} MiB, and the container has {available // MIB:,} MiB: raise its limit (in compose "
            f"WORKER_MEMORY_LIMIT), or lower WORKER_CHILDREN, ITEM_PIXELS_MAX or CHILD_MEMORY_BYTES_MAX"
        )


def needed_bytes(settings: WorkerSettings, models: tuple[str, ...]) -> int:
    """The memory of a worker that serves these models, each `name@version`, and decodes the largest images at once."""
    folders = [package_folder(settings.models_dir, model) for model in models]
    packages = sum(file.stat().st_size for folder in folders for file in folder.iterdir() if file.is_file())
    child = CHILD_BYTES + packages + DECODE_PIXEL_BYTES * settings.item_pixels_max
    if settings.child_memory_bytes_max is not None:
        child = min(child, settings.child_memory_bytes_max)
    return MAIN_PROCESS_BYTES + settings.worker_children * child
