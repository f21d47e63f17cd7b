from worker.classify.slice_size import SliceSize


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
