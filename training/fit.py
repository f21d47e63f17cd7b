"""The training loop."""

import csv
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm import tqdm

from worker.inference.networks.device import CPU_FLOAT32, Device

Augment = Callable[[Tensor, Generator], Tensor]
_EVALUATION_BATCH = 1000
_STATISTICS_IMAGES = 2048  # for the means and variances of the batch norms of averaged weights


@dataclass(frozen=True, slots=True)
class Recipe:
    epochs: int
    batch_size: int
    learning_rate: float  # the highest
    weight_decay: float
    label_smoothing: float
    seed: int
    momentum: float = 0  # of SGD with Nesterov momentum; 0: AdamW
    falling_epochs: int = 0  # the rate is constant, then falls linearly to 0 in these; 0: one cycle with a cosine
    late_epochs: int = 0  # the last epochs, which have their own augmentation
    averaged_steps: int = 0  # the result is a moving average of the weights over about this many; 0: the last weights


class EpochResult(NamedTuple):
    """A row of the log."""

    epoch: int
    train_loss: float
    held_out_loss: float
    held_out_accuracy: float


def fit(
    network: nn.Module,
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    recipe: Recipe,
    log: Path,
    *,
    device: Device = CPU_FLOAT32,
    augment: Augment | None = None,
    late_augment: Augment | None = None,
    after_checkpoint: Callable[[int], None] = lambda _: None,
) -> nn.Module:
    """Train a network. Inputs: float32, N × channels × …; labels: int64, N.

    The labels to train with may also be probabilities: float32, N × classes.

    `augment`: the training images may have more channels than the network, for it to choose from; the first channel is
    the image itself. `late_augment` replaces it in the recipe's late epochs.
    `after_checkpoint`: called with the number of epochs that the checkpoint just written has.

    Writes a row per epoch to the CSV file `log`, and a checkpoint beside it, from which a training that was stopped is
    resumed.
    """
    run = _Run(network.to(device.torch_device), recipe, device, train)
    checkpoint = log.with_suffix(".checkpoint.pt")
    log.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        run.resume(checkpoint)
    done = len(run.results) * run.steps
    with tqdm(total=recipe.epochs * run.steps, initial=done, unit="batch") as progress:
        while len(run.results) < recipe.epochs:
            late = len(run.results) >= recipe.epochs - recipe.late_epochs
            run.epoch(held_out, late_augment if late else augment, progress)
            run.save(checkpoint)
            after_checkpoint(len(run.results))
            _write_log(log, run.results)
            progress.set_postfix(epoch=len(run.results), held_out=f"{run.results[-1].held_out_accuracy:.4f}")
    return run.trained


class _Run:
    """The state of a training."""

    def __init__(self, network: nn.Module, recipe: Recipe, device: Device, train: tuple[Tensor, Tensor]) -> None:
        self.steps = math.ceil(len(train[0]) / recipe.batch_size)
        self.results = list[EpochResult]()
        self._network = network
        self._recipe = recipe
        self._train = train
        self._train_sha256 = _digest(train)
        self._device = device
        self._generator = Generator().manual_seed(recipe.seed)
        self._optimizer = _optimizer(network, recipe)
        self._schedule = _schedule(self._optimizer, recipe, self.steps)
        self._average: AveragedModel | None = None
        if recipe.averaged_steps:
            averaging = get_ema_multi_avg_fn(1 - 1 / recipe.averaged_steps)  # type: ignore[no-untyped-call]  # torch gives no types
            self._average = AveragedModel(network, multi_avg_fn=averaging)

    @property
    def trained(self) -> nn.Module:
        return self._network if self._average is None else self._average.module

    def epoch(self, held_out: tuple[Tensor, Tensor], augment: Augment | None, progress: "tqdm[Any]") -> None:
        """Train with each image once, in random order, then evaluate on the held-out images."""
        inputs, labels = self._train
        self._network.train()
        total = 0.0
        for batch in torch.split(torch.randperm(len(inputs), generator=self._generator), self._recipe.batch_size):
            augmented = inputs[batch] if augment is None else augment(inputs[batch], self._generator)
            total += self._step(augmented, labels[batch]) * len(batch)
            progress.update()
        if self._average is not None:
            batches = torch.split(inputs[:_STATISTICS_IMAGES, : held_out[0].shape[1]], self._recipe.batch_size)
            update_bn(batches, self.trained, self._device.torch_device)
        evaluated = evaluate(self.trained, *held_out, self._device)
        self.results.append(EpochResult(len(self.results) + 1, total / len(inputs), *evaluated))

    def _step(self, inputs: Tensor, labels: Tensor) -> float:
        device = self._device.torch_device
        with self._device.autocast():
            outputs = self._network(inputs.to(device))
        smoothing = self._recipe.label_smoothing
        loss = functional.cross_entropy(outputs.float(), labels.to(device), label_smoothing=smoothing)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives no types
        self._optimizer.step()
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self._network)
        return loss.item()

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically: a training killed meanwhile resumes from the epoch before."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {  # under the keys that existing checkpoints have
            "recipe": asdict(self._recipe),
            "learned_from": self._train_sha256,
            "generator": self._generator.get_state(),
            "reached": list(map(tuple, self.results)),
        }
        new = path.with_suffix(".new")
        torch.save(state, new)
        new.replace(path)

    def resume(self, path: Path) -> None:
        """Raises ValueError if the checkpoint is of another recipe, or of other images or labels.

        The number of epochs may still change while the learning rate is constant: no step so far depended on it.
        """
        state = torch.load(path, map_location=self._device.torch_device, weights_only=True)
        epochs = min(self._recipe.epochs, state["recipe"]["epochs"])
        last = max(self._recipe.falling_epochs or epochs, self._recipe.late_epochs)
        if len(state["reached"]) <= epochs - last:
            state["recipe"]["epochs"] = self._recipe.epochs
        if state["recipe"] != asdict(self._recipe):
            raise ValueError(f"{path} is of a training with another recipe; remove it to start again")
        if state["learned_from"] != self._train_sha256:
            raise ValueError(f"{path} is of a training with other images or labels; remove it to start again")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self._generator.set_state(state["generator"].cpu())
        self.results = [EpochResult(*row) for row in state["reached"]]

    def _parts(self) -> dict[str, Any]:
        parts = {"network": self._network, "optimizer": self._optimizer, "schedule": self._schedule}
        return parts if self._average is None else {**parts, "average": self._average}


@torch.inference_mode()
def logits(network: nn.Module, inputs: Tensor, device: Device = CPU_FLOAT32) -> Tensor:
    """float32, N × classes, on the CPU."""
    network.eval()
    with device.autocast():
        return torch.cat(
            [network(part.to(device.torch_device)).float().cpu() for part in torch.split(inputs, _EVALUATION_BATCH)]
        )


def evaluate(network: nn.Module, inputs: Tensor, labels: Tensor, device: Device = CPU_FLOAT32) -> tuple[float, float]:
    """The mean cross entropy and the accuracy."""
    outputs = logits(network, inputs, device)
    accuracy = (outputs.argmax(1) == labels).float().mean()
    return float(functional.cross_entropy(outputs, labels)), float(accuracy)


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if not recipe.momentum:
        return torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of the learning rate. `steps`: per epoch."""
    if not recipe.falling_epochs:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            recipe.learning_rate,
            total_steps=steps * recipe.epochs,
            pct_start=0.1,
            cycle_momentum=not recipe.momentum,
        )
    total, falling, rising = (steps * epochs for epochs in (recipe.epochs, recipe.falling_epochs, 1))
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / rising, max(0, total - step) / falling)
    )


def _write_log(log: Path, results: list[EpochResult]) -> None:
    with log.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(EpochResult._fields)
        rows.writerows((result.epoch, *(f"{value:.5f}" for value in result[1:])) for result in results)
