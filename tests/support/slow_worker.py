"""A worker whose models take long. Run as a script; no production code imports it.

SLOW_MODELS says how long: JSON, model name to seconds of an image's forward pass.
"""

import json
import os
import time
from typing import Any

SLOW_MODELS = "SLOW_MODELS"


def _install() -> None:
    from worker.inference.classifier import Classifier  # noqa: PLC0415 - the main process does not import torch

    outputs, slow = Classifier.outputs, json.loads(os.environ[SLOW_MODELS])

    def slow_outputs(self: Any, inputs: Any) -> Any:
        time.sleep(slow.get(self.card.name, 0) * len(inputs))
        return outputs(self, inputs)

    measure_pace = Classifier.measure_pace

    def measure_slow_pace(self: Any, **options: Any) -> None:
        if self.card.name in slow:
            options["clock"] = time.monotonic  # a sleep takes no CPU time
        measure_pace(self, **options)

    Classifier.outputs = slow_outputs  # type: ignore[method-assign]  # as a large network would
    Classifier.measure_pace = measure_slow_pace  # type: ignore[method-assign]


if __name__ == "__main__":
    from worker.main import run

    run()
elif __name__ == "__mp_main__":  # in a child
    _install()
