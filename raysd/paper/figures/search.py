"""What a search did, and what it found to matter."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from raysd.paper.figures.style import BLUE, DARK, GREY, ORANGE, STYLE, Drawing, canvas, wrapped
from raysd.results.searches import Suggestion


def objective_history(suggestions: Sequence[Suggestion], objective: str) -> Drawing:
    """The objective of each suggestion in the order in which they were made, and the best so far."""
    done = [(one.number, 100 * one.value) for one in suggestions if one.state == "done" and one.value is not None]
    pruned = [(one.number, 100 * one.value) for one in suggestions if one.state == "pruned" and one.value is not None]
    failed = [one.number for one in suggestions if one.state == "failed"]
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = canvas(2.4)
        axes.set(xlabel="suggestion", ylabel=wrapped(f"{objective}, %", 34))
        if pruned:
            axes.plot(*zip(*pruned, strict=True), "x", color=GREY, markersize=5, label="pruned")
        if done:
            numbers, values = zip(*done, strict=True)
            axes.plot(numbers, values, "o", color=BLUE, markersize=4, label="finished")
            best_so_far = np.maximum.accumulate([*values, values[0]])  # as far as the search has come
            axes.step([*numbers, suggestions[-1].number], best_so_far, where="post", color=DARK, label="best so far")
        if failed:
            axes.plot(failed, [axes.get_ylim()[0]] * len(failed), "|", color=ORANGE, markersize=9, label="failed")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, columnspacing=1.2, handlelength=1.6)
        best = max(done, key=lambda point: point[1], default=None)
        alt = f"{objective} of {len(done)} finished and {len(pruned)} pruned suggestions, in their order."
        if best:
            alt += f" The best, {best[1]:.2f} %, is suggestion {best[0]}; the first finished had {done[0][1]:.2f} %."
        return Drawing(figure, "Every suggestion, and the best so far", alt, "history")


def two_rankings(
    suggestions: Sequence[Suggestion],
    first: Sequence[float],
    second: Sequence[float],
    names: tuple[str, str],
    winner: int | None,
) -> Drawing:
    """Finished suggestions by what was known to the search and by the official metric; values are fractions of 1."""
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = canvas(2.6)
        axes.set(xlabel=f"{names[0]}, %", ylabel=f"{names[1]}, %")
        kinds = {
            "suggestions": ([], {"marker": "o", "s": 16, "color": BLUE}),
            "baseline": ([], {"marker": "s", "s": 55, "color": DARK}),
            "best objective": ([], {"marker": "*", "s": 110, "color": ORANGE, "edgecolors": DARK, "linewidths": 0.7}),
        }
        for suggestion, x, y in zip(suggestions, first, second, strict=True):
            labels = ["best objective"] * (suggestion.number == winner) + ["baseline"] * (suggestion.number == 0)
            for label in labels or ["suggestions"]:
                kinds[label][0].append((100 * x, 100 * y))
        for label, (points, look) in kinds.items():
            if points:
                axes.scatter(*zip(*points, strict=True), label=label, **look)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, columnspacing=1.2, handlelength=1.6)
        alt = f"Each of {len(suggestions)} finished suggestions by {names[0]} (across) and {names[1]} (up)."
        for label, (points, _) in list(kinds.items())[1:]:
            alt += "".join(f" The {label}: {x:.2f} % and {y:.2f} %." for x, y in points)
        word = "-".join(names[0].split())
        return Drawing(figure, f"{names[0]} against {names[1]}, after the fact", alt, f"ranking-{word}")


def factor_importances(shares: dict[str, dict[str, float | None]]) -> Drawing:
    """Bars of factor -> evaluator -> share, 0 to 1; None: that evaluator could not judge the factor."""
    evaluators = list(next(iter(shares.values())))
    looks: list[dict[str, Any]] = [{"color": BLUE}, {"color": "white", "edgecolor": DARK, "hatch": "/////"}]
    height = 0.8 / len(evaluators)
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = canvas(0.9 + 0.33 * len(shares))
        axes.set_xlabel("share, %")
        for i, (evaluator, look) in enumerate(zip(evaluators, looks, strict=False)):
            at = np.arange(len(shares)) + (i - (len(evaluators) - 1) / 2) * height
            widths = [100 * (by_evaluator[evaluator] or 0.0) for by_evaluator in shares.values()]
            axes.barh(at, widths, height=height, label=evaluator, linewidth=0.7, **look)
        axes.set_yticks(range(len(shares)), [wrapped(factor, 26) for factor in shares])
        axes.set_ylim(len(shares) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
        parts = [
            f"{factor}: "
            + ", ".join(f"{name} {'none' if share is None else f'{100 * share:.0f} %'}" for name, share in by.items())
            for factor, by in shares.items()
        ]
        return Drawing(figure, "Importance of each factor", ". ".join(parts) + ".", "importances")
