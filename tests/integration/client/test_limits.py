"""A server that takes less than one has."""

import pytest
from darkroom import Darkroom
from darkroom.errors import QuotaExceeded, UploadTooLarge

from tests.integration.client.conftest import DATA, KEY
from tests.support.stack import Stack

BAG = DATA / "0018-bag.png"


def test_a_queue_that_is_full_of_the_jobs_own_images_is_filled_as_it_drains(server: Stack) -> None:
    api = server.api(OWNER_PENDING_ITEMS_MAX="200")
    with Darkroom(api.url, KEY) as darkroom:
        items = [item.class_name for item in darkroom.classify_many([DATA] * 40)]
    assert len(items) == 1200
    assert None not in items


def test_a_quota_that_nothing_frees_is_an_error_after_the_tries(server: Stack) -> None:
    api = server.api(OWNER_PENDING_ITEMS_MAX="1")
    with Darkroom(api.url, KEY, retry_seconds=1) as darkroom, pytest.raises(QuotaExceeded):
        list(darkroom.classify_many([BAG, BAG]))


def test_one_image_more_than_a_job_takes_is_refused_and_leaves_nothing(server: Stack) -> None:
    api = server.api(JOB_ITEMS_MAX="100")
    with Darkroom(api.url, KEY) as darkroom:
        with pytest.raises(UploadTooLarge):
            darkroom.submit([BAG] * 101)
        assert next(darkroom.jobs()).status == "canceled"
        assert darkroom.submit([BAG] * 100).counts.total == 100
