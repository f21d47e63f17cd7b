"""Exports any network as a model package. The package is built in a temporary folder and then moved into place."""

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
from worker.inference.images.limits import ImageLimits
from worker.inference.packages.exported_program import BATCH_MAX
from worker.inference.packages.load import load_package

PROGRAM = "program.pt2"


def export(
    network: nn.Module,
    folder: Path,
    *,
    golden: Sequence[Path] = (),
    limits: ImageLimits,
    network_name: str = "the network",
    **fields: Any,
) -> Manifest:
    """Write a package of any network that `torch.export` supports. `fields` are those of the manifest, as in its JSON.

    The package replaces an older one as a whole, and only if all steps succeed.

    `folder`: its name is the model's name, or `name@version`.
    `golden`: images that a worker must classify as this network does now, before it takes work.
    `network_name`: for error messages.

    Raises:
        ModelPackageError: the package could not be served, or `folder` has other files; one line with the reason.
        OSError: an image cannot be read, or the folder cannot be written.
    """
    _check_replaceable(folder)
    fields |= _name_and_version(folder, fields.get("version"))
    nearest = next(parent for parent in folder.absolute().parents if parent.is_dir())
    with TemporaryDirectory(dir=nearest, prefix=".export-") as temporary:
        package = Path(temporary) / "package"  # one level deeper than packages are looked for
        package.mkdir()
        try:
            manifest = _write_package(network, package, golden, limits, network_name, fields)
        except ModelPackageError as error:
            raise ModelPackageError(str(error).removeprefix(f"{package}/")) from None
        _install(package, folder, Path(temporary) / "replaced")
    return manifest


def _check_replaceable(folder: Path) -> None:
    """Raises ModelPackageError if files that are not part of a package would be lost."""
    if folder.exists() and not folder.is_dir():
        raise ModelPackageError(f"{folder}: exists and is not a folder")
    try:
        manifest = read_manifest(folder)
        own = {MANIFEST, manifest.weights.file, *(image.file for image in manifest.golden)}
    except ModelPackageError:
        own = set()
    for path in folder.rglob("*"):
        file = str(path.relative_to(folder))
        if not path.is_dir() and file not in own:
            raise ModelPackageError(
                f"{folder}: contains {file}, which is not part of a package: move it away, or choose another folder"
            )


def _name_and_version(folder: Path, version: str | None) -> dict[str, str | None]:
    name, at, folder_version = folder.absolute().name.partition("@")
    if at and version not in (None, folder_version):
        raise ModelPackageError(f"{folder}: is for version {folder_version}, but --version is {version}")
    return {"name": name, "version": folder_version if at else version}


def _write_package(
    network: nn.Module,
    folder: Path,
    golden: Sequence[Path],
    limits: ImageLimits,
    network_name: str,
    fields: Mapping[str, Any],
) -> Manifest:
    weights = {"file": PROGRAM, "format": "exported"}
    (folder / MANIFEST).write_text(json.dumps({"weights": weights, **fields}))
    manifest = read_manifest(folder)  # reports an invalid field before the slow part
    _save_program(network, manifest.input, folder / PROGRAM, network_name)
    sha256 = hashlib.sha256((folder / PROGRAM).read_bytes()).hexdigest()
    manifest = manifest.model_copy(update={"weights": manifest.weights.model_copy(update={"sha256": sha256})})
    _write_manifest(folder, manifest)
    classifier = load_package(folder, limits)
    images = [_golden_image(classifier, folder, path, number) for number, path in enumerate(golden, 1)]
    manifest = manifest.model_copy(update={"golden": images})
    _write_manifest(folder, manifest)
    return manifest


def _save_program(network: nn.Module, input_spec: Input, path: Path, network_name: str) -> None:
    example = torch.zeros(2, input_spec.channels, input_spec.height, input_spec.width)
    size = f"{input_spec.channels} × {input_spec.height} × {input_spec.width}"
    network.eval()
    try:  # first without torch.export, whose errors are harder to understand
        with torch.no_grad():
            network(example)
    except Exception as error:  # the network is the user's code
        raise ModelPackageError(f"{network_name}: does not accept 2 images of {size}: {one_line(error)}") from None
    batch = torch.export.Dim("batch", min=1, max=BATCH_MAX)
    try:
        with redirect_stderr(io.StringIO()):  # torch prints the graph of a network that it cannot export
            program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
        for node in program.graph.nodes:  # paths of this machine: with them, each build would be another version
            node.meta.pop("stack_trace", None)
        torch.export.save(program, path)
    except Exception as error:  # torch.export raises errors of many types
        raise ModelPackageError(f"{network_name}: torch.export does not support it: {one_line(error)}") from None


def _golden_image(classifier: Classifier, folder: Path, path: Path, number: int) -> GoldenImage:
    upload = path.read_bytes()
    (outcome,) = classifier.classify([upload], [1])
    if not isinstance(outcome, list):
        raise ModelPackageError(f"{path}: {outcome.code}: {outcome.detail}")
    suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]+", path.suffix) else ""
    file = Path("golden") / f"{number}{suffix}"  # numbered: names may repeat, or not be allowed in a manifest
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(upload)
    name = classifier.card.classes[outcome[0].class_index]
    return GoldenImage(file=str(file), class_name=name, confidence=round(outcome[0].confidence, 6))


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1, exclude_defaults=True) + "\n")


def _install(package: Path, folder: Path, backup: Path) -> None:
    """Move a package to its folder. An older package is moved to `backup`, and back again if the move fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(backup)
    try:
        package.rename(folder)
    except OSError:
        if backup.exists():
            backup.rename(folder)
        raise
