"""Makes a worker's model packages known to the store, in its main process."""

from collections.abc import Mapping

from celery import Celery

from jobs.errors import ModelPackageError
from jobs.model_packages import check_packages
from jobs.store.doorbell import build_doorbell
from jobs.store.for_workers.leases import LeaseStore
from worker.settings import WorkerSettings


class ModelRegistration:
    def __init__(self, settings: WorkerSettings) -> None:
        """Reads the manifests and hashes the weights of the packages that the settings name."""
        self._cards, self._load_errors = check_packages(settings.models_dir, settings.served)
        self.models = tuple(card.ref for card in self._cards)
        """The packages that can be read, each as `name@version`."""
        self._templates = dict[str, dict[str, bytes]]()
        """Of the doorbells of each served package."""

    @property
    def load_errors(self) -> Mapping[str, str]:
        """The models that cannot be served, each with the reason."""
        return self._load_errors

    def register(self, store: LeaseStore, app: Celery) -> None:
        """Register the models and the templates of their doorbells.

        Raises:
            ModelPackageError: no model can be served.
        """
        for card in self._cards:
            templates = {model: build_doorbell(app, model) for model in (card.name, card.ref)}
            try:
                store.register(card, templates)
            except ModelPackageError as error:
                self._load_errors[card.ref] = str(error)
            else:
                self._templates[card.ref] = templates
        if self._load_errors.keys() >= set(self.models):
            raise ModelPackageError("; ".join(self._load_errors.values()))

    def restore(self, store: LeaseStore) -> None:
        """Register the served models again if the store has lost their doorbells.

        Raises:
            ModelPackageError: another worker has registered a version with other weights since.
        """
        for card in self._cards:
            templates = self._templates.get(card.ref, {})
            if templates and store.lacks_doorbells(templates):
                store.register(card, templates)

    def served(self) -> dict[str, str]:
        """The models to serve, each with the sha256 of its weights."""
        return {card.ref: card.sha256 for card in self._cards if card.ref not in self._load_errors}
