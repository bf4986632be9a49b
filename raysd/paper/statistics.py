"""Numbers over seeds: small pure functions on arrays.

Values are (num_seeds,), or (num_seeds, num_cells) for many cells at once; NaN stands for a seed that is missing. Seeds
are the unit of replication: sections of one seed are never counted as repetitions.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np

CONFIDENCE = 0.95
"""Of two-sided intervals."""
ALPHA = 0.05
"""What a p is held against."""
MOST_EXACT_SEEDS = 16
"""With more of them sign flips are drawn at random, not all gone through."""
RANDOM_FLIPS = 2**16 - 1
"""So many then: with the signs that were seen there are 2**16."""
MOST_SEEDS_DRAWN_WHOLE = 7
"""With more of them the draws of an interval are random, not all gone through."""
RANDOM_DRAWS = 10_000
"""So many then."""

_CHUNK = 2**18  # numbers that are in work at a time: as many as a cache holds


@dataclass(frozen=True)
class Comparison:
    """A row against another, for instance a variant against the baseline, paired by seed. Fractions of 1."""

    n: int
    """Seeds that both have."""
    difference: float
    """Mean of the paired differences; NaN where n is 0."""
    low: float
    high: float
    """Ends of its 95 % interval; NaN where n is less than 2."""
    p: float
    """Of the two-sided sign-flip test; NaN where n is less than 2: no test."""
    p_holm: float
    """Adjusted for the family; NaN where p is."""
    family: int
    """How many tests the family has."""


def count(values: np.ndarray) -> np.ndarray:
    """How many seeds there are: () or (num_sections,) int64."""
    return np.isfinite(values).sum(axis=0)


def mean(values: np.ndarray) -> np.ndarray:
    """The mean over the seeds that are there: () or (num_sections,); NaN where there is none."""
    there = count(values)
    total = np.where(np.isfinite(values), values, 0.0).sum(axis=0)
    return np.where(there > 0, total / np.maximum(there, 1), np.nan)


def standard_deviation(values: np.ndarray) -> np.ndarray:
    """The sample standard deviation (divisor n - 1) over seeds: () or (num_sections,); NaN with fewer than two."""
    there = count(values)
    squares = np.where(np.isfinite(values), (values - mean(values)) ** 2, 0.0).sum(axis=0)
    return np.where(there > 1, np.sqrt(squares / np.maximum(there - 1, 1)), np.nan)


def paired_differences(baseline: Mapping[int, float], variant: Mapping[int, float]) -> np.ndarray:
    """(num_shared_seeds,): variant minus baseline of each seed that both have, in the order of the seeds."""
    shared = sorted(baseline.keys() & variant.keys())
    return np.array([variant[seed] - baseline[seed] for seed in shared], dtype=float)


def interval(differences: np.ndarray, rng_seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 95 % interval of the mean difference: () or (num_cells,) each; NaN with fewer than two seeds.

    A percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993) over seeds: a draw takes n
    seeds with replacement. Sections are strata: each is in every draw, with the same seeds as the others, as one
    training gave all of them. To draw the seeds of each section apart would take what they share for chance, and make
    the interval too narrow. So what is drawn from are the seeds' own means over sections (see `over_sections`).

    With few seeds such intervals are too narrow, so distances from the mean are stretched by sqrt(n / (n - 1)), as
    resampled deviations shrink by it, and by the ratio of Student's t to the normal quantile (Hesterberg, What Teachers
    Should Know About the Bootstrap, 2015). Up to 7 seeds all draws are gone through. Beyond, 10,000 come from a
    generator of `rng_seed`, the same for all cells.
    """
    shape = differences.shape[1:]
    cells = differences.reshape(len(differences), math.prod(shape))
    ends = np.full((2, cells.shape[1]), np.nan)
    for columns, values in _by_count(cells):
        if len(values) > 1:
            middle = values.mean(axis=0)
            quantiles = _bootstrap_ends(values - middle, *_draws(len(values), rng_seed))
            ends[:, columns] = middle + _stretch(len(values)) * quantiles
    low, high = ends.reshape(2, *shape)
    return low, high


def sign_flip_p(differences: np.ndarray, rng_seed: int = 0) -> np.ndarray:
    """Two-sided p of the mean difference being zero: () or (num_cells,); NaN with fewer than two seeds.

    The sign-flip (randomisation) test of paired differences (Fisher, The Design of Experiments, 1935): the share of
    sign patterns that give a sum at least as far from zero as the one seen. All 2**n patterns up to 16 seeds; beyond,
    random ones from a generator of `rng_seed`, and the pattern that was seen counts as one of them (Phipson and Smyth,
    2010), so that p is never zero. Sums that are equal but for rounding count as equal.
    """
    shape = differences.shape[1:]
    cells = differences.reshape(len(differences), math.prod(shape))
    p = np.full(cells.shape[1], np.nan)
    for columns, values in _by_count(cells):
        if len(values) < 2:
            continue
        signs, seen = _signs(len(values), rng_seed), int(not is_exact(len(values)))
        step = max(1, _CHUNK // len(signs))
        for start in range(0, len(columns), step):
            some = values[:, start : start + step]
            edge = np.abs(some.sum(axis=0)) - 1e-9 * np.abs(some).sum(axis=0)
            extreme = (np.abs(signs @ some) >= edge).sum(axis=0)
            p[columns[start : start + step]] = (extreme + seen) / (len(signs) + seen)
    return p.reshape(shape)


def is_exact(num_seeds: int) -> bool:
    """Whether the sign-flip test of so many seeds goes through all patterns of signs."""
    return num_seeds <= MOST_EXACT_SEEDS


def holm(p: np.ndarray) -> np.ndarray:
    """(num_tests,): p adjusted for all tests of the family (Holm, 1979). NaN, no test, stays and does not count."""
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def compare(baseline: Mapping[int, float], variants: Sequence[Mapping[int, float]]) -> list[Comparison]:
    """Each variant against the baseline over the seeds that both have; all of them are one family.

    Values are given by seed.
    """
    return compare_differences(_differences(baseline, variants)) if variants else []


def compare_differences(differences: np.ndarray) -> list[Comparison]:
    """(num_seeds, num_tests) paired differences, NaN where a seed is missing -> a comparison of each, in one family."""
    low, high = interval(differences)
    p = sign_flip_p(differences)
    adjusted, family = holm(p), int(np.isfinite(p).sum())
    columns = (column.tolist() for column in (count(differences), mean(differences), low, high, p, adjusted))
    return [
        Comparison(n, difference, below, above, own_p, own_p_holm, family)
        for n, difference, below, above, own_p, own_p_holm in zip(*columns, strict=True)
    ]


def ties(rows: Sequence[Mapping[int, float]]) -> tuple[int | None, set[int]]:
    """The best row by mean, and the rows that are not told apart from it. Values are given by seed.

    Every other row is tested against the best over the seeds that both have, and is told apart where its p, adjusted by
    Holm for all these tests, is at most 0.05. A row that shares fewer than two seeds with the best cannot be tested,
    and so is not told apart. One without any value is in neither; the best is None where no row has one.
    """
    means = [sum(row.values()) / len(row) if row else -math.inf for row in rows]
    there = [index for index, row in enumerate(rows) if row]
    if not there:
        return None, set()
    best = max(there, key=lambda index: means[index])
    others = [index for index in there if index != best]
    adjusted = holm(sign_flip_p(_differences(rows[best], [rows[index] for index in others])))
    return best, {index for index, p in zip(others, adjusted, strict=True) if not p <= ALPHA}


def over_sections(values: np.ndarray, harmonic: bool = False) -> np.ndarray:
    """(num_seeds, num_sections) -> (num_seeds,): each seed's own mean; NaN, never a mean of the rest, where one lacks.

    Harmonic means have the official evaluators' floor, the float epsilon.
    """
    if harmonic:
        return values.shape[1] / (1 / np.maximum(values, np.finfo(float).eps)).sum(axis=1)
    return values.mean(axis=1)


def smallest_p(num_seeds: int) -> float:
    """The least that an exact two-sided sign-flip test of `num_seeds` paired differences can give: 2 / 2**n."""
    return min(1.0, 2.0 / 2.0**num_seeds)


def seeds_to_reach(p: float) -> int:
    """The fewest seeds with which that test can give `p` or less."""
    return math.ceil(math.log2(2.0 / p))


def pooled_standard_deviation(groups: Iterable[np.ndarray]) -> float:
    """The spread within groups of values, each about its own mean: groups weigh by n - 1; NaN where none has two."""
    sums = [(((values - values.mean()) ** 2).sum(), len(values) - 1) for values in groups if len(values) > 1]
    squares, freedom = sum(square for square, _ in sums), sum(free for _, free in sums)
    return math.sqrt(squares / freedom) if freedom else math.nan


def detectable_difference(sd: float, num_seeds: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The least true mean of paired differences that a two-sided paired t-test finds with a chance of `power`.

    `sd` is the standard deviation of the differences over seeds; the result is in its unit. From the noncentral t
    distribution (Cohen, Statistical Power Analysis, 1988); infinite with fewer than two seeds.
    """
    if num_seeds < 2:
        return math.inf
    free = num_seeds - 1
    from scipy import special  # late: only plans need it

    edge = special.stdtrit(free, 1 - alpha / 2)
    shift = special.nctdtrinc(free, 1 - power, edge)  # a difference found with the wrong sign: less than one in 10^6
    return sd / math.sqrt(num_seeds) * float(shift)


def detectable_by_sign_flips(sd: float, num_seeds: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The same for the sign-flip test; infinite where it cannot give a p of `alpha` or less.

    With few seeds that test has few p to give, and finds less than the t-test; then its own power is simulated, for
    normal differences. Where ten or more patterns of signs decide, the t-test's is taken: it is within 3 points.
    """
    least = _detectable(num_seeds, power, alpha)
    return sd * least if math.isfinite(least) else math.inf


# --- draws ------------------------------------------------------------------------------------------------------------


def _differences(baseline: Mapping[int, float], variants: Sequence[Mapping[int, float]]) -> np.ndarray:
    """(num_seeds, num_variants) of the baseline's seeds; NaN where a variant lacks one."""
    seeds = sorted(baseline)
    at_baseline = np.array([baseline[seed] for seed in seeds], dtype=float)
    values = [[variant.get(seed, np.nan) for seed in seeds] for variant in variants]
    return np.array(values, dtype=float).reshape(len(variants), len(seeds)).T - at_baseline[:, None]


def _by_count(cells: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The columns that have n values, and these values (n, num_columns), for every n that there is."""
    there = count(cells)
    packed = np.take_along_axis(cells, np.argsort(~np.isfinite(cells), axis=0, kind="stable"), axis=0)
    for n in np.unique(there):
        columns = np.flatnonzero(there == n)
        yield columns, packed[:n, columns]


@lru_cache(maxsize=16)
def _signs(num_seeds: int, rng_seed: int) -> np.ndarray:
    """(num_patterns, num_seeds) of 1.0 and -1.0. All patterns, of which the first sign may stay: the test is two-sided.

    With many seeds random ones instead.
    """
    if not is_exact(num_seeds):
        return np.random.default_rng(rng_seed).choice([1.0, -1.0], size=(RANDOM_FLIPS, num_seeds))
    patterns = np.arange(2 ** (num_seeds - 1))[:, None] >> np.arange(num_seeds) & 1
    return 1.0 - 2.0 * patterns


@lru_cache(maxsize=16)
def _draws(num_seeds: int, rng_seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(num_draws, num_seeds): the share of each seed in a draw; and how often each draw comes, None where all are even.

    Draws that differ in the order alone are one.
    """
    n = num_seeds
    if n > MOST_SEEDS_DRAWN_WHOLE:
        return np.random.default_rng(rng_seed).multinomial(n, np.full(n, 1 / n), RANDOM_DRAWS) / n, None
    taken = np.array([np.bincount(draw, minlength=n) for draw in combinations_with_replacement(range(n), n)])
    factorials = np.array([math.factorial(k) for k in range(n + 1)])
    return taken / n, math.factorial(n) // factorials[taken].prod(axis=1)


def _bootstrap_ends(values: np.ndarray, shares: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """(2, num_cells): the quantiles of the drawn means. No more than 2.5 % of the draws lie beyond either end."""
    tail = (1 - CONFIDENCE) / 2
    ends, step = np.empty((2, values.shape[1])), max(1, _CHUNK // len(shares))
    for start in range(0, values.shape[1], step):
        # (num_cells, num_draws); not by BLAS, whose rounding is another on another machine
        means = np.einsum("sc,ds->cd", values[:, start : start + step], shares)
        if weights is None:
            means.sort(axis=1)
            beyond = int(tail * len(shares))
            ends[:, start : start + step] = means[:, beyond], means[:, -1 - beyond]
            continue
        order = np.argsort(means, axis=1)
        passed = weights[order].cumsum(axis=1) / weights.sum()
        first, last = (passed <= tail).sum(axis=1), (passed < 1 - tail).sum(axis=1)
        cells = np.arange(len(means))
        ends[:, start : start + step] = means[cells, order[cells, first]], means[cells, order[cells, last]]
    return ends


@lru_cache(maxsize=64)
def _stretch(num_seeds: int) -> float:
    """What makes the interval of so many seeds as wide as it has to be; see `interval`."""
    from scipy import special  # late: it takes long to import

    upper = (1 + CONFIDENCE) / 2
    t = special.stdtrit(num_seeds - 1, upper) / special.ndtri(upper)
    return math.sqrt(num_seeds / (num_seeds - 1)) * float(t)


@lru_cache(maxsize=1024)
def _detectable(num_seeds: int, power: float, alpha: float) -> float:
    """In standard deviations of the differences.

    n differences d + z are significant where at most k = alpha * 2**(n - 1) of the subsets of them have a sum of zero
    or less, the empty one included: where d exceeds all but k - 1 of the subsets' means of -z.
    """
    deciding = math.floor(alpha * 2.0 ** (num_seeds - 1) + 1e-9)
    if deciding == 0:
        return math.inf
    if deciding >= 10 or not is_exact(num_seeds):
        return detectable_difference(1.0, num_seeds, power, alpha)
    rng = np.random.default_rng(0)
    subsets = (np.arange(1, 2**num_seeds)[:, None] >> np.arange(num_seeds) & 1).astype(float)
    subsets /= subsets.sum(axis=1, keepdims=True)
    needed, step = [], max(1, _CHUNK // len(subsets))
    for _ in range(math.ceil(min(20_000, 2**25 / len(subsets)) / step)):
        means = rng.standard_normal((step, num_seeds)) @ subsets.T
        needed.append(np.partition(means, -deciding, axis=1)[:, -deciding])
    return float(np.quantile(np.concatenate(needed), power))
