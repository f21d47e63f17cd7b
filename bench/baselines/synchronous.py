"""The book's design: one FastAPI route that classifies while the client waits.

uvicorn bench.baselines.synchronous:app --workers 2
"""

from fastapi import FastAPI, UploadFile

from bench.baselines.network import load_network, predict

app = FastAPI()
network = load_network()


@app.post("/predict")
async def classify(file: UploadFile) -> dict[str, str]:
    return predict(network, await file.read())
