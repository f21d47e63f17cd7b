"""A child process of a classifying worker: one claim loop for each model that it serves. Imports torch."""

import logging
import resource
from collections.abc import Mapping

import torch
from billiard import current_process
from redis.exceptions import RedisError

from jobs.errors import ModelPackageError, SettingsError
from jobs.metrics.process_metrics import GPU_MEMORY, GPU_MEMORY_USED
from jobs.model_manifest import name_of, natural_sort_key
from jobs.model_packages import package_folder
from worker.classify.claim_loop import ClaimLoop
from worker.inference.allocator import keep_freed_memory
from worker.inference.classifier import Classifier
from worker.inference.images.limits import ImageLimits
from worker.inference.networks.device import Device
from worker.inference.packages.load import load_package
from worker.lease_client import LeaseClient
from worker.lease_renewer import LeaseRenewer
from worker.process_state import ProcessState
from worker.settings import WorkerSettings
from worker.store import open_lease_store

log = logging.getLogger(__name__)

LINGER_AMONG_SECONDS = 0.005  # with several models: a child that lingers for one delays the doorbells of the others


class ClassifyProcess:
    def __init__(self, settings: WorkerSettings, worker_id: str, process_state: ProcessState) -> None:
        """Loads the models that `process_state` names, and leaves out those that fail to load.

        Raises:
            ModelPackageError: no model can be loaded.
            SettingsError: the configured device does not exist.
        """
        if settings.child_memory_bytes_max is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (settings.child_memory_bytes_max,) * 2)
        keep_freed_memory(settings.worker_children)
        torch.set_num_threads(settings.torch_threads)
        served = process_state.read_served()
        if len(served) > 1:
            linger = min(settings.linger_seconds, LINGER_AMONG_SECONDS)
            settings = settings.model_copy(update={"linger_seconds": linger})
        device = _device(settings, served, process_state)
        self._gpu = device.torch_device if device.is_gpu else None
        classifiers = _load(settings, served, device, process_state)
        self._paces = {(ref, device.name): classifier.pace for ref, classifier in classifiers.items()}
        self._store = open_lease_store(settings)
        self._lease_renewer = LeaseRenewer(
            settings, [(name_of(ref), ref) for ref in classifiers], worker_id, process_state
        )
        leases = LeaseClient(
            self._store, worker_id, lease_seconds=settings.lease_seconds, renewing=self._lease_renewer.renewing
        )
        self._loops = {
            ref: ClaimLoop(settings, classifier, self._store, leases, self._lease_renewer)
            for ref, classifier in classifiers.items()
        }
        by_version = sorted(self._loops, key=natural_sort_key)
        self._newest = {name_of(ref): self._loops[ref] for ref in by_version}

    def start(self) -> None:
        """Send heartbeats, and renew leases."""
        self._lease_renewer.start()
        try:
            for (ref, device), (batch, image_seconds) in self._paces.items():
                self._store.show_pace(ref, device, batch, round(1000 * image_seconds, 3))
        except RedisError as error:
            log.warning("cannot publish the measured batches: %s", error)

    def run_slice(self, task_id: str, model: str) -> None:
        """Does nothing for a model that this process does not serve: the doorbell rings again for one that does."""
        loop = self._loops.get(model) or self._newest.get(model)
        if loop is not None:
            loop.run_slice(task_id, model)
            self._show_gpu_memory()

    def _show_gpu_memory(self) -> None:
        if self._gpu is not None and GPU_MEMORY.is_open:
            free, total = torch.cuda.mem_get_info(self._gpu)
            GPU_MEMORY_USED.set(total - free, str(self._gpu))
            GPU_MEMORY.set(total, str(self._gpu))

    def close(self) -> None:
        self._lease_renewer.stop()
        self._store.close()


def _device(settings: WorkerSettings, served: Mapping[str, str], process_state: ProcessState) -> Device:
    """The device that this process computes on.

    Raises:
        SettingsError: it does not exist.
    """
    try:
        device = Device.of(settings.device, settings.precision, child=getattr(current_process(), "index", 0))
    except SettingsError as error:
        process_state.write_load_errors(dict.fromkeys(served, str(error)))
        raise
    log.info("computing on %s", device.name)
    return device


def _load(
    settings: WorkerSettings, served: Mapping[str, str], device: Device, process_state: ProcessState
) -> dict[str, Classifier]:
    """The models that can be served; the reasons of the others are written to `process_state`.

    Raises:
        ModelPackageError: no model can be loaded.
    """
    classifiers, load_errors = dict[str, Classifier](), dict[str, str]()
    for ref, sha256 in served.items():
        folder = package_folder(settings.models_dir, ref)
        try:
            classifier = load_package(folder, ImageLimits.of(settings), device)
            if (classifier.card.ref, classifier.card.sha256) != (ref, sha256):
                raise ModelPackageError(f"{folder}: is no longer the {ref} with which this worker was started")
            classifier.measure_pace(seconds_max=settings.batch_seconds_max, clock=device.clock)
        except ModelPackageError as error:
            load_errors[ref] = str(error)
        except Exception as error:  # an error of one model must not stop the others
            log.exception("cannot load %s", ref)
            load_errors[ref] = f"{folder}: {error!r}"
        else:
            classifiers[ref] = classifier
    process_state.write_load_errors(load_errors)
    if not classifiers:
        raise ModelPackageError("; ".join(load_errors.values()))
    return classifiers
