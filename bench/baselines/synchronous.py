"""The book's design: one FastAPI route that classifies while the client waits.

uvicorn bench.baselines.synchronous:app --workers 2
"""

from fastapi import FastAPI, UploadFile

from bench.baselines.predictor import load_predictor

app = FastAPI()
predict = load_predictor()


@app.post("/predict")
async def classify(file: UploadFile) -> dict[str, str]:
    (answer,) = predict([await file.read()])
    return answer
