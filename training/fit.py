"""The training loop."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm


@dataclass(frozen=True, slots=True)
class Recipe:
    epochs: int
    batch_size: int
    learning_rate: float  # at its highest; a cosine brings it to 0
    weight_decay: float
    label_smoothing: float
    seed: int


def fit(
    network: nn.Module, train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], recipe: Recipe, log: Path
) -> None:
    """Train in place. Inputs: float32, N × features, on the CPU; labels: int64, N. Writes a CSV row an epoch."""
    generator = torch.Generator().manual_seed(recipe.seed)
    inputs, labels = train
    steps = math.ceil(len(inputs) / recipe.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps * recipe.epochs, pct_start=0.1
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", "train_loss", "held_out_accuracy"])
        progress = tqdm(range(1, recipe.epochs + 1), unit="epoch")
        for epoch in progress:
            network.train()
            total = 0.0
            for batch in torch.split(torch.randperm(len(inputs), generator=generator), recipe.batch_size):
                loss = criterion(network(inputs[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(batch)
            reached = accuracy(network, *held_out)
            rows.writerow([epoch, f"{total / len(inputs):.5f}", f"{reached:.4f}"])
            progress.set_postfix(held_out=f"{reached:.4f}")


@torch.inference_mode()
def accuracy(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """The share of inputs whose highest logit is the label's."""
    network.eval()
    right = sum(
        (network(x).argmax(1) == y).sum().item()
        for x, y in zip(torch.split(inputs, 1000), torch.split(labels, 1000), strict=True)
    )
    return float(right) / len(labels)
