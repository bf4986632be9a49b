"""How well one number ranks what another one ranks: Spearman's correlation with a bootstrap interval."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

FEWEST = 5
"""With fewer pairs nothing is said: four can be in order by chance."""


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of `num` pairs, and its 95 % interval; NaN where there is none."""

    num: int
    rho: float
    low: float
    high: float

    def sentence(self, first: str, second: str, them: str) -> str:
        """What it says of `first`, after which `them` were ranked, and `second`, after which they should be."""
        if self.num < FEWEST:
            return f"{self.num} {them} are too few to say whether {first} ranks as {second} does"
        if not math.isfinite(self.rho):
            return f"{first} or {second} is the same for all {self.num} {them}: there is no ranking to compare"
        numbers = f"Spearman {self.rho:+.2f}, 95 % interval {self.low:+.2f} to {self.high:+.2f}"
        if self.high < 0:
            return f"{first} ranks the {self.num} {them} against {second} ({numbers}): its best is no good choice"
        if self.low <= 0:
            leaning = "; what there is, points the wrong way" if self.rho < 0 else ""
            return f"it is not shown that {first} ranks the {self.num} {them} as {second} does ({numbers}){leaning}"
        strength = "closely" if self.rho >= 0.8 else "roughly" if self.rho >= 0.5 else "only weakly"
        return f"{first} ranks the {self.num} {them} {strength} as {second} does ({numbers})"


def rank_agreement(first_N: np.ndarray, second_N: np.ndarray, seed: int = 0, draws: int = 4000) -> Agreement:
    """Spearman's correlation of two (N,) arrays; the interval is the percentile bootstrap over pairs.

    The generator is its own, seeded with `seed`. Without `FEWEST` pairs, or where one array is constant, all numbers
    are NaN; draws in which one is constant are left out.
    """
    num = len(first_N)
    if num < FEWEST or np.ptp(first_N) == 0 or np.ptp(second_N) == 0:
        return Agreement(num, math.nan, math.nan, math.nan)
    drawn_DN = np.random.default_rng(seed).integers(num, size=(draws, num))
    rho_D = _spearman(first_N[drawn_DN], second_N[drawn_DN])
    low, high = np.quantile(rho_D[np.isfinite(rho_D)], [0.025, 0.975])
    return Agreement(num, float(_spearman(first_N[None], second_N[None])[0]), float(low), float(high))


def _spearman(first_DN: np.ndarray, second_DN: np.ndarray) -> np.ndarray:
    """(D,): the correlation of the ranks of each pair of rows, as scipy.stats.spearmanr gives it for one; else NaN."""
    a_DN, b_DN = (ranks - ranks.mean(1, keepdims=True) for ranks in (_ranks(first_DN), _ranks(second_DN)))
    spread_D = np.sqrt((a_DN**2).sum(1) * (b_DN**2).sum(1))
    return np.divide((a_DN * b_DN).sum(1), spread_D, out=np.full(len(a_DN), np.nan), where=spread_D > 0)


def _ranks(values_DN: np.ndarray) -> np.ndarray:
    return np.asarray(rankdata(values_DN, axis=1))
