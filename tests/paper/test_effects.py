"""Main effects and interactions, on designs whose effects can be checked by hand."""

import numpy as np
import pytest

from raysd.paper.effects import Effect, contrasts, effects
from raysd.study.design import load_study

Cells = list[tuple[dict[str, str], dict[int, float]]]


def found(cells: Cells, wanted: int = 3, reference: dict[str, str] | None = None) -> dict[str, Effect]:
    made = contrasts([levels for levels, _ in cells], reference or {})
    return {effect.contrast.label: effect for effect in effects(made, [values for _, values in cells], wanted)}


def cell(values: float | list[float], **levels: str) -> tuple[dict[str, str], dict[int, float]]:
    return levels, dict(enumerate(values if isinstance(values, list) else [values] * 3))


TWO_BY_TWO: Cells = [
    cell([0.50, 0.60, 0.70], mixup="off", crop="off"),
    cell([0.55, 0.64, 0.75], mixup="off", crop="on"),
    cell([0.60, 0.72, 0.80], mixup="on", crop="off"),
    cell([0.70, 0.81, 0.89], mixup="on", crop="on"),
]


def test_two_by_two() -> None:
    own = found(TWO_BY_TWO)
    assert list(own) == ["mixup=on", "crop=on", "mixup=on x crop=on"]
    mixup, crop, both = (effect.comparison for effect in own.values())
    # by seed: mixup (0.10, 0.12, 0.10) without crop and (0.15, 0.17, 0.14) with it
    assert mixup.difference == pytest.approx((0.125 + 0.145 + 0.12) / 3)
    # crop (0.05, 0.04, 0.05) without mixup and (0.10, 0.09, 0.09) with it
    assert crop.difference == pytest.approx((0.075 + 0.065 + 0.07) / 3)
    # what crop gives more beside mixup
    assert both.difference == pytest.approx((0.05 + 0.05 + 0.04) / 3)
    assert [one.p for one in (mixup, crop, both)] == [0.25] * 3
    assert [one.p_holm for one in (mixup, crop, both)] == [0.75] * 3
    assert {one.family for one in (mixup, crop, both)} == {3}
    assert both.low < both.difference < both.high
    assert [effect.contrast.matches for effect in own.values()] == [2, 2, 1]


def test_two_by_three_against_the_reference_levels() -> None:
    values = {("a", "1"): 1, ("a", "2"): 2, ("a", "3"): 4, ("b", "1"): 3, ("b", "2"): 5, ("b", "3"): 9}
    cells = [cell(value / 10, mode=mode, cutoff=cutoff) for (mode, cutoff), value in values.items()]
    own = found(cells, 3, {"mode": "a", "cutoff": "2"})
    assert {label: effect.comparison.difference for label, effect in own.items()} == pytest.approx(
        {
            "mode=b": (0.2 + 0.3 + 0.5) / 3,
            "cutoff=1": (-0.1 - 0.2) / 2,
            "cutoff=3": (0.2 + 0.4) / 2,
            "mode=b x cutoff=1": (0.3 - 0.1) - (0.5 - 0.2),
            "mode=b x cutoff=3": (0.9 - 0.4) - (0.5 - 0.2),
        }
    )
    first = found(cells, 3, {"mode": "not there"})
    assert first["cutoff=3"].contrast.against == ("1",)
    assert "mode=b" in first


def test_where_the_crossing_is_not_complete_cells_without_a_match_are_left_out() -> None:
    cells = [cell(0.1, a="0", b="0"), cell(0.2, a="1", b="0"), cell(0.9, a="1", b="1"), cell(0.5, a="0", b="2")]
    own = found(cells)
    assert {label: effect.comparison.difference for label, effect in own.items()} == pytest.approx(
        {"a=1": 0.1, "b=1": 0.7, "b=2": 0.4}
    )
    assert {effect.contrast.matches for effect in own.values()} == {1}


def test_an_ingredient_that_is_off_is_matched_with_all_that_it_has_when_it_is_on() -> None:
    cells = [
        *(cell(value, on="yes", cutoff=cutoff, crop=crop) for value, cutoff, crop in NESTED),
        cell(0.3, on="no", crop="off"),
        cell(0.4, on="no", crop="on"),
    ]
    own = found(cells)
    assert own["on=no"].contrast.matches == 4
    assert own["on=no"].comparison.difference == pytest.approx((0.3 - 0.5 + 0.3 - 0.7 + 0.4 - 0.6 + 0.4 - 0.9) / 4)
    assert own["cutoff=2"].comparison.difference == pytest.approx((0.2 + 0.3) / 2)
    # with 1: crop gives 0.1 when on and 0.1 when off; with 2: 0.2 and 0.1
    assert own["on=no x crop=on"].comparison.difference == pytest.approx((0.0 - 0.1) / 2)
    assert "on=no x cutoff=2" not in own


NESTED = [(0.5, "1", "off"), (0.7, "2", "off"), (0.6, "1", "on"), (0.9, "2", "on")]


def test_a_seed_counts_only_where_all_cells_of_the_effect_have_it() -> None:
    cells = [(levels, dict(values)) for levels, values in TWO_BY_TWO]
    del cells[3][1][1]  # mixup and crop, seed 1
    cells.append(cell([0.5, 0.5], mixup="off", crop="half"))
    own = found(cells, wanted=3)
    assert (own["mixup=on"].comparison.n, own["mixup=on"].wanted) == (2, 3)
    assert own["mixup=on"].comparison.difference == pytest.approx((0.125 + 0.12) / 2)
    assert own["crop=half"].comparison.n == 2
    cells[0][1].clear()
    own = found(cells)
    assert own["crop=on"].comparison.n == 0
    assert np.isnan([own["crop=on"].comparison.difference, own["crop=on"].comparison.p]).all()
    assert contrasts([], {}) == []
    assert effects([], [], 3) == []


def test_the_cutoff_study_is_a_factorial_with_its_baseline_as_one_cell() -> None:
    study = load_study("cutoff")
    assert study.baseline.levels == {"mode": "noise", "cutoff_hz": "2000"}
    cells: Cells = []
    for variant in study.variants:
        if variant.levels:
            value = 0.8 + 1e-5 * float(variant.levels["cutoff_hz"]) + 0.02 * (variant.levels["mode"] == "gain")
            cells.append((variant.levels, {seed: value + 0.01 * seed for seed in range(3)}))
    assert len(cells) == 4 * 7
    own = found(cells, 3, study.own_levels)
    assert len(own) == 3 + 6 + 3 * 6
    assert own["mode=gain"].comparison.difference == pytest.approx(0.02)
    assert own["mode=mask"].comparison.difference == pytest.approx(0.0, abs=1e-12)
    assert own["cutoff_hz=7000"].comparison.difference == pytest.approx(0.05)
    assert own["cutoff_hz=250"].contrast.against == ("2000",)
    assert own["mode=gain x cutoff_hz=250"].comparison.difference == pytest.approx(0.0, abs=1e-12)
    assert (own["mode=gain"].contrast.matches, own["mode=gain"].comparison.n, own["mode=gain"].wanted) == (7, 3, 3)
