"""Numbers over seeds, on matrices that can be checked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raysd.paper.statistics import (
    Comparison,
    compare,
    count,
    detectable_by_sign_flips,
    detectable_difference,
    holm,
    interval,
    is_exact,
    mean,
    over_sections,
    paired_differences,
    pooled_standard_deviation,
    seeds_to_reach,
    sign_flip_p,
    smallest_p,
    standard_deviation,
    ties,
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


@pytest.mark.parametrize("num_seeds", [6, 8, 12])
def test_where_only_all_signs_equal_are_significant_the_detectable_difference_is_known(num_seeds: int) -> None:
    # all n normal differences are positive with a chance of Phi(d) ** n
    only_the_least = 2 / 2**num_seeds
    expected = stats.norm.ppf(0.8 ** (1 / num_seeds))
    assert detectable_by_sign_flips(2.0, num_seeds, 0.8, only_the_least) == pytest.approx(2 * expected, rel=0.02)
    assert detectable_by_sign_flips(2.0, num_seeds, 0.8, 0.99 * only_the_least) == math.inf


def test_five_seeds_detect_nothing_however_large_and_many_seeds_what_the_t_test_does() -> None:
    assert detectable_by_sign_flips(1.0, 5) == math.inf
    assert detectable_by_sign_flips(0.0, 5) == math.inf
    assert detectable_by_sign_flips(1.0, 20) == detectable_difference(1.0, 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_seeds", "alpha"), [(6, 0.05), (7, 0.05), (8, 0.05), (9, 0.05), (10, 0.05), (8, 0.01), (10, 0.01), (12, 0.05)]
)
def test_the_sign_flip_test_finds_the_detectable_difference_as_often_as_promised(num_seeds: int, alpha: float) -> None:
    difference = detectable_by_sign_flips(1.0, num_seeds, 0.8, alpha)
    drawn = np.random.default_rng(5).normal(difference, 1.0, (num_seeds, 20_000))
    assert (sign_flip_p(drawn) <= alpha).mean() == pytest.approx(0.8, abs=0.03)


# --- the test ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2.0], 2 / 4),  # +3 and -3 of +-3, +-1
        ([1.0, -2.0], 4 / 4),  # the sum -1 is the nearest to zero that there is
        ([1.0, 2.0, 3.0], 2 / 8),
        ([1.0, -2.0, 3.0], 6 / 8),  # the sum is 2; of 6, 4, 2, 0 and their negatives all but the zeros are as far
        ([0.1, 0.2, 0.3], 2 / 8),
        ([0.1, 0.2, -0.3], 8 / 8),  # zero but for rounding
        ([0.0, 0.0, 0.0], 8 / 8),
        ([5.0, 0.0, 0.0], 8 / 8),  # +5 or -5 whatever the signs of the zeros
        ([1.0] * 6, 2 / 64),
    ],
)
def test_sign_flips_by_hand(differences: list[float], p: float) -> None:
    assert sign_flip_p(np.array(differences)) == p


@pytest.mark.parametrize("num_seeds", [3, 7, 12])
def test_sign_flips_agree_with_scipy(num_seeds: int) -> None:
    differences = np.random.default_rng(num_seeds).normal(0.3, 1.0, num_seeds)
    theirs = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=9999)
    assert sign_flip_p(differences) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_beyond_16_seeds_random_flips_come_near_and_never_to_zero() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1.0, (17, 2))
    signs = 1.0 - 2.0 * (np.arange(2**16)[:, None] >> np.arange(17) & 1)
    exact = (np.abs(signs @ differences) >= np.abs(differences.sum(axis=0)) - 1e-12).mean(axis=0)
    np.testing.assert_allclose(sign_flip_p(differences), exact, atol=0.01)
    assert 0 < sign_flip_p(np.ones(40)) < 1e-4
    assert (is_exact(16), is_exact(17)) == (True, False)


def test_cells_may_lack_seeds_and_one_seed_is_no_test() -> None:
    cells = np.array([[1.0, np.nan, 4.0, np.nan], [2.0, 1.0, np.nan, np.nan], [3.0, 2.0, np.nan, np.nan]])
    np.testing.assert_array_equal(sign_flip_p(cells), [2 / 8, 2 / 4, np.nan, np.nan])
    low, high = interval(cells)
    for column, rows in ((0, [0, 1, 2]), (1, [1, 2])):
        alone = interval(cells[rows, column])
        assert (low[column], high[column]) == pytest.approx((alone[0], alone[1]))
    assert np.isnan([low[2:], high[2:]]).all()


# --- the interval -----------------------------------------------------------------------------------------------------


def stretch(num_seeds: int) -> float:
    return (num_seeds / (num_seeds - 1)) ** 0.5 * stats.t.ppf(0.975, num_seeds - 1) / stats.norm.ppf(0.975)


def test_the_interval_of_two_and_three_seeds_by_hand() -> None:
    # of 4 draws a quarter gives the lower value alone, of 27 a 27th, which is more than 2.5 %: so the ends are values
    low, high = interval(np.array([1.0, 3.0]))
    assert (low, high) == pytest.approx((2 - stretch(2), 2 + stretch(2)))
    low, high = interval(np.array([0.0, 1.0, 5.0]))
    assert (low, high) == pytest.approx((2 - 2 * stretch(3), 2 + 3 * stretch(3)))
    assert interval(np.array([2.0, 2.0, 2.0])) == (2.0, 2.0)


@pytest.mark.parametrize("num_seeds", [5, 7, 12])
def test_but_for_the_stretch_it_is_the_percentile_bootstrap_of_scipy(num_seeds: int) -> None:
    values = np.random.default_rng(num_seeds).normal(0.1, 1.0, num_seeds)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=50_000, rng=np.random.default_rng(1)
    ).confidence_interval
    ours = values.mean() + (np.array(interval(values)) - values.mean()) / stretch(num_seeds)
    np.testing.assert_allclose(ours, theirs, atol=0.04 * values.std())


def test_an_interval_is_the_same_each_time_and_alone_as_among_others() -> None:
    cells = np.random.default_rng(0).normal(size=(12, 40))
    low, high = interval(cells)
    np.random.default_rng().normal()
    assert interval(cells[:, 7]) == pytest.approx((low[7], high[7]))
    assert interval(cells, rng_seed=1)[0][7] == pytest.approx(low[7], abs=0.05)


def test_each_seed_has_its_own_mean_over_sections_and_none_where_one_lacks() -> None:
    values = np.array([[0.5, 1.0], [0.25, np.nan]])
    np.testing.assert_allclose(over_sections(values), [0.75, np.nan])
    np.testing.assert_allclose(over_sections(values, harmonic=True), [2 / 3, np.nan])
    assert over_sections(np.array([[0.0, 1.0]]), harmonic=True) == pytest.approx(0.0, abs=1e-12)


def covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    return float(((low <= truth) & (truth <= high)).mean())


def with_seeds_of_each_section_apart(differences_NCS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What raysd does not do: (num_seeds, num_cells, num_sections), every section draws seeds of its own."""
    rng, (num_seeds, num_cells, num_sections) = np.random.default_rng(2), differences_NCS.shape
    ends = np.empty((2, num_cells))
    for i in range(num_cells):
        shares = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), (2000, num_sections)) / num_seeds
        means = np.einsum("dsn,ns->d", shares, differences_NCS[:, i]) / num_sections
        middle = differences_NCS[:, i].mean()
        ends[:, i] = middle + stretch(num_seeds) * (np.quantile(means, [0.025, 0.975]) - middle)
    return ends[0], ends[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize("num_seeds", [3, 5, 6, 10])
def test_intervals_cover_the_truth_and_would_not_if_sections_drew_seeds_apart(num_seeds: int, kind: str) -> None:
    rng, truth, shape = np.random.default_rng(num_seeds), 0.01, (num_seeds, 5000, 1)
    of_seed = rng.standard_normal(shape) if kind == "normal" else rng.exponential(size=shape) - 1
    sections = truth + 0.02 * of_seed + 0.01 * rng.standard_normal((num_seeds, 5000, 4))  # 4 sections share the seed
    per_seed = np.stack([over_sections(of_cell) for of_cell in sections.swapaxes(0, 1)], axis=1)
    coverage = covered(*interval(per_seed), truth)
    apart = covered(*with_seeds_of_each_section_apart(sections[:, :400]), truth)
    print(f"{kind}, {num_seeds} seeds: covered {coverage:.3f}, with the seeds of each section apart {apart:.3f}")
    assert coverage >= (0.93 if kind == "normal" else 0.88)  # Student's interval covers 0.90 of the skewed ones too
    if num_seeds >= 5:
        assert apart < coverage - 0.08


# --- families ---------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.5, np.nan, 0.02, 0.9])), [1.0, np.nan, 0.06, 1.0])
    assert holm(np.array([])).shape == (0,)
    assert holm(np.array([0.3])) == [0.3]


def test_variants_are_compared_over_the_seeds_that_both_have() -> None:
    baseline = {0: 0.5, 1: 0.6, 2: 0.7}
    better, short, single, apart = compare(
        baseline, [{2: 0.8, 0: 0.6, 1: 0.9, 9: 0.0}, {0: 0.6, 2: 0.7}, {1: 0.5}, {7: 0.5}]
    )
    assert (better.n, better.family, better.p, better.p_holm) == (3, 2, 0.25, 0.5)
    assert better.difference == pytest.approx((0.1 + 0.3 + 0.1) / 3)
    low, high = interval(np.array([0.1, 0.3, 0.1]))
    assert (better.low, better.high) == pytest.approx((float(low), float(high)))
    assert (short.n, short.p, short.p_holm) == (2, 1.0, 1.0)  # differences 0.1 and 0
    assert (single.n, single.difference) == (1, pytest.approx(-0.1))
    assert np.isnan([single.low, single.high, single.p, single.p_holm, apart.difference]).all()
    assert (apart.n, apart.family) == (0, 2)
    assert compare(baseline, []) == []
    assert [one.n for one in compare({}, [{0: 0.5}, {}])] == [0, 0]
    assert isinstance(better, Comparison)


def seeds(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


def test_rows_not_told_apart_from_the_best() -> None:
    best = seeds([0.90, 0.91, 0.92, 0.90, 0.91, 0.92, 0.93, 0.90])
    worse = {seed: value - 0.1 for seed, value in best.items()}  # p = 2 / 2**8 for each
    same = seeds([0.91, 0.90, 0.92, 0.89, 0.92, 0.91, 0.93, 0.90])
    assert ties([worse, best, same, {0: 0.1}, {}]) == (1, {2, 3})  # one seed cannot be tested, none is no row
    assert ties([seeds([0.5] * 5), seeds([0.9] * 5)]) == (1, {0})  # five seeds end at p = 0.0625
    assert ties([best]) == (0, set())
    assert ties([{}, {}]) == (None, set())


def test_the_family_of_ties_are_the_tests_against_the_best() -> None:
    best = seeds([0.9] * 8)
    worse = [{seed: value - 0.01 * i for seed, value in best.items()} for i in range(1, 7)]
    assert ties([best, *worse]) == (0, set())  # 6 * 2 / 2**8 = 0.047
    worse.append(seeds([0.5] * 8))
    assert ties([best, *worse]) == (0, {1, 2, 3, 4, 5, 6, 7})  # 7 * 2 / 2**8 = 0.055


# --- what always holds ------------------------------------------------------------------------------------------------

DIFFERENCES = st.integers(2, 9).flatmap(
    lambda n: st.lists(st.integers(-50, 50), min_size=n, max_size=n).map(lambda whole: np.array(whole) / 1000)
)


@settings(max_examples=60, deadline=None)
@given(DIFFERENCES)
def test_what_holds_of_any_differences(differences: np.ndarray) -> None:
    p, (low, high) = float(sign_flip_p(differences)), interval(differences)
    assert smallest_p(len(differences)) <= p <= 1
    assert sign_flip_p(-differences) == p == sign_flip_p(differences[::-1])
    tolerance = 1e-9
    assert low - tolerance <= differences.mean() <= high + tolerance
    doubled = interval(2 * differences + 1)
    np.testing.assert_allclose(doubled, (2 * low + 1, 2 * high + 1), atol=1e-9)
    turned = interval(-differences)
    if len(differences) <= 7:  # beyond, the draws are random
        np.testing.assert_allclose(turned, (-high, -low), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=12))
def test_what_holds_of_holm(p: list[float]) -> None:
    given_p, adjusted = np.array(p), holm(np.array(p))
    assert np.array_equal(np.isnan(given_p), np.isnan(adjusted))
    tested = np.isfinite(given_p)
    assert (adjusted[tested] >= given_p[tested]).all()
    assert (adjusted[tested] <= 1).all()
    assert (np.diff(adjusted[tested][np.argsort(given_p[tested], kind="stable")]) >= 0).all()
