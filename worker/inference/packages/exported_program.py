"""Loads programs of `torch.export` (`.pt2`): networks from untrusted sources, without running code from the file.

`torch.export.load` unpickles the sample inputs and every tensor that is marked as a pickle, and would load compiled
code. So the archive is repacked first, and only a checked graph, plain tensors and version numbers are copied.
"""

import io
import json
import re
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.export.pt2_archive._package import load_pt2  # torch.export.load() only logs its errors

from jobs.errors import ModelPackageError, one_line
from worker.inference.packages.graph_check import checked_graph

BATCH_MAX = 256  # images of one forward pass; the setting BATCH_ITEMS is at most this
_COPIED = re.compile(
    r"[^/]+/(data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder"
    r"|\.data/version|\.data/serialization_id|\.format_version|\.storage_alignment)"
)
_CONFIG = re.compile(r"[^/]+/data/(weights|constants)/model_(weights|constants)_config\.json")
_GRAPH = re.compile(r"[^/]+/models/model\.json")
_SAMPLE_INPUTS = re.compile(r"[^/]+/data/sample_inputs/model\.pt")


def load_exported(path: Path, device: torch.device) -> nn.Module:
    """The program's network. It accepts batches of up to BATCH_MAX images, and creates its own tensors on `device`.

    Raises:
        ModelPackageError: the program is damaged, or contains anything that could run code; one line with the reason.
    """
    try:
        program = load_pt2(_repack(path)).exported_programs["model"]
        _check_batch(program)
        network: nn.Module = move_to_device_pass(program, device).module(check_guards=False)
    except ModelPackageError as error:
        raise ModelPackageError(f"{path}: {error}") from None
    except Exception as error:  # torch's reader raises errors of many types
        message = f"{path}: cannot be read as exported by torch {torch.__version__}: {one_line(error)}"
        raise ModelPackageError(message) from None
    return network.requires_grad_(requires_grad=False)


def _check_batch(program: ExportedProgram) -> None:
    first = program.graph_signature.user_inputs[0]
    (size,) = (node.meta["val"].shape[0] for node in program.graph.nodes if node.name == first)
    allowed = program.range_constraints.get(size.node.expr) if isinstance(size, torch.SymInt) else None
    if allowed is not None and allowed.upper < BATCH_MAX:
        raise ModelPackageError(f"accepts at most {allowed.upper} images at a time; export it for {BATCH_MAX} or more")


def _repack(path: Path) -> io.BytesIO:
    """A copy of the archive in memory, without anything that torch would unpickle or run."""
    repacked = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(repacked, "w") as target:
        for name in dict.fromkeys(source.namelist()):
            if _CONFIG.fullmatch(name):
                data = source.read(name)
                if any(tensor.get("use_pickle") for tensor in json.loads(data)["config"].values()):
                    raise ModelPackageError(
                        f"{name} refers to pickles, which can run code; only plain tensors are read"
                    )
                target.writestr(name, data)
            elif _GRAPH.fullmatch(name):
                target.writestr(name, checked_graph(source.read(name)))
            elif _COPIED.fullmatch(name):
                target.writestr(name, source.read(name))
            elif _SAMPLE_INPUTS.fullmatch(name):
                target.writestr(name, b"")
    repacked.seek(0)
    return repacked
