"""What a child loads when it starts; imports torch."""

import logging
import resource

import torch

from worker.classifier import Classifier
from worker.compute import Compute
from worker.images import ImageLimits
from worker.package import load_package
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)


def load_model(settings: WorkerSettings) -> Classifier:
    """The model of this worker, on as many threads as a child has.

    Raises:
        ModelPackageError: it cannot be served.
        SettingsError: there is no such device.
    """
    if settings.child_memory_bytes_max is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (settings.child_memory_bytes_max,) * 2)
    torch.set_num_threads(settings.torch_threads)
    compute = Compute.of(settings.device, settings.precision)
    log.info("computing on %s", compute.name)
    return load_package(settings.models_dir / settings.model, ImageLimits.of(settings), compute)
