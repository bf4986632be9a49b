"""Numbers over seeds: small pure functions on arrays.

Values are (num_seeds,), or (num_seeds, num_sections) for each section apart; NaN stands for a seed that is missing.
Seeds are the unit of replication: sections of one seed are never counted as repetitions.
"""

import math
from collections.abc import Iterable

import numpy as np


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


def paired_differences(baseline: dict[int, float], variant: dict[int, float]) -> np.ndarray:
    """(num_shared_seeds,): variant minus baseline of each seed that both have, in the order of the seeds."""
    shared = sorted(baseline.keys() & variant.keys())
    return np.array([variant[seed] - baseline[seed] for seed in shared], dtype=float)


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
