"""The common tutorial: FastAPI, one Celery task per image, and Celery's result backend.

celery --app bench.baselines.tutorial worker --concurrency 2
uvicorn bench.baselines.tutorial:api
"""

import base64
import os
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from celery.signals import worker_process_init
from fastapi import FastAPI, UploadFile

from bench.baselines.predictor import Predict, load_predictor

app = Celery("tutorial", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
api = FastAPI()
loaded: dict[str, Predict] = {}


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def load(**_: Any) -> None:
    """Load the model once per process."""
    loaded["predict"] = load_predictor()


@app.task  # type: ignore[untyped-decorator]  # Celery has no types
def classify(image: str) -> dict[str, str]:
    (answer,) = loaded["predict"]([base64.b64decode(image)])
    return answer


@api.post("/predict", status_code=202)
def submit(file: UploadFile) -> dict[str, str]:
    task = classify.delay(base64.b64encode(file.file.read()).decode())
    return {"task_id": task.id, "status": "PENDING"}


@api.get("/result/{task_id}")
def result(task_id: str) -> dict[str, Any]:
    task = AsyncResult(task_id, app=app)
    status = task.status  # once: each access asks Redis again until the task is done
    if status != "SUCCESS":
        return {"task_id": task_id, "status": status}
    return {"task_id": task_id, "status": status, "result": task.result}
