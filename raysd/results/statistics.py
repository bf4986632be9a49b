"""Numbers over seeds: small pure functions on arrays.

Values are (num_seeds,), or (num_seeds, num_sections) for each section apart; NaN stands for a seed that is missing.
Seeds are the unit of replication: sections of one seed are never counted as repetitions.
"""

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
