import numpy as np
import pytest
import torch

from training.calibration import best_temperature, calibration_error, familiarity_threshold


def drawn(temperature: float, count: int = 30_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn from their softmax at this temperature."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(count, 10, generator=generator)
    return logits, torch.multinomial(torch.softmax(logits / temperature, 1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("temperature", [0.5, 1, 2])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    assert best_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


def test_confidences_that_match_the_accuracy_are_calibrated() -> None:
    logits, labels = drawn(1)
    assert calibration_error(torch.softmax(logits, 1).numpy(), labels.numpy()) < 0.015
    assert calibration_error(torch.softmax(3 * logits, 1).numpy(), labels.numpy()) > 0.05


def test_the_error_is_the_mean_difference_of_confidence_and_accuracy() -> None:
    confidences = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10, np.float32)
    labels = np.array([0] * 5 + [1] * 5 + [1] * 10)
    assert calibration_error(confidences, labels) == pytest.approx((0.4 + 0.4) / 2)


def test_one_in_a_hundred_familiar_images_is_below_the_threshold() -> None:
    familiarity = np.random.default_rng(1).normal(10, 1, 5000).astype(np.float32)
    assert (familiarity < familiarity_threshold(familiarity)).mean() == pytest.approx(0.01, abs=0.001)
