"""Main effects and two-way interactions of factorial designs, from the values of their cells by seed.

A main effect compares a level of a factor with its reference level: the mean difference over all pairs of cells that
are equal in every other factor. A two-way interaction compares the differences that one factor makes at two levels of
another: its mean over all quadruples of cells that are equal in every other factor. Where the crossing is complete both
are those of a textbook (for instance Montgomery, Design and Analysis of Experiments); where it is not, cells without a
match are in neither. A factor that a cell lacks, as it means nothing there, is no difference: an ingredient that is off
is matched with every level of what it has when it is on.

Both are sums of cells with weights, so each seed has its own, and the seeds are the unit of replication, as everywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from raysd.paper.statistics import Comparison, compare_differences

Levels = Mapping[str, str]
"""Factor -> level."""
_Match = tuple[dict[str, str], tuple[int, ...]]
"""What matched cells are equal in, and their numbers."""


@dataclass(frozen=True)
class Contrast:
    """What an effect is made of: of one factor a main effect, of two an interaction."""

    factors: tuple[str, ...]
    levels: tuple[str, ...]
    against: tuple[str, ...]
    """The reference level of each factor."""
    weights: np.ndarray
    """(num_cells,): how much of each cell; zero of those that are not in it."""
    matches: int
    """The pairs, or quadruples, of cells that it is the mean of."""

    @property
    def label(self) -> str:
        """`mode=gain`, or `mode=gain x cutoff_hz=500`."""
        return " x ".join(f"{factor}={level}" for factor, level in zip(self.factors, self.levels, strict=True))


@dataclass(frozen=True)
class Effect:
    """A contrast with its numbers, over the seeds of which all its cells are there."""

    contrast: Contrast
    comparison: Comparison
    wanted: int
    """Seeds that the study asks for; `comparison.n` of them are in it."""


def contrasts(cells: Sequence[Levels], reference: Levels) -> list[Contrast]:
    """All main effects that cells have, then all two-way interactions, in the order in which the levels come.

    Each level is compared with that of `reference`; with the first that comes, where no cell has the reference.
    """
    seen: dict[str, list[str]] = {}
    for levels in cells:
        for factor, level in levels.items():
            if level not in seen.setdefault(factor, []):
                seen[factor].append(level)
    base = {f: reference[f] if reference.get(f) in levels else levels[0] for f, levels in seen.items()}
    others = {factor: [level for level in levels if level != base[factor]] for factor, levels in seen.items()}
    return [
        contrast
        for factors in [*((factor,) for factor in seen), *combinations(seen, 2)]
        for contrast in _contrasts_of(factors, base, others, cells)
    ]


def effects(contrasts: Sequence[Contrast], values: Sequence[Mapping[int, float]], wanted: int) -> list[Effect]:
    """The effects of cells with these values by seed, in the order of the cells; all of them are one family.

    A seed counts in an effect only where all its cells have it.
    """
    if not contrasts:
        return []
    seeds = sorted({seed for own in values for seed in own})
    of_cells = np.array([[own.get(seed, np.nan) for own in values] for seed in seeds]).reshape(len(seeds), len(values))
    weights = np.stack([contrast.weights for contrast in contrasts], axis=1)  # (num_cells, num_effects)
    no_value = np.isnan(of_cells)
    lacking = no_value.astype(float) @ (weights != 0) > 0 if no_value.any() else np.zeros((len(seeds), 1), dtype=bool)
    sums = np.einsum("sc,ce->se", np.nan_to_num(of_cells), weights)  # not by BLAS: see statistics.py
    differences = np.where(lacking, np.nan, sums)  # (num_seeds, num_effects)
    compared = compare_differences(differences)
    return [Effect(contrast, one, wanted) for contrast, one in zip(contrasts, compared, strict=True)]


def _contrasts_of(
    factors: tuple[str, ...], base: Levels, others: Mapping[str, Sequence[str]], cells: Sequence[Levels]
) -> Iterator[Contrast]:
    corners: dict[tuple[str, ...], list[_Match]] = {}
    for number, cell in enumerate(cells):
        if all(factor in cell for factor in factors):
            rest = {factor: level for factor, level in cell.items() if factor not in factors}
            corners.setdefault(tuple(cell[factor] for factor in factors), []).append((rest, (number,)))
    against = tuple(base[factor] for factor in factors)
    for levels in product(*(others[factor] for factor in factors)):
        matches: list[_Match] = [({}, ())]
        for corner in product(*zip(levels, against, strict=True)):
            matches = _joined(matches, corners.get(corner, []))
        if not matches:
            continue
        signs = [(-1) ** sum(at_base) for at_base in product((False, True), repeat=len(factors))]
        weights = np.zeros(len(cells))
        for _, matched in matches:
            for sign, number in zip(signs, matched, strict=True):
                weights[number] += sign / len(matches)
        yield Contrast(factors, levels, against, weights, len(matches))


def _joined(left: Sequence[_Match], right: Sequence[_Match]) -> list[_Match]:
    """Every one of the left with every one of the right that agrees with it in all factors that both have."""
    found = []
    for here, lefts in _by_factors(left).items():
        for there, rights in _by_factors(right).items():
            shared = [factor for factor in here if factor in there]
            alike: dict[tuple[str, ...], list[_Match]] = {}
            for match in rights:
                alike.setdefault(tuple(match[0][factor] for factor in shared), []).append(match)
            for rest, cells in lefts:
                for other_rest, other_cells in alike.get(tuple(rest[factor] for factor in shared), ()):
                    found.append((rest | other_rest, cells + other_cells))
    return found


def _by_factors(matches: Sequence[_Match]) -> dict[tuple[str, ...], list[_Match]]:
    groups: dict[tuple[str, ...], list[_Match]] = {}
    for match in matches:
        groups.setdefault(tuple(sorted(match[0])), []).append(match)
    return groups
