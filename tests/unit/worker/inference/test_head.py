import math

import numpy as np
import pytest

from jobs.item_codes import ItemCode
from jobs.model_manifest import Output
from jobs.records import Failure, Unfamiliar
from worker.inference.head import Head

THREE = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]], np.float32)


def names(head: Head, outputs: np.ndarray) -> list[list[int]]:
    found = head.outcomes(outputs, [9] * len(outputs))
    return [[it.class_index for it in outcome] for outcome in found if isinstance(outcome, list)]


def test_softmax_is_of_numbers_divided_by_the_temperature() -> None:
    for temperature in (1, 2, 0.5):
        powers = np.exp(THREE / temperature)
        found = Head(Output(temperature=temperature), 3).confidences(THREE)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), rtol=1e-6)


def test_only_so_many_classes_as_are_wanted_and_of_equals_the_first() -> None:
    first, second = Head(Output(), 3).outcomes(THREE, [1, 2])
    assert isinstance(first, list)
    assert isinstance(second, list)
    assert [it.class_index for it in first] == [0]
    assert [it.class_index for it in second] == [2, 0]
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
    found = head.outcomes(outputs, [2, 2, 2])
    for outcome, answer, number in zip(found, answers, outputs[:, 0], strict=True):
        assert isinstance(outcome, list)
        assert outcome[0].class_index == answer
        of = dict(outcome)
        assert of[1] == pytest.approx(1 / (1 + math.exp(-number)))
        assert of[0] + of[1] == pytest.approx(1)


def test_confidences_of_the_networks_own_are_taken_as_they_are() -> None:
    outputs = np.array([[0.25, 0.5, 0.125]], np.float32)
    ((best, *_),) = Head(Output(activation="none"), 3).outcomes(outputs, [3])  # type: ignore[misc]  # or it is no list
    assert best == (1, 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("output", [Output(), Output(activation="none"), Output(familiar_min=1)])
def test_what_is_no_number_is_no_answer(bad: float, output: Output) -> None:
    outputs = np.array([[1, bad, 0], [3, 0, 0]], np.float32)
    if bad == -math.inf and output.activation == "softmax":
        assert names(Head(output, 3), outputs) == [[0, 2, 1], [0, 1, 2]], "a class that cannot be"
        return
    failed, fine = Head(output, 3).outcomes(outputs, [1, 1])
    assert failed == Failure(ItemCode.MODEL_FAILED)
    assert isinstance(fine, list)


def test_an_image_of_little_familiarity_is_marked() -> None:
    head = Head(Output(familiar_min=2.5), 3)
    np.testing.assert_allclose(head.familiarity(THREE), np.log(np.exp(THREE).sum(axis=1)), rtol=1e-6)
    unknown, known = head.outcomes(THREE, [1, 1])
    assert type(unknown) is Unfamiliar
    assert type(known) is list
