"""A damaged image is decoded, or fails with a code; it never crashes the worker and never affects other images.

Warnings are errors, as in all tests; a crash of a decoder would end the test run.
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
from worker.inference.images.decode import decode
from worker.inference.images.limits import DecodeError, SlowImage
from worker.inference.packages.load import load_package

DAMAGED = 1000  # of each format
BATCH = 50


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_package(ROOT / "weights" / "fmnist-mlp", LIMITS)


@pytest.mark.parametrize("name", pictures())
def test_a_damaged_image_is_decoded_or_fails_with_a_code(name: str) -> None:
    random, outcomes = Random(name), Counter[str]()
    for _ in range(DAMAGED):
        try:
            image = decode(damaged_picture(random, name), LIMITS)
        except DecodeError as error:
            outcomes[ItemCode(error.code)] += 1
        except SlowImage:  # a damaged size may be a huge one: such an image runs alone
            outcomes["slow"] += 1
        else:
            assert image.shape[0] * image.shape[1] <= LIMITS.pixels_max
            outcomes["decoded"] += 1
    print(dict(outcomes))
    assert min(outcomes["decoded"], outcomes[ItemCode.CORRUPT_IMAGE]) > DAMAGED / 20, (
        "both light and severe damage must occur"
    )


@pytest.mark.parametrize("name", pictures())
def test_a_damaged_image_is_classified_or_fails_without_affecting_others(name: str, classifier: Classifier) -> None:
    random, whole = Random(f"classify {name}"), pictures()[name][0]
    (expected,) = classifier.classify([whole], [3])
    assert isinstance(expected, list)
    for _ in range(DAMAGED // BATCH):
        uploads = [damaged_picture(random, name) for _ in range(BATCH)]
        *outcomes, last = classifier.classify([*uploads, whole], [3] * (BATCH + 1))
        assert len(outcomes) == BATCH
        assert isinstance(last, list)
        assert [best.class_index for best in last] == [best.class_index for best in expected]
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                assert outcome.code not in (ItemCode.MODEL_FAILED, ItemCode.OUT_OF_MEMORY)
            else:
                assert 0 <= outcome[-1].confidence <= outcome[0].confidence <= 1
