"""The book's network and preprocessing, in the book's own code."""

import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def load_network() -> nn.Module:
    """784-1000-10, in evaluation mode, on one thread per process: two processes share two cores."""
    torch.set_num_threads(1)
    network = nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 10))
    network.load_state_dict(load_file(Path(os.environ["WEIGHTS"])))
    return network.eval()


def predict(network: nn.Module, data: bytes) -> dict[str, str]:
    """The book's answer for an image."""
    image = Image.open(io.BytesIO(data)).convert("L").resize((28, 28))
    pixels = (255 - np.array(image)) / 255
    with torch.no_grad():
        probabilities = torch.softmax(network(torch.tensor(pixels, dtype=torch.float32).reshape(1, 784)), dim=1)[0]
    best = int(probabilities.argmax())
    return {"class": CLASSES[best], "confidence": f"{float(probabilities[best]):.4f}"}
