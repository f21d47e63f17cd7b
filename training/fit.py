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

from worker.inference.networks.device import FULL, Device

Augment = Callable[[Tensor, Generator], Tensor]
_EVALUATED = 1000  # images at a time
_FOR_STATISTICS = 2048  # images that tell an average of networks its means and variances


@dataclass(frozen=True, slots=True)
class Recipe:
    epochs: int
    batch_size: int
    learning_rate: float  # at its highest
    weight_decay: float
    label_smoothing: float
    seed: int
    momentum: float = 0  # of SGD, with Nesterov's; 0: AdamW
    falling_epochs: int = 0  # the rate holds, then falls to 0 in a line over so many; 0: a cosine, from the start
    late_epochs: int = 0  # the last ones, which have an augmentation of their own
    averaged_steps: int = 0  # what is kept is a moving average over about so many; 0: the network of the last one


class Reached(NamedTuple):
    """An epoch's row in the log."""

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
    device: Device = FULL,
    augment: Augment | None = None,
    late_augment: Augment | None = None,
) -> nn.Module:
    """Train, and return what is to be kept. Inputs: float32, N × channels × …; labels: int64, N.

    The labels to learn may be probabilities as well: float32, N × classes.

    `augment` may have more channels to choose from than the network has, the first of them the image itself;
    `late_augment` takes its place in the recipe's late epochs.

    Writes a CSV row an epoch to `log`, and beside it a checkpoint, from which the same training goes on where it was
    stopped, or has ended.
    """
    run = _Run(network.to(device.device), recipe, device, train)
    checkpoint = log.with_suffix(".checkpoint.pt")
    log.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        run.resume(checkpoint)
    done = len(run.reached) * run.steps
    with tqdm(total=recipe.epochs * run.steps, initial=done, unit="batch") as progress:
        while len(run.reached) < recipe.epochs:
            late = len(run.reached) >= recipe.epochs - recipe.late_epochs
            run.epoch(held_out, late_augment if late else augment, progress)
            run.save(checkpoint)
            _write(log, run.reached)
            progress.set_postfix(epoch=len(run.reached), held_out=f"{run.reached[-1].held_out_accuracy:.4f}")
    return run.kept


class _Run:
    """A training as it stands."""

    def __init__(self, network: nn.Module, recipe: Recipe, device: Device, train: tuple[Tensor, Tensor]) -> None:
        self.steps = math.ceil(len(train[0]) / recipe.batch_size)
        self.reached = list[Reached]()
        self._network = network
        self._recipe = recipe
        self._train = train
        self._learned_from = _digest(train)
        self._compute = device
        self._generator = Generator().manual_seed(recipe.seed)
        self._optimizer = _optimizer(network, recipe)
        self._schedule = _schedule(self._optimizer, recipe, self.steps)
        self._average: AveragedModel | None = None
        if recipe.averaged_steps:
            average = get_ema_multi_avg_fn(1 - 1 / recipe.averaged_steps)  # type: ignore[no-untyped-call]  # torch gives no types
            self._average = AveragedModel(network, multi_avg_fn=average)

    @property
    def kept(self) -> nn.Module:
        return self._network if self._average is None else self._average.module

    def epoch(self, held_out: tuple[Tensor, Tensor], augment: Augment | None, progress: "tqdm[Any]") -> None:
        """Show every image once, in another order each time; then look how good it is."""
        inputs, labels = self._train
        self._network.train()
        total = 0.0
        for batch in torch.split(torch.randperm(len(inputs), generator=self._generator), self._recipe.batch_size):
            shown = inputs[batch] if augment is None else augment(inputs[batch], self._generator)
            total += self._step(shown, labels[batch]) * len(batch)
            progress.update()
        if self._average is not None:
            known = torch.split(inputs[:_FOR_STATISTICS, : held_out[0].shape[1]], self._recipe.batch_size)
            update_bn(known, self.kept, self._compute.device)
        reached = evaluate(self.kept, *held_out, self._compute)
        self.reached.append(Reached(len(self.reached) + 1, total / len(inputs), *reached))

    def _step(self, inputs: Tensor, labels: Tensor) -> float:
        device = self._compute.device
        with self._compute.precision():
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
        """All of it, in one step: a training that is killed meanwhile finds the epoch before."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {
            "recipe": asdict(self._recipe),
            "learned_from": self._learned_from,
            "generator": self._generator.get_state(),
            "reached": list(map(tuple, self.reached)),
        }
        new = path.with_suffix(".new")
        torch.save(state, new)
        new.replace(path)

    def resume(self, path: Path) -> None:
        """Raises ValueError where the checkpoint is of another recipe, or of other images or labels.

        As long as the rate holds, its epochs may become more or fewer: nothing that was done depended on them.
        """
        state = torch.load(path, map_location=self._compute.device, weights_only=True)
        epochs = min(self._recipe.epochs, state["recipe"]["epochs"])
        last = max(self._recipe.falling_epochs or epochs, self._recipe.late_epochs)
        if len(state["reached"]) <= epochs - last:
            state["recipe"]["epochs"] = self._recipe.epochs
        if state["recipe"] != asdict(self._recipe):
            raise ValueError(f"{path} is of a training with another recipe; remove it to begin anew")
        if state["learned_from"] != self._learned_from:
            raise ValueError(f"{path} is of a training with other images or labels; remove it to begin anew")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self._generator.set_state(state["generator"].cpu())
        self.reached = [Reached(*row) for row in state["reached"]]

    def _parts(self) -> dict[str, Any]:
        parts = {"network": self._network, "optimizer": self._optimizer, "schedule": self._schedule}
        return parts if self._average is None else {**parts, "average": self._average}


@torch.inference_mode()
def logits(network: nn.Module, inputs: Tensor, device: Device = FULL) -> Tensor:
    """float32, N × classes, on the CPU."""
    network.eval()
    with device.precision():
        return torch.cat([network(part.to(device.device)).float().cpu() for part in torch.split(inputs, _EVALUATED)])


def evaluate(network: nn.Module, inputs: Tensor, labels: Tensor, device: Device = FULL) -> tuple[float, float]:
    """The mean cross entropy, and the share of inputs whose highest logit is the label's."""
    found = logits(network, inputs, device)
    right = (found.argmax(1) == labels).float().mean()
    return float(functional.cross_entropy(found, labels)), float(right)


def _digest(tensors: Iterable[Tensor]) -> str:
    told = hashlib.sha256()
    for tensor in tensors:
        told.update(tensor.numpy().data)
    return told.hexdigest()


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
    """Of the rate, over an epoch of so many `steps`."""
    if not recipe.falling_epochs:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            recipe.learning_rate,
            total_steps=steps * recipe.epochs,
            pct_start=0.1,
            cycle_momentum=not recipe.momentum,
        )
    total, falling, rising = (steps * it for it in (recipe.epochs, recipe.falling_epochs, 1))
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / rising, max(0, total - step) / falling)
    )


def _write(log: Path, reached: list[Reached]) -> None:
    with log.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(Reached._fields)
        rows.writerows((it.epoch, *(f"{value:.5f}" for value in it[1:])) for it in reached)
