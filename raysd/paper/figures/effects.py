"""What a variant gives: effects with intervals, a value over the levels of a number, the spread over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from raysd.paper.figures.style import BLUE, DARK, GREY, SERIES, STYLE, Drawing, canvas, give_height, percent, wrapped
from raysd.paper.statistics import ALPHA, Comparison, interval

_NAME_WIDTH = 27  # characters in a line of a variant's name
_LINE_INCHES, _GAP_INCHES = 0.115, 0.065
_SEED_MARKS = "osD^vP*X"


@dataclass(frozen=True)
class Curve:
    """Values over the levels of a number."""

    name: str
    points: Mapping[float, Sequence[float]]
    """Level -> one value a seed, fractions of 1."""


@dataclass(frozen=True)
class Panel:
    """The curves of one machine, and what has no level, as lines across: name -> mean."""

    name: str
    curves: Sequence[Curve]
    lines: Mapping[str, float]


def forest(comparisons: Mapping[str, Comparison], metric: str, where: str, name: str = "forest") -> Drawing:
    """Each variant's difference to the baseline with its 95 % interval, top down in the order given.

    `where` says of what, for instance `ToyCar, dev`. A filled mark: Holm's p is at most 0.05. A variant with one seed
    has no interval and no test; one that shares no seed with the baseline is named all the same.
    """
    rows = list(comparisons.items())
    most = max((one.n for _, one in rows), default=0)
    labels = [wrapped(variant if one.n == most else f"{variant}, n = {one.n}", _NAME_WIDTH) for variant, one in rows]
    with matplotlib.rc_context(STYLE):
        at, height = _places(labels)
        figure, (axes,) = canvas(0.8 + height)
        axes.axvline(0.0, color=DARK, linewidth=0.8)
        for y, (_, one) in zip(at, rows, strict=True):
            look: dict[str, Any] = {"marker": "x"}
            if one.n > 1:
                axes.plot([100 * one.low, 100 * one.high], [y, y], color=BLUE, linewidth=1.5, solid_capstyle="butt")
                look = {"marker": "o", "markerfacecolor": DARK if one.p_holm <= ALPHA else "white"}
            if one.n:
                axes.plot([100 * one.difference], [y], color=DARK, markersize=4.5, **look)
            said = _p(one) if one.n > 1 else "no test" if one.n else "no pair"
            axes.text(1.03, y, said, transform=axes.get_yaxis_transform(), va="center", fontsize=7)
        axes.set_title("p (Holm)", loc="right", fontsize=7)
        _name_rows(axes, at, labels, height)
        axes.set_xlabel(wrapped(f"difference in {metric}, points", 40))
        filled = "; filled: p at most 0.05" if any(one.p_holm <= ALPHA for _, one in rows) else ""
        figure.supxlabel(f"95 % intervals, n = {most}{filled}" if most > 1 else "one seed: no intervals", fontsize=7)
        give_height(figure, axes, height)
        return Drawing(figure, f"Difference to the baseline in {metric}, {where}", _in_words(rows, metric, where), name)


def seed_spread(values: Mapping[str, Mapping[int, float]], metric: str, where: str, name: str = "seeds") -> Drawing:
    """The value of each seed of each row as a mark, and the row's mean as a bar; the first row is the baseline.

    A seed has the same mark in all rows, so that pairs can be seen, as long as there are marks enough.
    """
    seeds = sorted({seed for row in values.values() for seed in row})
    marks = dict(zip(seeds, _SEED_MARKS if len(seeds) <= len(_SEED_MARKS) else "o" * len(seeds), strict=False))
    means = {row: float(np.mean(list(by_seed.values()))) for row, by_seed in values.items() if by_seed}
    labels = [wrapped(row, _NAME_WIDTH) for row in values]
    look: dict[str, Any] = {"color": BLUE, "markerfacecolor": "none", "markersize": 4, "linestyle": "none"}
    with matplotlib.rc_context(STYLE):
        at, height = _places(labels)
        figure, (axes,) = canvas(0.95 + height)
        baseline = next(iter(values))
        if baseline in means:
            axes.axvline(100 * means[baseline], color=GREY, linestyle=":", linewidth=0.9)
        for y, (row, by_seed) in zip(at, values.items(), strict=True):
            if row in means:
                axes.plot([100 * means[row]] * 2, [y - 0.07, y + 0.07], color=DARK, linewidth=1.8)
            for i, seed in enumerate(seeds):
                if seed in by_seed:  # beside each other, so that equal values do not hide each other
                    shift = 0.1 * (i / max(len(seeds) - 1, 1) - 0.5)
                    axes.plot([100 * by_seed[seed]], [y + shift], marker=marks[seed], **look)
        _name_rows(axes, at, labels, height)
        axes.set_xlabel(wrapped(f"{metric}, %", 40))
        figure.supxlabel(f"bar: mean; dotted: mean of {wrapped(baseline, 40)}", fontsize=7)
        if 1 < len(seeds) <= len(_SEED_MARKS):
            handles = [Line2D([], [], marker=mark, **look) for mark in marks.values()]
            names = [f"seed {seed}" for seed in seeds]
            figure.legend(handles, names, loc="outside upper center", ncols=4, columnspacing=1.0, handletextpad=0.0)
        give_height(figure, axes, height)
        return Drawing(figure, f"Each seed's {metric}, {where}", _spread_in_words(values, means, metric, where), name)


def factor_curve(panels: Sequence[Panel], factor: str, metric: str, where: str, name: str = "curve") -> Drawing:
    """The mean over seeds with its 95 % interval at each level of a number, a panel a machine.

    Levels stand on a log scale where the highest is more than ten times the lowest. One with a single seed has no
    interval. Curves are set a little apart, so that their intervals can be told apart.
    """
    levels = sorted({level for panel in panels for curve in panel.curves for level in curve.points})
    log = levels[0] > 0 and levels[-1] > 10 * levels[0]
    with matplotlib.rc_context(STYLE):
        figure, all_axes = canvas(0.9 + 1.75 * len(panels), rows=len(panels), sharex=True)
        for axes, panel in zip(all_axes, panels, strict=True):
            for i, (curve, look) in enumerate(zip(panel.curves, SERIES, strict=False)):
                side = 2 * i / max(len(panel.curves) - 1, 1) - 1  # -1 to 1
                _draw_curve(axes, curve, look, side, levels, log)
            for (line, mean), dashes in zip(
                panel.lines.items(), ((0, (1, 1)), (0, (6, 2)), (0, (3, 1, 1, 1))), strict=False
            ):
                axes.axhline(100 * mean, color=GREY, linestyle=dashes, linewidth=1.0, label=line)
            axes.set_title(panel.name if len(panels) > 1 else "", loc="left")
            if log:
                axes.set_xscale("log")
        last = all_axes[-1]
        last.set_xlabel(wrapped(factor, 40))
        figure.supxlabel(_over_seeds(panels), fontsize=7)
        last.xaxis.set_major_locator(FixedLocator(_readable(levels, log)))
        last.xaxis.set_minor_locator(NullLocator())
        last.xaxis.set_major_formatter(FuncFormatter(lambda level, _: f"{level:g}"))
        figure.supylabel(f"{metric}, %", fontsize=8)
        handles, labels = all_axes[0].get_legend_handles_labels()
        if len(labels) > 1:
            names = [wrapped(label, 24) for label in labels]
            figure.legend(handles, names, loc="outside upper center", ncols=2 if max(map(len, names)) > 9 else 4)
        give_height(figure, last, 1.35)
        return Drawing(figure, f"By {factor}: {metric}, {where}", _curves_in_words(panels, factor, metric, where), name)


def _draw_curve(axes: Axes, curve: Curve, look: dict[str, Any], side: float, levels: list[float], log: bool) -> None:
    there = sorted(curve.points)
    values = [np.array(curve.points[level], dtype=float) for level in there]
    means = np.array([100 * one.mean() for one in values])
    low, high = (100 * np.array(ends) for ends in zip(*(interval(one) for one in values), strict=True))
    apart = 0.012 * side
    x = [
        level * (levels[-1] / levels[0]) ** apart if log else level + apart * (levels[-1] - levels[0])
        for level in there
    ]
    axes.vlines(x, low, high, color=look["color"], linewidth=0.9)  # those that are NaN are not drawn
    axes.plot(x, means, label=curve.name, markersize=3.5, **look)


def _over_seeds(panels: Sequence[Panel]) -> str:
    counts = {len(values) for panel in panels for curve in panel.curves for values in curve.points.values()}
    n = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    return f"mean over seeds, 95 % intervals, n = {n}" if max(counts) > 1 else "one seed: no intervals"


def _readable(levels: list[float], log: bool) -> list[float]:
    """Those levels whose names do not run into each other on the axis."""
    place = {level: (math.log(level / levels[0]) if log else level - levels[0]) for level in levels}
    shown = levels[-1:]
    for level in reversed(levels[:-1]):
        if place[shown[-1]] - place[level] >= 0.1 * (place[levels[-1]] or 1.0):
            shown.append(level)
    return shown


def _places(labels: Sequence[str]) -> tuple[list[float], float]:
    """Where rows stand, in inches from the top, by the lines that their names take; and the height of all."""
    places, top = [], 0.0
    for label in labels:
        own = _GAP_INCHES + _LINE_INCHES * (label.count("\n") + 1)
        places.append(top + own / 2)
        top += own
    return places, top


def _name_rows(axes: Axes, at: Sequence[float], labels: Sequence[str], height: float) -> None:
    axes.set_yticks(at, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(height + 0.03, -0.03)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _p(one: Comparison) -> str:
    return "< 0.001" if one.p_holm < 0.001 else f"{one.p_holm:.2f}" if one.p_holm >= 0.0995 else f"{one.p_holm:.3f}"


def _effect(variant: str, one: Comparison) -> str:
    ends = f" [{100 * one.low:+.2f}, {100 * one.high:+.2f}], p = {_p(one)}" if one.n > 1 else ", no interval"
    return f"{variant} {100 * one.difference:+.2f}{ends}".replace("= <", "<")


def _in_words(rows: Sequence[tuple[str, Comparison]], metric: str, where: str) -> str:
    tested = [(variant, one) for variant, one in rows if one.n > 1]
    words = [f"{len(rows)} variants against the baseline in {metric}, {where}, in points, with 95 % intervals."]
    if tested:
        ordered = sorted(tested, key=lambda row: row[1].difference)
        words.append(f"Highest: {_effect(*ordered[-1])}.")
        words += [f"Lowest: {_effect(*ordered[0])}."] if len(ordered) > 1 else []
        apart = [variant for variant, one in tested if one.p_holm <= ALPHA]
        words.append(f"Holm's p is at most 0.05 for {', '.join(apart) if apart else 'none'} of {len(tested)} tested.")
    words += [f"{_effect(variant, one)}: one seed, no test." for variant, one in rows if one.n == 1]
    words += [f"{variant}: no seed in common with the baseline." for variant, one in rows if one.n == 0]
    return " ".join(words)


def _spread_in_words(
    values: Mapping[str, Mapping[int, float]], means: Mapping[str, float], metric: str, where: str
) -> str:
    words = [f"Each seed's {metric} of {len(values)} rows, {where}, with their means."]
    shown = (
        list(dict.fromkeys([next(iter(values)), max(means, key=means.__getitem__), min(means, key=means.__getitem__)]))
        if means
        else []
    )
    for row in shown:
        if row in means:
            own = values[row].values()
            words.append(
                f"{row}: mean {percent(means[row])}, {percent(min(own))} to {percent(max(own))} over {len(own)} seeds."
            )
    words += [f"{row}: none yet." for row in values if row not in means]
    return " ".join(words)


def _curves_in_words(panels: Sequence[Panel], factor: str, metric: str, where: str) -> str:
    words = [f"By {factor}: {metric}, {where}, mean over seeds with 95 % intervals."]
    for panel in panels:
        told = []
        for curve in panel.curves:
            means = {level: float(np.mean(values)) for level, values in curve.points.items()}
            best = max(means, key=means.__getitem__)
            told.append(f"{curve.name or 'it'} is highest at {best:g} ({percent(means[best])})")
        told += [f"{line} has {percent(mean)}" for line, mean in panel.lines.items()]
        words.append(f"{panel.name}: {'; '.join(told)}.")
    return " ".join(words)
