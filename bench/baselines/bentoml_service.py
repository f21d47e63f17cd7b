"""BentoML with its adaptive batching: a service that takes uploads, and two processes with the model behind it.

bentoml serve bench.baselines.bentoml_service:Upload --port PORT
"""

from __future__ import annotations

from pathlib import Path

import bentoml

from bench.baselines import BATCH_IMAGES_MAX, BATCH_LATENCY_MS_MAX, PROCESSES
from bench.baselines.predictor import load_predictor


@bentoml.service(workers=PROCESSES)
class Model:
    def __init__(self) -> None:
        self.predict = load_predictor()

    @bentoml.api(batchable=True, max_batch_size=BATCH_IMAGES_MAX, max_latency_ms=BATCH_LATENCY_MS_MAX)  # type: ignore[untyped-decorator]
    def classify(self, images: list[bytes]) -> list[dict[str, str]]:
        return self.predict(images)


@bentoml.service(workers=1)
class Upload:
    model = bentoml.depends(Model)

    @bentoml.api  # type: ignore[untyped-decorator]
    async def predict(self, file: Path) -> dict[str, str]:
        answers: list[dict[str, str]] = await self.model.to_async.classify([file.read_bytes()])
        return answers[0]
