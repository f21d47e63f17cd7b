"""What a child does for each of the models of its worker; imports torch."""

import logging
import resource

import torch
from billiard import current_process

from jobs.errors import ModelPackageError
from jobs.models import name_of, natural, package_folder
from worker.child import Child
from worker.compute import Compute
from worker.images import ImageLimits
from worker.package import load_package
from worker.processes import note_model_faults
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

LINGER_AMONG_SECONDS = 0.005  # a child that lingers for one model keeps the doorbells of the others waiting


class Serving:
    def __init__(self, settings: WorkerSettings, models: tuple[str, ...], boot: str) -> None:
        """Loads the models, each given as `name@version`, on as many threads as a child has.

        One that cannot be served is noted, and left out.

        Raises:
            ModelPackageError: none can be served.
            SettingsError: there is no such device.
        """
        if settings.child_memory_bytes_max is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (settings.child_memory_bytes_max,) * 2)
        torch.set_num_threads(settings.torch_threads)
        if len(models) > 1:
            linger = min(settings.linger_seconds, LINGER_AMONG_SECONDS)
            settings = settings.model_copy(update={"linger_seconds": linger})
        compute = Compute.of(settings.device, settings.precision, child=getattr(current_process(), "index", 0))
        log.info("computing on %s", compute.name)
        self._children, faults = dict[str, Child](), dict[str, str]()
        for ref in models:
            try:
                classifier = load_package(package_folder(settings.models_dir, ref), ImageLimits.of(settings), compute)
            except ModelPackageError as error:
                faults[ref] = str(error)
            else:
                self._children[ref] = Child(settings, classifier, boot)
        if not self._children:
            raise ModelPackageError("; ".join(faults.values()))
        note_model_faults(faults)
        self._newest = {name_of(ref): child for ref, child in sorted(self._children.items(), key=_by_age)}

    def start(self) -> None:
        for child in self._children.values():
            child.start()

    def serve(self, task_id: str, model: str) -> None:
        """For a model that is not served here there is nothing to do; who does serve it is rung for again."""
        child = self._children.get(model) or self._newest.get(model)
        if child is not None:
            child.serve(task_id, model)


def _by_age(served: tuple[str, Child]) -> list[tuple[bool, int, str]]:
    return natural(served[0])
