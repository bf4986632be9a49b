"""Numbers over seeds, on matrices that can be checked by hand."""

import numpy as np
import pytest
from scipy import stats

from raysd.paper.statistics import (
    count,
    detectable_difference,
    mean,
    paired_differences,
    pooled_standard_deviation,
    seeds_to_reach,
    smallest_p,
    standard_deviation,
)

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


@pytest.mark.parametrize(("p", "num_seeds"), [(1.0, 1), (0.5, 2), (0.25, 3), (0.05, 6), (0.03125, 6), (0.05 / 12, 9)])
def test_seeds_that_reach_a_p(p: float, num_seeds: int) -> None:
    assert seeds_to_reach(p) == num_seeds
    assert smallest_p(num_seeds) <= p
    assert num_seeds == 1 or smallest_p(num_seeds - 1) > p


def test_spreads_are_pooled_about_their_own_means() -> None:
    groups = [np.array([1.0, 3.0]), np.array([10.0, 10.0, 13.0]), np.array([99.0])]
    assert pooled_standard_deviation(groups) == pytest.approx(((2 + 6) / 3) ** 0.5)
    assert np.isnan(pooled_standard_deviation([np.array([1.0]), np.array([])]))


@pytest.mark.parametrize(
    ("num_seeds", "power", "alpha"), [(2, 0.8, 0.05), (3, 0.8, 0.05), (6, 0.9, 0.01), (10, 0.8, 0.05)]
)
def test_the_detectable_difference_is_found_as_often_as_promised(num_seeds: int, power: float, alpha: float) -> None:
    difference = detectable_difference(2.0, num_seeds, power, alpha)
    drawn = np.random.default_rng(0).normal(difference, 2.0, (100_000, num_seeds))
    t = drawn.mean(1) / drawn.std(1, ddof=1) * num_seeds**0.5
    found = np.abs(t) > stats.t.ppf(1 - alpha / 2, num_seeds - 1)
    assert found.mean() == pytest.approx(power, abs=0.005)


def test_the_detectable_difference_of_a_textbook() -> None:
    # a paired t-test with ten pairs, alpha 0.05 and power 0.8: 0.996 standard deviations
    assert detectable_difference(1.0, 10) == pytest.approx(0.996, abs=5e-4)
    assert detectable_difference(0.5, 10) == pytest.approx(0.498, abs=5e-4)
    assert detectable_difference(1.0, 1) == np.inf
    assert detectable_difference(0.0, 3) == 0.0
