import math

import numpy as np
import pytest

from jobs.item_codes import ItemCode
from jobs.model_manifest import Output
from jobs.records import Failure, Unfamiliar
from worker.inference.head import Head

THREE = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]], np.float32)


def ranked_classes(head: Head, outputs: np.ndarray) -> list[list[int]]:
    outcomes = head.outcomes(outputs, [9] * len(outputs))
    return [[prediction.class_index for prediction in outcome] for outcome in outcomes if isinstance(outcome, list)]


def test_softmax_is_of_logits_divided_by_the_temperature() -> None:
    for temperature in (1, 2, 0.5):
        powers = np.exp(THREE / temperature)
        confidences = Head(Output(temperature=temperature), 3).confidences(THREE)
        assert confidences.dtype == np.float32
        np.testing.assert_allclose(confidences, powers / powers.sum(axis=1, keepdims=True), rtol=1e-6)


def test_each_image_gets_its_top_k_classes_and_of_equal_ones_the_first() -> None:
    first, second = Head(Output(), 3).outcomes(THREE, [1, 2])
    assert isinstance(first, list)
    assert isinstance(second, list)
    assert [prediction.class_index for prediction in first] == [0]
    assert [prediction.class_index for prediction in second] == [2, 0]
    assert type(first) is list


@pytest.mark.parametrize(
    ("threshold", "answers"), [(None, [0, 1, 1]), (0.3, [1, 1, 1]), (0.9, [0, 0, 1]), (0.99, [0, 0, 0])]
)
def test_a_sigmoid_answers_with_its_second_class_from_a_threshold_on(
    threshold: float | None, answers: list[int]
) -> None:
    outputs = np.array([[-0.5], [0.0], [2.5]], np.float32)
    head = Head(Output(activation="sigmoid", threshold=threshold), 2)
    assert head.width == 1
    outcomes = head.outcomes(outputs, [2, 2, 2])
    for outcome, answer, logit in zip(outcomes, answers, outputs[:, 0], strict=True):
        assert isinstance(outcome, list)
        assert outcome[0].class_index == answer
        confidences = dict(outcome)
        assert confidences[1] == pytest.approx(1 / (1 + math.exp(-logit)))
        assert confidences[0] + confidences[1] == pytest.approx(1)


def test_confidences_of_the_networks_own_are_taken_as_they_are() -> None:
    outputs = np.array([[0.25, 0.5, 0.125]], np.float32)
    ((best, *_),) = Head(Output(activation="none"), 3).outcomes(outputs, [3])  # type: ignore[misc]  # a Failure is not iterable
    assert best == (1, 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("output", [Output(), Output(activation="none"), Output(familiar_min=1)])
def test_an_image_with_nan_or_infinity_among_its_outputs_fails(bad: float, output: Output) -> None:
    outputs = np.array([[1, bad, 0], [3, 0, 0]], np.float32)
    if bad == -math.inf and output.activation == "softmax":
        assert ranked_classes(Head(output, 3), outputs) == [[0, 2, 1], [0, 1, 2]], (
            "minus infinity is a class with confidence 0"
        )
        return
    failed, other = Head(output, 3).outcomes(outputs, [1, 1])
    assert failed == Failure(ItemCode.MODEL_FAILED)
    assert isinstance(other, list)


def test_an_image_of_little_familiarity_is_marked() -> None:
    head = Head(Output(familiar_min=2.5), 3)
    np.testing.assert_allclose(head.familiarity(THREE), np.log(np.exp(THREE).sum(axis=1)), rtol=1e-6)
    unknown, known = head.outcomes(THREE, [1, 1])
    assert type(unknown) is Unfamiliar
    assert type(known) is list
