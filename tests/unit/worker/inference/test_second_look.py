import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from jobs.model_manifest import Output, SecondLook
from worker.inference.head import Head
from worker.inference.second_look import looked_twice

StoredChunks = NDArray[np.float32]
HEAD = Head(Output(), 2)
SURE = 9.0


class Network:
    """Tells of an image how bright its left column is, and its middle one; one with a bright corner it is sure of."""

    def __init__(self) -> None:
        self.seen = list[StoredChunks]()

    def __call__(self, inputs: StoredChunks) -> StoredChunks:
        self.seen.append(inputs)
        outputs = np.stack([inputs[:, 0, :, 0].mean(axis=1), inputs[:, 0, :, 1].mean(axis=1)], axis=1)
        return np.where(inputs[:, 0, :1, :1].max(axis=2) == SURE, np.float32([[SURE, 0]]), outputs)


def pictures(count: int) -> StoredChunks:
    return np.random.default_rng(3).random((count, 1, 4, 3), np.float32)


def test_what_is_unsure_is_the_mean_of_itself_and_its_mirror_image() -> None:
    inputs, network = pictures(5), Network()
    inputs[1, 0, 0, 0] = inputs[3, 0, 0, 0] = SURE
    found = looked_twice(network, inputs, HEAD, SecondLook(below=0.99))
    first, mirrored = Network()(inputs), Network()(inputs[..., ::-1])
    for sure in (1, 3):
        np.testing.assert_array_equal(found[sure], first[sure])
    for unsure in (0, 2, 4):
        np.testing.assert_allclose(found[unsure], (first[unsure] + mirrored[unsure]) / 2, rtol=1e-6)
    assert [len(inputs) for inputs in network.seen] == [5, 3]


def test_shifts_are_to_four_sides_and_each_is_mirrored_too() -> None:
    inputs, network = pictures(1), Network()
    looked_twice(network, inputs, HEAD, SecondLook(below=1, shift_pixels=1))
    (first, *others), picture = (view[0, 0] for view in network.seen), inputs[0, 0]
    np.testing.assert_array_equal(first, picture)
    zeros = np.zeros_like(picture)
    right, left, down, up = (zeros.copy() for _ in range(4))
    right[:, 1:], left[:, :-1], down[1:], up[:-1] = picture[:, :-1], picture[:, 1:], picture[:-1], picture[1:]
    expected = [picture[:, ::-1], right, right[:, ::-1], left, left[:, ::-1], down, down[:, ::-1], up, up[:, ::-1]]
    assert len(others) == len(expected) == SecondLook(below=1, shift_pixels=1).views
    for view, wanted in zip(others, expected, strict=True):
        np.testing.assert_array_equal(view, wanted)


@pytest.mark.parametrize("look", [SecondLook(below=0.6), SecondLook(below=0.6, mirrored=False, shift_pixels=1)])
def test_an_image_gets_the_same_alone_and_in_a_batch_and_no_batch_is_larger(look: SecondLook) -> None:
    inputs, network = pictures(20), Network()
    submit_concurrently = looked_twice(network, inputs, HEAD, look)
    assert max(map(len, network.seen)) <= 20
    alone = [looked_twice(Network(), inputs[at : at + 1], HEAD, look)[0] for at in range(20)]
    np.testing.assert_allclose(submit_concurrently, alone, rtol=1e-6)


def test_nothing_is_looked_at_again_where_the_network_has_failed_or_is_sure() -> None:
    def failed(inputs: StoredChunks) -> StoredChunks:
        assert len(inputs) == 3
        return np.full((3, 2), np.nan, np.float32)

    assert np.isnan(looked_twice(failed, pictures(3), HEAD, SecondLook(below=1))).all()


def test_the_mean_counts_the_more_the_less_sure_the_network_is() -> None:
    """An image that is just unsure gets what one gets that just is not."""
    inputs = pictures(200)
    first = Network()(inputs)
    confidences = HEAD.confidences(first).max(axis=1)
    fully = looked_twice(Network(), inputs, HEAD, SecondLook(below=1))
    found = looked_twice(Network(), inputs, HEAD, SecondLook(below=0.6, fully_below=0.55))
    sure, unsure = confidences >= 0.6, confidences <= 0.55
    assert sure.any()
    assert unsure.any()
    np.testing.assert_array_equal(found[sure], first[sure])
    np.testing.assert_allclose(found[unsure], fully[unsure], rtol=1e-5)
    between = np.flatnonzero(~sure & ~unsure)
    assert len(between)
    for at in between:
        weight = (0.6 - confidences[at]) / 0.05
        np.testing.assert_allclose(found[at], weight * fully[at] + (1 - weight) * first[at], rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mirrored": False}, "nothing would be looked at"),
        ({"fully_below": 0.95}, "fully_below: is above `below`"),
    ],
)
def test_a_look_that_makes_no_sense_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SecondLook.model_validate({"below": 0.9, **fields})
