"""Plots of a training, for the docs."""

import csv
from pathlib import Path

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data import CLASSES

rcParams["svg.hashsalt"] = "darkroom"  # the same plot gives the same bytes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})


def learning_curve(log: Path, path: Path) -> None:
    """Losses and held-out accuracy by epoch, from the CSV file of `training.fit`."""
    with log.open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(9, 3.2))
    losses, accuracy = figure.subplots(1, 2)
    for name, label in (("train_loss", "training, augmented"), ("held_out_loss", "held out")):
        losses.plot(epochs, [row[name] for row in rows], label=label)
    losses.set(xlabel="epoch", ylabel="cross entropy", ylim=(0, 1.2))
    losses.legend()
    accuracy.plot(epochs, [100 * row["held_out_accuracy"] for row in rows])
    accuracy.set(xlabel="epoch", ylabel="held out, % right", ylim=(85, 97))
    accuracy.grid(alpha=0.3)
    _save(figure, path)


def confusion_matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], path: Path) -> None:
    """How many images of each class were classified as which class."""
    counts = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(counts, (labels, predicted), 1)
    figure = Figure(figsize=(6.5, 6))
    axes = figure.subplots()
    axes.imshow(np.sqrt(counts), cmap="Blues")
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column]:
            shade = "white" if counts[row, column] > counts.max() / 3 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade, fontsize=8)
    axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=45, ha="right")
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.set(xlabel="answer", ylabel="label")
    _save(figure, path)
