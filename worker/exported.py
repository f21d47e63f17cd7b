"""Programs of `torch.export` (`.pt2`): anyone's network, with no code of theirs.

`torch.export.load` unpickles the sample inputs and whatever says that it is a pickle, and would load compiled code. So
the archive is packed anew first, of nothing but the graph, plain tensors and the numbers of versions.
"""

import io
import json
import re
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.export.pt2_archive._package import load_pt2  # torch.export.load() hides its errors in the log

from jobs.errors import ModelPackageError

_KEPT = re.compile(
    r"[^/]+/(models/model\.json|data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder"
    r"|\.data/version|\.data/serialization_id|\.format_version|\.storage_alignment)"
)
_CONFIG = re.compile(r"[^/]+/data/(weights|constants)/model_(weights|constants)_config\.json")
_SAMPLE_INPUTS = re.compile(r"[^/]+/data/sample_inputs/model\.pt")
_REASON_CHARACTERS = 300


def load_exported(path: Path) -> nn.Module:
    """The program's network.

    Raises:
        ModelPackageError: one line that says what is wrong.
    """
    try:
        network: nn.Module = load_pt2(_without_pickles(path)).exported_programs["model"].module()
    except ModelPackageError:
        raise
    except Exception as error:  # torch's reader has many kinds
        reason = " ".join(str(error).split())[:_REASON_CHARACTERS] or type(error).__name__
        raise ModelPackageError(f"{path}: cannot be read as exported by torch {torch.__version__}: {reason}") from None
    return network.requires_grad_(requires_grad=False)


def _without_pickles(path: Path) -> io.BytesIO:
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(packed, "w") as kept:
        for name in dict.fromkeys(given.namelist()):
            if _CONFIG.fullmatch(name):
                data = given.read(name)
                if any(entry.get("use_pickle") for entry in json.loads(data)["config"].values()):
                    raise ModelPackageError(f"{path}: {name} names pickles, which can run code; only tensors are read")
                kept.writestr(name, data)
            elif _KEPT.fullmatch(name):
                kept.writestr(name, given.read(name))
            elif _SAMPLE_INPUTS.fullmatch(name):
                kept.writestr(name, b"")
    packed.seek(0)
    return packed
