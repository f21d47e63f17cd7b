"""Programs of `torch.export` (`.pt2`): anyone's network, with no code of theirs.

`torch.export.load` unpickles the sample inputs and whatever says that it is a pickle, and would load compiled code. So
the archive is packed anew first, of nothing but a graph that was checked, plain tensors and the numbers of versions.
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
from torch.export.pt2_archive._package import load_pt2  # torch.export.load() hides its errors in the log

from jobs.errors import ModelPackageError, one_line
from worker.inference.packages.graph_check import checked_graph

BATCH_MAX = 256  # images of a forward, at most: see BATCH_ITEMS
_KEPT = re.compile(
    r"[^/]+/(data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder"
    r"|\.data/version|\.data/serialization_id|\.format_version|\.storage_alignment)"
)
_CONFIG = re.compile(r"[^/]+/data/(weights|constants)/model_(weights|constants)_config\.json")
_GRAPH = re.compile(r"[^/]+/models/model\.json")
_SAMPLE_INPUTS = re.compile(r"[^/]+/data/sample_inputs/model\.pt")


def load_exported(path: Path, device: torch.device) -> nn.Module:
    """The program's network. It takes a batch of any size up to BATCH_MAX, and what tensors it makes are on `device`.

    Raises:
        ModelPackageError: one line that says what is wrong.
    """
    try:
        program = load_pt2(_packed_anew(path)).exported_programs["model"]
        _check_batch(program)
        network: nn.Module = move_to_device_pass(program, device).module(check_guards=False)
    except ModelPackageError as error:
        raise ModelPackageError(f"{path}: {error}") from None
    except Exception as error:  # torch's reader has many kinds
        line = f"{path}: cannot be read as exported by torch {torch.__version__}: {one_line(error)}"
        raise ModelPackageError(line) from None
    return network.requires_grad_(requires_grad=False)


def _check_batch(program: ExportedProgram) -> None:
    first = program.graph_signature.user_inputs[0]
    (size,) = (node.meta["val"].shape[0] for node in program.graph.nodes if node.name == first)
    allowed = program.range_constraints.get(size.node.expr) if isinstance(size, torch.SymInt) else None
    if allowed is not None and allowed.upper < BATCH_MAX:
        raise ModelPackageError(f"takes at most {allowed.upper} images at a time; export it for {BATCH_MAX} or more")


def _packed_anew(path: Path) -> io.BytesIO:
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(packed, "w") as kept:
        for name in dict.fromkeys(given.namelist()):
            if _CONFIG.fullmatch(name):
                data = given.read(name)
                if any(entry.get("use_pickle") for entry in json.loads(data)["config"].values()):
                    raise ModelPackageError(f"{name} names pickles, which can run code; only tensors are read")
                kept.writestr(name, data)
            elif _GRAPH.fullmatch(name):
                kept.writestr(name, checked_graph(given.read(name)))
            elif _KEPT.fullmatch(name):
                kept.writestr(name, given.read(name))
            elif _SAMPLE_INPUTS.fullmatch(name):
                kept.writestr(name, b"")
    packed.seek(0)
    return packed
