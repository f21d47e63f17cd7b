"""`weights/fmnist-cnn`: a small residual network, trained on Fashion-MNIST, for images as people upload them."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from jobs.model_manifest import Input, Manifest, Output, Preprocessing
from training.augment import augment, augment_late
from training.calibration import best_temperature, calibration_error, familiarity_threshold
from training.data import CLASSES, HELD_OUT_TO_THE_END, load_fashion_mnist, tensors
from training.fit import Recipe, fit, logits
from training.packaging import write_package
from training.plots import confusion_matrix, learning_curve
from training.renditions import on_colours, png
from training.rounding import rounded
from training.soft_labels import soft_labels
from worker.inference.head import Head
from worker.inference.networks.architectures import fmnist_cnn_2
from worker.inference.networks.device import Device

NAME = "fmnist-cnn"
VERSION = "2"
ARCHITECTURE = "fmnist-cnn-2"
INPUT = Input(channels=1, height=28, width=28)
SOFT_LABELS = Path(__file__).with_name("soft_labels.npz")
"""Of three earlier trainings, which held out 5,000 (`python -m training.soft_labels`, decision 31)."""
SOFT_SHARE = 0.5
# Chosen on the held-out images.
RECIPE = Recipe(
    epochs=122,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=5e-4,
    label_smoothing=0,
    seed=20261128,
    momentum=0.9,
    falling_epochs=72,
    late_epochs=40,
    averaged_steps=1000,
)


def softened(labels: Tensor) -> Tensor:
    """The targets of training: half the label, half the soft label. float32, N × classes."""
    hard = functional.one_hot(labels, len(CLASSES)).float()
    return (1 - SOFT_SHARE) * hard + SOFT_SHARE * soft_labels(SOFT_LABELS)


def train(package: Path, cache: Path, docs: Path, device: Device) -> Manifest:
    """Train, calibrate on the held-out images, measure on the test images once, and write the package and its plots."""
    torch.manual_seed(RECIPE.seed)
    data = load_fashion_mnist(cache, HELD_OUT_TO_THE_END)
    network = fmnist_cnn_2(len(CLASSES))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out of its types
    log = cache / f"{NAME}.csv"
    held_out = tensors(data.held_out)
    images, labels = tensors(data.train)
    on_colour = torch.from_numpy(on_colours(data.train, INPUT, cache)).unsqueeze(1) / 255
    train = torch.cat([images, on_colour], dim=1), softened(labels)
    trained = fit(network, train, held_out, RECIPE, log, device=device, augment=augment, late_augment=augment_late)
    trained = rounded(trained.cpu())

    output = Output(temperature=best_temperature(logits(trained, held_out[0]), held_out[1]))
    head = Head(output, len(CLASSES))
    familiar_min = familiarity_threshold(head.familiarity(logits(trained, held_out[0]).numpy()))

    inputs, labels = tensors(data.test)
    test_logits = logits(trained, inputs).numpy()
    confidences, predicted = head.confidences(test_logits), test_logits.argmax(axis=1)
    false_alarms = float((head.familiarity(test_logits) < familiar_min).mean())
    learning_curve(log, docs / f"{NAME}-learning.svg")
    confusion_matrix(labels.numpy(), predicted, docs / f"{NAME}-confusion.svg")
    return write_package(
        package,
        trained,
        data.held_out,
        png,
        name=NAME,
        version=VERSION,
        description="A residual network with 0.65 million parameters. Takes any picture of one piece of clothing.",
        architecture=ARCHITECTURE,
        input=INPUT,
        preprocessing=Preprocessing(mode="fmnist"),
        output=output.model_copy(update={"familiar_min": familiar_min, "false_alarms": false_alarms}),
        seed=RECIPE.seed,
        test_accuracy=float((predicted == labels.numpy()).mean()),
        calibration_error=round(calibration_error(confidences, labels.numpy()), 5),
    )
