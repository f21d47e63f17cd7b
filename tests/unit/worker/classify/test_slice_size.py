from worker.classify.slice_size import SliceSize


def test_the_first_slice_is_small() -> None:
    assert SliceSize(0.02, items_max=256).items() == 4
    assert SliceSize(0.02, items_max=2).items() == 2


def test_as_many_images_as_fit_the_time_are_wanted() -> None:
    pace = SliceSize(0.02, items_max=256)
    pace.measured(10, 0.01)
    assert pace.items() == 20


def test_the_number_stays_within_its_bounds() -> None:
    pace = SliceSize(0.02, items_max=256)
    pace.measured(4, 0.0)
    assert pace.items() == 256
    for _ in range(20):
        pace.measured(1, 3.0)
    assert pace.items() == 1


def test_a_change_counts_at_once_but_not_alone() -> None:
    pace = SliceSize(1, items_max=256)
    pace.measured(100, 1.0)
    pace.measured(100, 2.0)
    assert 50 < pace.items() < 100


def test_one_frozen_moment_is_forgotten_within_a_few_slices() -> None:
    pace = SliceSize(0.02, items_max=256)
    pace.measured(200, 0.02)
    pace.measured(200, 5.0)
    assert pace.items() < 10
    for _ in range(20):
        pace.measured(pace.items(), pace.items() * 0.0001)
    assert pace.items() > 180
