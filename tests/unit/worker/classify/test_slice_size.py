from worker.classify.slice_size import SliceSize
from worker.inference.networks.pace import Pace


def test_the_first_slice_is_small() -> None:
    assert SliceSize(0.02, items_max=256).items() == 4
    assert SliceSize(0.02, items_max=2).items() == 2


def test_a_slice_has_as_many_images_as_fit_its_time() -> None:
    slice_size = SliceSize(0.02, items_max=256)
    slice_size.measured(10, 0.01)
    assert slice_size.items() == 20


def test_the_number_stays_within_its_bounds() -> None:
    slice_size = SliceSize(0.02, items_max=256)
    slice_size.measured(4, 0.0)
    assert slice_size.items() == 256
    for _ in range(20):
        slice_size.measured(1, 3.0)
    assert slice_size.items() == 1


def test_a_change_counts_at_once_but_not_alone() -> None:
    slice_size = SliceSize(1, items_max=256)
    slice_size.measured(100, 1.0)
    slice_size.measured(100, 2.0)
    assert 50 < slice_size.items() < 100


def test_one_frozen_moment_is_forgotten_within_a_few_slices() -> None:
    slice_size = SliceSize(0.02, items_max=256)
    slice_size.measured(200, 0.02)
    slice_size.measured(200, 5.0)
    assert slice_size.items() < 10
    for _ in range(20):
        slice_size.measured(slice_size.items(), slice_size.items() * 0.0001)
    assert slice_size.items() > 180


def bulk_slice(pace: Pace) -> SliceSize:
    return SliceSize(0.02, items_max=256, pace=pace, batch_seconds=0.05)


def test_a_slice_has_the_batch_that_pays_if_an_image_takes_longer_than_the_slice() -> None:
    slice_size = bulk_slice(Pace(2, 0.015))
    assert slice_size.items() == 2, "before an image with its decoding was measured"
    slice_size.measured(2, 0.042)
    assert slice_size.items() == 2
    assert slice_size.seconds_max == 0.05


def test_a_slice_does_not_wait_longer_for_a_batch_than_a_batch_may_take() -> None:
    slice_size = bulk_slice(Pace(4, 0.003))
    slice_size.measured(4, 4 * 0.02)
    assert slice_size.items() == 2
    slice_size.measured(2, 100)
    assert slice_size.items() == 1


def test_a_slice_of_cheap_images_is_no_longer_for_the_sake_of_a_batch() -> None:
    slice_size = bulk_slice(Pace(64, 0.001))
    slice_size.measured(10, 10 * 0.003)
    assert slice_size.items() == 6


def test_the_first_claim_fits_its_time_by_the_pace_of_the_network() -> None:
    assert SliceSize(0.05, items_max=64, first_items=64, pace=Pace(2, 0.015)).items() == 3
    assert SliceSize(0.05, items_max=64, first_items=64, pace=Pace(256, 0.00002)).items() == 64
    assert SliceSize(0.05, items_max=64, first_items=64, pace=Pace(1, 90.0)).items() == 1
