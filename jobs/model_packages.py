"""Model packages on the disk: folders with `manifest.json` and weights. Nothing here loads the weights."""

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
    """The manifest of a package folder.

    Raises:
        ModelPackageError: it is missing or wrong; names the field.
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
        ModelPackageError: one line that says what is wrong.
    """
    manifest = read_manifest(folder)
    path = folder / manifest.weights.file
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelPackageError(f"{path}: {error.strerror}") from None
    if manifest.weights.sha256 not in (None, sha256):
        raise ModelPackageError(f"{path}: its sha256 is {sha256}, the manifest says {manifest.weights.sha256}")
    return manifest, manifest.card(sha256)


def package_folder(models_dir: Path, ref: str) -> Path:
    """Where a package is: in a folder that is named like it, with its version or without."""
    folder = models_dir / ref
    return folder if folder.exists() else models_dir / name_of(ref)


def check_packages(models_dir: Path, refs: Iterable[str]) -> tuple[list[ModelCard], dict[str, str]]:
    """The cards of some packages, and of those that cannot be served the reasons, each by what it was asked for."""
    cards, faults = dict[str, ModelCard](), dict[str, str]()
    for ref in refs:
        folder = package_folder(models_dir, ref)
        try:
            _, card = check_package(folder)
            check_ref(folder, card, ref)
        except ModelPackageError as error:
            faults[ref] = str(error)
        else:
            cards[card.ref] = card
    return list(cards.values()), faults


def check_ref(folder: Path, card: ModelCard, ref: str) -> None:
    """A package is served as what it is, and not as what its folder is named.

    Raises:
        ModelPackageError: it is of another model, or of another version.
    """
    if ref not in (card.name, card.ref):
        raise ModelPackageError(f"{folder / MANIFEST}: is of {card.ref}, and not of {ref}")


def pinned_cards(models_dir: Path) -> Iterator[ModelCard]:
    """The cards that can be told from manifests alone, so that the API knows its models before a worker is up.

    A wrong manifest is logged and passed over: a model that cannot be served must not keep the others down.
    """
    for path in sorted(models_dir.glob(f"*/{MANIFEST}")):
        try:
            manifest = read_manifest(path.parent)
            if manifest.weights.sha256 is None:
                continue
            card = manifest.card(manifest.weights.sha256)
            check_ref(path.parent, card, path.parent.name)
        except ModelPackageError as error:
            log.warning("a model is passed over: %s", error)
        else:
            yield card
