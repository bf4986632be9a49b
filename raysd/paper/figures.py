"""Figures for a report: SVG that stands inside a page, with its words as text, readable in greyscale."""

import hashlib
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysd.results.searches import Suggestion

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # words stay words: they can be read out, searched and copied
    "svg.hashsalt": "raysd",  # the same figure gives the same bytes
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
_DARK, _BLUE, _ORANGE, _GREY = "#222222", "#0072b2", "#d55e00", "#888888"  # told apart by shape and lightness too


@dataclass(frozen=True)
class Drawing:
    """A figure as a page holds it."""

    svg: str
    """Ready to be put into HTML; uses nothing from elsewhere."""
    title: str
    alt: str
    """What is to be seen, for those who do not see it."""


def objective_history(suggestions: Sequence[Suggestion], objective: str) -> Drawing:
    """The objective of each suggestion in the order in which they were made, and the best so far."""
    done = [(one.number, 100 * one.value) for one in suggestions if one.state == "done" and one.value is not None]
    pruned = [(one.number, 100 * one.value) for one in suggestions if one.state == "pruned" and one.value is not None]
    failed = [one.number for one in suggestions if one.state == "failed"]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("suggestion", f"{objective}, %")
        if pruned:
            axes.plot(*zip(*pruned, strict=True), "x", color=_GREY, markersize=6, label="pruned")
        if done:
            numbers, values = zip(*done, strict=True)
            axes.plot(numbers, values, "o", color=_BLUE, markersize=5, label="finished")
            best_so_far = np.maximum.accumulate([*values, values[0]])  # as far as the search has come
            axes.step([*numbers, suggestions[-1].number], best_so_far, where="post", color=_DARK, label="best so far")
        if failed:
            axes.plot(failed, [axes.get_ylim()[0]] * len(failed), "|", color=_ORANGE, markersize=10, label="failed")
        axes.legend(loc="best")
        best = max(done, key=lambda point: point[1], default=None)
        alt = f"{objective} of {len(done)} finished and {len(pruned)} pruned suggestions, in their order."
        if best:
            alt += f" The best, {best[1]:.2f} %, is suggestion {best[0]}; the first finished had {done[0][1]:.2f} %."
        return _drawn(figure, "Every suggestion, and the best so far", alt)


def two_rankings(
    suggestions: Sequence[Suggestion],
    first: Sequence[float],
    second: Sequence[float],
    names: tuple[str, str],
    winner: int | None,
) -> Drawing:
    """Finished suggestions by what was known to the search and by the official metric; values are fractions of 1."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(f"{names[0]}, %", f"{names[1]}, %")
        kinds = {
            "suggestions": ([], {"marker": "o", "s": 26, "color": _BLUE}),
            "baseline": ([], {"marker": "s", "s": 90, "color": _DARK}),
            "best objective": ([], {"marker": "*", "s": 170, "color": _ORANGE, "edgecolors": _DARK}),
        }
        for suggestion, x, y in zip(suggestions, first, second, strict=True):
            labels = ["best objective"] * (suggestion.number == winner) + ["baseline"] * (suggestion.number == 0)
            for label in labels or ["suggestions"]:
                kinds[label][0].append((100 * x, 100 * y))
        for label, (points, look) in kinds.items():
            if points:
                axes.scatter(*zip(*points, strict=True), label=label, **look)
        axes.legend(loc="best")
        alt = f"Each of {len(suggestions)} finished suggestions by {names[0]} (across) and {names[1]} (up)."
        for label, (points, _) in list(kinds.items())[1:]:
            alt += "".join(f" The {label}: {x:.2f} % and {y:.2f} %." for x, y in points)
        return _drawn(figure, f"{names[0]} against {names[1]}, after the fact", alt)


def factor_importances(shares: dict[str, dict[str, float | None]]) -> Drawing:
    """Bars of factor -> evaluator -> share, 0 to 1; None: that evaluator could not judge the factor."""
    evaluators = list(next(iter(shares.values())))
    looks: list[dict[str, Any]] = [{"color": _BLUE}, {"color": "white", "edgecolor": _DARK, "hatch": "////"}]
    height = 0.8 / len(evaluators)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("share, %", "", 1.2 + 0.5 * len(shares))
        for i, (evaluator, look) in enumerate(zip(evaluators, looks, strict=False)):
            at = np.arange(len(shares)) + (i - (len(evaluators) - 1) / 2) * height
            widths = [100 * (by_evaluator[evaluator] or 0.0) for by_evaluator in shares.values()]
            axes.barh(at, widths, height=height, label=evaluator, **look)
        axes.set_yticks(range(len(shares)), list(shares))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.legend(loc="best")
        parts = [
            f"{factor}: "
            + ", ".join(f"{name} {'none' if share is None else f'{100 * share:.0f} %'}" for name, share in by.items())
            for factor, by in shares.items()
        ]
        return _drawn(figure, "Importance of each factor", ". ".join(parts) + ".")


def _axes(across: str, up: str, height_inches: float = 3.2) -> tuple[Figure, Axes]:
    """No global figure, so that nothing is left behind and any thread may draw."""
    figure = Figure(figsize=(5.2, height_inches), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_axisbelow(True)
    return figure, axes


def _drawn(figure: Figure, title: str, alt: str) -> Drawing:
    """The figure as SVG for a page: no header, no links, names of its own, a label for those who do not see it."""
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", svg, flags=re.DOTALL)  # a style would be the whole page's
    svg = re.sub(r' (?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = svg.replace("xlink:href", "href")
    own = f"f{hashlib.sha256(svg.encode()).hexdigest()[:8]}"
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", svg)
    return Drawing(svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1), title, alt)
