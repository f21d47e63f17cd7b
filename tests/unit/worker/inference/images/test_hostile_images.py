"""Damaged pictures in the worker: each is an image, or an error with a code, and nothing else.

A warning is an error here, as in all of these tests; a decoder that crashes takes the tests with it.
"""

from collections import Counter
from random import Random

import pytest

from jobs.item_codes import ItemCode
from jobs.records import Failure
from tests.support.hostile import damaged_picture, pictures
from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from worker.inference.classifier import Classifier
from worker.inference.images.decode import DecodeError, decode
from worker.inference.packages.load import load_package

EACH = 1000
AT_ONCE = 50


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_package(ROOT / "weights" / "fmnist-mlp", LIMITS)


@pytest.mark.parametrize("name", pictures())
def test_a_damaged_picture_is_decoded_or_is_a_bad_image(name: str) -> None:
    random, outcomes = Random(name), Counter[str]()
    for _ in range(EACH):
        try:
            image = decode(damaged_picture(random, name), LIMITS)
        except DecodeError as error:
            outcomes[ItemCode(error.code)] += 1
        else:
            assert image.width * image.height <= LIMITS.pixels_max
            outcomes["decoded"] += 1
    print(dict(outcomes))
    assert min(outcomes["decoded"], outcomes[ItemCode.CORRUPT_IMAGE]) > EACH / 20, "damage of every depth is tried"


@pytest.mark.parametrize("name", pictures())
def test_a_damaged_picture_is_classified_or_fails_alone(name: str, classifier: Classifier) -> None:
    random, whole = Random(f"classify {name}"), pictures()[name][0]
    (expected,) = classifier.classify([whole], [3])
    assert isinstance(expected, list)
    for _ in range(EACH // AT_ONCE):
        uploads = [damaged_picture(random, name) for _ in range(AT_ONCE)]
        *outcomes, last = classifier.classify([*uploads, whole], [3] * (AT_ONCE + 1))
        assert len(outcomes) == AT_ONCE
        assert isinstance(last, list)
        assert [best.class_index for best in last] == [best.class_index for best in expected]
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                assert outcome.code not in (ItemCode.MODEL_FAILED, ItemCode.OUT_OF_MEMORY)
            else:
                assert 0 <= outcome[-1].confidence <= outcome[0].confidence <= 1
