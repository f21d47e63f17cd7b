"""Model packages on disk: folders with `manifest.json` and weights. This module never loads the weights."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobs.errors import ModelPackageError
from jobs.model_manifest import Manifest, ModelCard, name_of

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
UNKNOWN_FIELD = "unknown field: misspelled, or of another version of Darkroom"


def read_manifest(package: Path) -> Manifest:
    """Read the manifest of a package folder.

    Raises:
        ModelPackageError: the manifest is missing or invalid; names the field.
    """
    path = package / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelPackageError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise ModelPackageError(f"{path}: {'; '.join(map(_problem, error.errors()))}") from None


def _problem(error: ErrorDetails) -> str:
    message = UNKNOWN_FIELD if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, ")
    field = ".".join(map(str, error["loc"]))
    return f"{field}: {message}" if field else message


def check_package(folder: Path) -> tuple[Manifest, ModelCard]:
    """Read the manifest and hash the weights, without loading them.

    Raises:
        ModelPackageError: the manifest is invalid, the weights are missing or not those of the manifest.
    """
    manifest = read_manifest(folder)
    path = folder / manifest.weights.file
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelPackageError(f"{path}: {error.strerror}") from None
    if manifest.weights.sha256 not in (None, sha256):
        raise ModelPackageError(f"{path}: the sha256 is {sha256}, but the manifest says {manifest.weights.sha256}")
    return manifest, manifest.card(sha256)


def package_folder(models_dir: Path, ref: str) -> Path:
    """The folder of a package: `name@version` if there is such a folder, else `name`."""
    folder = models_dir / ref
    return folder if folder.exists() else models_dir / name_of(ref)


def check_packages(models_dir: Path, refs: Iterable[str]) -> tuple[list[ModelCard], dict[str, str]]:
    """Check several packages. Returns the cards of the valid ones, and the errors of the others by their ref."""
    cards, load_errors = dict[str, ModelCard](), dict[str, str]()
    for ref in refs:
        folder = package_folder(models_dir, ref)
        try:
            _, card = check_package(folder)
            check_ref(folder, card, ref)
        except ModelPackageError as error:
            load_errors[ref] = str(error)
        else:
            cards[card.ref] = card
    return list(cards.values()), load_errors


def check_ref(folder: Path, card: ModelCard, ref: str) -> None:
    """Check that a package is what its folder's name says: a model is never served under another name or version.

    Raises:
        ModelPackageError: the manifest is of another model or version.
    """
    if ref not in (card.name, card.ref):
        raise ModelPackageError(f"{folder / MANIFEST}: describes {card.ref}, not {ref}")


def pinned_cards(models_dir: Path) -> Iterator[ModelCard]:
    """The cards of all packages whose manifest has the weights' sha256.

    They let the API know its models before a worker has started. An invalid manifest is logged and skipped, so that it
    does not affect other models.
    """
    for path in sorted(models_dir.glob(f"*/{MANIFEST}")):
        try:
            manifest = read_manifest(path.parent)
            if manifest.weights.sha256 is None:
                continue
            card = manifest.card(manifest.weights.sha256)
            check_ref(path.parent, card, path.parent.name)
        except ModelPackageError as error:
            log.warning("skipping a model package: %s", error)
        else:
            yield card
