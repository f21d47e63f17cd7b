"""Making a package of anyone's network: in a folder beside its place, which it takes once all has succeeded."""

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from jobs.errors import ModelPackageError, one_line
from jobs.model_manifest import GoldenImage, Input, Manifest
from jobs.model_packages import MANIFEST, read_manifest
from worker.inference.classifier import Classifier
from worker.inference.images.decode import ImageLimits
from worker.inference.packages.exported_program import BATCH_MAX
from worker.inference.packages.load import load_package

PROGRAM = "program.pt2"


def export(
    network: nn.Module,
    folder: Path,
    *,
    golden: Sequence[Path] = (),
    limits: ImageLimits,
    named: str = "the network",
    **fields: Any,
) -> Manifest:
    """Write a package of any network that `torch.export` can take. `fields` are those of the manifest, in its JSON.

    The package is put in place once all of it has succeeded; one that was there is replaced as a whole.

    `folder`: its name is the model's, or `name@version`.
    `golden`: pictures that the worker is to classify before it takes work, as this very network does now.
    `named`: what errors call the network.

    Raises:
        ModelPackageError: it cannot be served, or would replace what is no package; one line that says why.
        OSError: a picture cannot be read, or the folder not be written.
    """
    _check_replaceable(folder)
    fields |= _ref(folder, fields.get("version"))
    nearest = next(parent for parent in folder.absolute().parents if parent.is_dir())
    with TemporaryDirectory(dir=nearest, prefix=".export-") as temporary:
        made = Path(temporary) / "package"  # a level too deep to be taken for a package while it is made
        made.mkdir()
        try:
            manifest = _make(network, made, golden, limits, named, fields)
        except ModelPackageError as error:
            raise ModelPackageError(str(error).removeprefix(f"{made}/")) from None
        _put(made, folder, Path(temporary) / "replaced")
    return manifest


def _check_replaceable(folder: Path) -> None:
    """What is no part of a package must not be lost with it."""
    if folder.exists() and not folder.is_dir():
        raise ModelPackageError(f"{folder}: is there, and is no folder")
    try:
        manifest = read_manifest(folder)
        own = {MANIFEST, manifest.weights.file, *(image.file for image in manifest.golden)}
    except ModelPackageError:
        own = set()
    for path in folder.rglob("*"):
        other = str(path.relative_to(folder))
        if not path.is_dir() and other not in own:
            raise ModelPackageError(
                f"{folder}: holds {other}, which is no part of a package: move that away, or name another folder"
            )


def _ref(folder: Path, version: str | None) -> dict[str, str | None]:
    name, at, own = folder.absolute().name.partition("@")
    if at and version not in (None, own):
        raise ModelPackageError(f"{folder}: is for version {own}, but --version is {version}")
    return {"name": name, "version": own if at else version}


def _make(
    network: nn.Module,
    folder: Path,
    golden: Sequence[Path],
    limits: ImageLimits,
    named: str,
    fields: Mapping[str, Any],
) -> Manifest:
    weights = {"file": PROGRAM, "format": "exported"}
    (folder / MANIFEST).write_text(json.dumps({"weights": weights, **fields}))
    manifest = read_manifest(folder)  # before the slow part, and with its line of what is wrong
    _save_program(network, manifest.input, folder / PROGRAM, named)
    sha256 = hashlib.sha256((folder / PROGRAM).read_bytes()).hexdigest()
    manifest = manifest.model_copy(update={"weights": manifest.weights.model_copy(update={"sha256": sha256})})
    _write(folder, manifest)
    classifier = load_package(folder, limits)
    images = [_golden(classifier, folder, path, number) for number, path in enumerate(golden, 1)]
    manifest = manifest.model_copy(update={"golden": images})
    _write(folder, manifest)
    return manifest


def _save_program(network: nn.Module, wanted: Input, path: Path, named: str) -> None:
    example = torch.zeros(2, wanted.channels, wanted.height, wanted.width)
    size = f"{wanted.channels} × {wanted.height} × {wanted.width}"
    network.eval()
    try:  # by itself first: what it says then is plainer than what torch.export makes of it
        with torch.no_grad():
            network(example)
    except Exception as error:  # it is anyone's
        raise ModelPackageError(f"{named}: does not take 2 images of {size}: {one_line(error)}") from None
    batch = torch.export.Dim("batch", min=1, max=BATCH_MAX)
    try:
        with redirect_stderr(io.StringIO()):  # torch prints its graph of a network that it refuses
            program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, path)
    except Exception as error:  # torch has many kinds
        raise ModelPackageError(f"{named}: torch.export does not take it: {one_line(error)}") from None


def _golden(classifier: Classifier, folder: Path, path: Path, number: int) -> GoldenImage:
    picture = path.read_bytes()
    (outcome,) = classifier.classify([picture], [1])
    if not isinstance(outcome, list):
        raise ModelPackageError(f"{path}: {outcome.code}: {outcome.detail}")
    suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]+", path.suffix) else ""
    file = Path("golden") / f"{number}{suffix}"  # two may have one name, and a manifest does not take every name
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(picture)
    name = classifier.card.classes[outcome[0].class_index]
    return GoldenImage(file=str(file), class_name=name, confidence=round(outcome[0].confidence, 6))


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1, exclude_defaults=True) + "\n")


def _put(made: Path, folder: Path, aside: Path) -> None:
    """In place of what was there, which goes aside, and comes back if the new one cannot take its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(aside)
    try:
        made.rename(folder)
    except OSError:
        if aside.exists():
            aside.rename(folder)
        raise
