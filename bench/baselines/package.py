"""The route that everybody writes first, for any model package: it classifies while the client waits.

MODEL_PACKAGE=weights/imagenet uvicorn bench.baselines.package:app --workers 2

The network and the decoding are Darkroom's, so that only the design differs: one image a forward pass, as exported.
"""

import os
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, UploadFile
from torch import nn

from worker.inference.images.limits import ImageLimits
from worker.inference.packages.load import load_package
from worker.settings import WorkerSettings

TOP_K = 5


def unchanged(network: nn.Module, *_: Any, **__: Any) -> nn.Module:
    return network


torch.set_num_threads(1)  # two processes share two cores
app = FastAPI()
classifier = load_package(Path(os.environ["MODEL_PACKAGE"]), ImageLimits.of(WorkerSettings()), optimize=unchanged)


@app.post("/predict")
async def classify(file: UploadFile) -> dict[str, str]:
    (outcome,) = classifier.classify([await file.read()], [TOP_K])
    assert isinstance(outcome, list)
    best = outcome[0]
    return {"class": classifier.card.classes[best.class_index], "confidence": f"{best.confidence:.4f}"}
