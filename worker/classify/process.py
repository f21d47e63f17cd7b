"""What a child does for each of the models of its worker; imports torch."""

import logging
import resource
from collections.abc import Mapping

import torch
from billiard import current_process

from jobs.errors import ModelPackageError, SettingsError
from jobs.model_manifest import name_of, natural_sort_key
from jobs.model_packages import package_folder
from worker.classify.claim_loop import ClaimLoop
from worker.inference.images.decode import ImageLimits
from worker.inference.networks.device import Device
from worker.inference.packages.load import load_package
from worker.process_state import write_load_errors
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

LINGER_AMONG_SECONDS = 0.005  # a child that lingers for one model keeps the doorbells of the others waiting


class ClassifyProcess:
    def __init__(self, settings: WorkerSettings, models: Mapping[str, str], worker_id: str) -> None:
        """Loads the models, each given as `name@version` with its weights' sha256, on as many threads as a child has.

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
        try:
            device = Device.of(settings.device, settings.precision, child=getattr(current_process(), "index", 0))
        except SettingsError as error:
            write_load_errors(dict.fromkeys(models, str(error)))
            raise
        log.info("computing on %s", device.name)
        self._children, load_errors = dict[str, ClaimLoop](), dict[str, str]()
        for ref, sha256 in models.items():
            folder = package_folder(settings.models_dir, ref)
            try:
                classifier = load_package(folder, ImageLimits.of(settings), device)
                if (classifier.card.ref, classifier.card.sha256) != (ref, sha256):
                    raise ModelPackageError(f"{folder}: is not the {ref} any more with which this worker was started")
            except ModelPackageError as error:
                load_errors[ref] = str(error)
            except Exception as error:  # nothing that is wrong with one model is to keep others down
                log.exception("%s cannot be loaded", ref)
                load_errors[ref] = f"{folder}: {error!r}"
            else:
                self._children[ref] = ClaimLoop(settings, classifier, worker_id)
        write_load_errors(load_errors)
        if not self._children:
            raise ModelPackageError("; ".join(load_errors.values()))
        self._newest = {name_of(ref): child for ref, child in sorted(self._children.items(), key=_by_age)}

    def start(self) -> None:
        for child in self._children.values():
            child.start()

    def serve(self, task_id: str, model: str) -> None:
        """For a model that is not served here there is nothing to do; who does serve it is rung for again."""
        child = self._children.get(model) or self._newest.get(model)
        if child is not None:
            child.serve(task_id, model)


def _by_age(served: tuple[str, ClaimLoop]) -> list[tuple[bool, int, str]]:
    return natural_sort_key(served[0])
