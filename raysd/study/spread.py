"""How much a study's results scatter over seeds, from the trials that are there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysd.detect.metrics import ALL_MACHINES, averaging
from raysd.paper.statistics import paired_differences, pooled_standard_deviation
from raysd.study.design import LoadedStudy


@dataclass(frozen=True)
class Spread:
    """How much results scatter over seeds."""

    sd: float
    """Of paired differences to the baseline, a fraction of 1."""
    source: str
    """Where it comes from, in words."""


def spread_of(baseline: dict[int, float], variants: Sequence[dict[int, float]]) -> Spread | None:
    """The spread of paired differences, pooled over variants; where there are none, a guess from the baseline's own.

    Values are given by seed. None with fewer than two seeds of the baseline.
    """
    differences = [paired_differences(baseline, variant) for variant in variants]
    pairs = [pair for pair in differences if len(pair) > 1]
    if pairs:
        each = sorted({len(pair) for pair in pairs})
        seeds = f"{each[0]}" if len(each) == 1 else f"{each[0]} to {each[-1]}"
        word = "variant" if len(pairs) == 1 else "variants"
        return Spread(
            pooled_standard_deviation(pairs), f"from the differences of {len(pairs)} {word} over {seeds} seeds"
        )
    if len(baseline) > 1:
        own = pooled_standard_deviation([np.array(list(baseline.values()))])
        said = f"from {len(baseline)} seeds of the baseline, as if a variant scattered like it and apart from it"
        return Spread(math.sqrt(2) * own, said)
    return None


def values_by_seed(
    study: LoadedStudy, names: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[int, float]]:
    """Variant -> seed -> the study's metric over all machines, of the development test clips where there are such.

    `names` give the variant of a recipe key; `rows` are records with recipe_key, seed and metrics.
    """
    section, metric = averaging(study.baseline.recipe.data.year), study.study.metric
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        found = {
            entry["part"]: entry["value"]
            for entry in row["metrics"]
            if (entry["machine"], entry["section"], entry["metric"]) == (ALL_MACHINES, section, metric)
        }
        if found and row["recipe_key"] in names:
            values.setdefault(names[row["recipe_key"]], {})[row["seed"]] = found[min(found)]  # dev before eval
    return values
