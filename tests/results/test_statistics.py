"""Numbers over seeds, on matrices that can be checked by hand."""

import numpy as np
import pytest

from raysd.results.statistics import count, mean, paired_differences, smallest_p, standard_deviation

TWO_SEEDS_THREE_SECTIONS = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]])


def test_over_seeds() -> None:
    values = np.array([0.5, 0.7, 0.9])
    assert count(values) == 3
    assert mean(values) == pytest.approx(0.7)
    assert standard_deviation(values) == pytest.approx(0.2)


def test_each_section_apart_and_missing_seeds_left_out() -> None:
    assert count(TWO_SEEDS_THREE_SECTIONS).tolist() == [2, 1, 0]
    np.testing.assert_array_equal(mean(TWO_SEEDS_THREE_SECTIONS), [2.0, 2.0, np.nan])
    np.testing.assert_allclose(standard_deviation(TWO_SEEDS_THREE_SECTIONS), [2**0.5, np.nan, np.nan])


def test_one_seed_has_no_spread_and_none_has_no_mean() -> None:
    assert np.isnan(standard_deviation(np.array([0.5])))
    assert np.isnan(mean(np.array([])))
    assert np.isnan(standard_deviation(np.array([])))


def test_differences_are_paired_by_seed_not_by_place() -> None:
    baseline, variant = {0: 0.5, 1: 0.6, 2: 0.7}, {2: 0.9, 0: 0.4, 5: 0.1}
    np.testing.assert_allclose(paired_differences(baseline, variant), [-0.1, 0.2])
    assert paired_differences(baseline, {7: 1.0}).size == 0


@pytest.mark.parametrize(("num_seeds", "p"), [(0, 1.0), (1, 1.0), (2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_the_smallest_p_is_that_of_all_signs_equal(num_seeds: int, p: float) -> None:
    assert smallest_p(num_seeds) == p
