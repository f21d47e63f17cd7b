import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from training.augment import augment
from training.fit import Augment, Recipe, evaluate, fit
from worker.inference.networks.architectures import fmnist_mlp

PLAIN = Recipe(epochs=20, batch_size=32, learning_rate=1e-3, weight_decay=0.1, label_smoothing=0, seed=1)
AVERAGED = Recipe(
    epochs=4,
    batch_size=32,
    learning_rate=0.1,
    weight_decay=1e-4,
    label_smoothing=0.1,
    seed=2,
    momentum=0.9,
    averaged_steps=10,
)
CONSTANT_THEN_FALLING = dataclasses.replace(AVERAGED, falling_epochs=2)


def train(
    recipe: Recipe, log: Path, after_checkpoint: Callable[[int], None] = lambda _: None
) -> tuple[torch.Tensor, float]:
    """All weights, and the accuracy on the training images."""
    torch.manual_seed(recipe.seed)
    inputs, labels = torch.rand(200, 1, 28, 28), torch.randint(0, 10, (200,))
    augmented = augment if recipe.averaged_steps else None
    trained = fit(
        fmnist_mlp(10), (inputs, labels), (inputs, labels), recipe, log,
        augment=augmented, after_checkpoint=after_checkpoint,
    )  # fmt: skip
    weights = torch.cat([value.flatten() for value in trained.state_dict().values()])
    return weights, evaluate(trained, inputs, labels)[1]


def train_and_stop(recipe: Recipe, log: Path, *, after_epochs: int) -> None:
    def stop(epochs: int) -> None:
        if epochs == after_epochs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, log, stop)


@pytest.mark.parametrize("recipe", [PLAIN, AVERAGED, CONSTANT_THEN_FALLING])
def test_the_same_seed_gives_the_same_network(tmp_path: Path, recipe: Recipe) -> None:
    first, second = (train(recipe, tmp_path / f"{number}.csv") for number in range(2))
    assert torch.equal(first[0], second[0])
    assert first[1] > 0.9 or recipe is not PLAIN, "it has memorized the training images"


@pytest.mark.parametrize("recipe", [PLAIN, AVERAGED, CONSTANT_THEN_FALLING])
def test_a_resumed_training_gives_the_same_network_as_an_uninterrupted_one(tmp_path: Path, recipe: Recipe) -> None:
    expected, _ = train(recipe, tmp_path / "whole.csv")
    train_and_stop(recipe, tmp_path / "parts.csv", after_epochs=2)
    checkpoints = list[int]()
    weights, _ = train(recipe, tmp_path / "parts.csv", checkpoints.append)
    assert checkpoints == list(range(3, recipe.epochs + 1))
    assert torch.equal(weights, expected)
    assert (tmp_path / "parts.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_a_checkpoint_of_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    train(PLAIN, tmp_path / "log.csv")
    with pytest.raises(ValueError, match="another recipe; remove it"):
        train(dataclasses.replace(PLAIN, epochs=21), tmp_path / "log.csv")


def test_a_checkpoint_of_other_labels_is_not_resumed(tmp_path: Path) -> None:
    images = torch.rand(64, 1, 28, 28)
    for labels in (torch.zeros(64, dtype=torch.int64), torch.ones(64, dtype=torch.int64)):
        refused = pytest.raises(ValueError, match="other images or labels; remove it")
        with refused if labels.any() else nullcontext():
            fit(fmnist_mlp(10), (images, labels), (images, labels), CONSTANT_THEN_FALLING, tmp_path / "log.csv")


def test_the_number_of_epochs_may_change_while_the_learning_rate_is_constant(tmp_path: Path) -> None:
    longer = dataclasses.replace(CONSTANT_THEN_FALLING, epochs=5)
    expected, _ = train(longer, tmp_path / "whole.csv")
    train_and_stop(CONSTANT_THEN_FALLING, tmp_path / "constant.csv", after_epochs=2)
    weights, _ = train(longer, tmp_path / "constant.csv")
    assert torch.equal(weights, expected)
    train_and_stop(CONSTANT_THEN_FALLING, tmp_path / "falling.csv", after_epochs=3)
    with pytest.raises(ValueError, match="another recipe; remove it"):
        train(longer, tmp_path / "falling.csv")


def test_the_late_augmentation_is_used_only_in_the_last_epochs(tmp_path: Path) -> None:
    calls = list[tuple[str, tuple[int, ...]]]()

    def recording(name: str) -> Augment:
        def record(images: torch.Tensor, _: torch.Generator) -> torch.Tensor:
            calls.append((name, tuple(images.shape)))
            return images[:, :1]

        return record

    inputs, labels = torch.rand(32, 3, 28, 28), torch.randint(0, 10, (32,))
    recipe = dataclasses.replace(CONSTANT_THEN_FALLING, late_epochs=1)
    fit(
        fmnist_mlp(10), (inputs, labels), (inputs[:, :1], labels), recipe, tmp_path / "log.csv",
        augment=recording("early"), late_augment=recording("late"),
    )  # fmt: skip
    assert calls == [("early", (32, 3, 28, 28))] * 3 + [("late", (32, 3, 28, 28))]
