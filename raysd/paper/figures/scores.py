"""What a trial's anomaly scores are like: normal clips against anomalous ones, and the ROC.

Scores come as a frame with a row for each test clip with a label, in the columns that raysd/detect/metrics.py takes:
`part`, `machine`, `section`, `domain`, `label`, `score`. One frame holds one part of one trial.
"""

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter

from raysd.data.layouts import YEARS
from raysd.detect.metrics import DOMAINS, MAX_FALSE_POSITIVE_RATE, aggregate, averaging, groups, section_metrics
from raysd.paper.figures.style import (
    BLUE,
    DARK,
    GREY,
    ORANGE,
    PALE,
    STYLE,
    Drawing,
    canvas,
    percent,
    wrapped,
)

_MOST_ROWS = 12  # of a figure of scores; with more sections each machine is one row
_FEW_CLIPS = 60  # of which each is shown beside the histogram
_TICKS = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300, 1000)
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1)), (0, (4, 1, 1, 1)), (0, (1, 0.8)), (0, (8, 3)), (0, (4, 1, 1, 1, 1, 1)))
_MEANS: tuple[dict[str, Any], ...] = (
    {"color": DARK, "linewidth": 1.8},
    {"color": BLUE, "linewidth": 1.4, "linestyle": "--"},
    {"color": ORANGE, "linewidth": 1.4, "linestyle": ":"},
)
_GRID = np.linspace(0.0, 1.0, 1001)  # false positive rates at which ROCs are averaged


def score_distributions(scores: pd.DataFrame, where: str, name: str = "scores") -> Drawing:
    """Histograms of normal clips (up) and of anomalous ones (down), a row a section and domain.

    Scores of each section are measured from the median of its normal clips of all domains, in interquartile ranges of
    those, so that sections share a scale and a shift of a domain shows; a section without normal clips is left out. Far
    from 0 the scale is logarithmic. Each histogram has the area 1; where clips are few, each is a tick too. With many
    sections a row is a machine and domain.
    """
    placed = scores.assign(place=_standardised(scores), domain=scores["domain"].fillna("")).dropna(subset="place")
    columns = ["machine", "section", "domain"]
    if placed.groupby(columns).ngroups > _MOST_ROWS:
        columns.remove("section")
    if len(placed["machine"].unique()) == 1 and "section" in columns:
        columns.remove("machine")
    rows = [(" ".join(filter(None, keys)), clips) for keys, clips in groups(placed, *columns)]
    words = [f"Anomaly scores of test clips, {where}: normal clips above the line of each row, anomalous ones below."]
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = canvas(0.85 + 0.48 * len(rows))
        low, high = np.arcsinh([placed["place"].min(), placed["place"].max() + 1e-6])  # apart also if all are equal
        for i, (label, clips) in enumerate(rows):
            normal, anomaly = (clips.loc[clips["label"] == kind, "place"].to_numpy(dtype=float) for kind in (0, 1))
            _draw_row(axes, -i, np.arcsinh(normal), np.arcsinh(anomaly), (low, high))
            words.append(_row_in_words(label, normal, anomaly))
        axes.set_yticks([-i for i in range(len(rows))], [wrapped(label, 18) for label, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(-len(rows) + 0.45, 0.55)
        axes.xaxis.set_major_locator(
            FixedLocator([np.arcsinh(tick) for tick in _TICKS if low <= np.arcsinh(tick) <= high])
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{np.sinh(place):.0f}"))
        scale = "score, from the median of the section's normal clips,\nin their interquartile ranges"
        figure.supxlabel(scale, fontsize=8)
        handles = [
            Patch(facecolor=PALE, edgecolor=DARK, linewidth=0.6, label="normal (up)"),
            Patch(facecolor="white", edgecolor=ORANGE, linewidth=0.6, hatch="//////", label="anomaly (down)"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
        return Drawing(figure, f"Anomaly scores, normal against anomalous, {where}", " ".join(words), name)


def roc_curves(scores: pd.DataFrame, year: int, where: str, name: str = "roc") -> Drawing:
    """The ROC of each section (thin) and their mean (thick), a panel a machine; the region of pAUC is shaded.

    The mean is taken of the true positive rates at each false positive rate. AUC and pAUC are those that tables show,
    in the year's kind of mean. In years with domains the ROC of each domain, as the year's official AUC has it, stands
    beside the one of all clips.
    """
    found = section_metrics(scores, year)
    found = pd.concat([found, aggregate(found, year)])
    values = found.set_index(["machine", "section", "metric"])["value"].to_dict()
    machines = [(machine, clips) for (machine,), clips in groups(scores, "machine")]
    columns = 1 if len(machines) == 1 else 2
    rows = -(-len(machines) // columns)
    words = [f"ROC of each section, {where}, and their mean over sections; pAUC is up to a false positive rate of 0.1."]
    with matplotlib.rc_context(STYLE):
        height = 0.9 + (2.7 if columns == 1 else 1.8) * rows
        figure, all_axes = canvas(height, rows, columns, sharex=True, sharey=True)
        for axes, (machine, clips) in zip(all_axes, machines, strict=False):
            axes.axvspan(0.0, MAX_FALSE_POSITIVE_RATE, color=PALE, alpha=0.7, linewidth=0, label="region of pAUC")
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), label="chance")
            told = {
                section: _told(values, machine, section) for section in (averaging(year), *clips["section"].unique())
            }
            _draw_sections(axes, clips, told, apart=columns == 1)
            for kind, curve, look in _mean_rocs(clips, year):
                axes.plot(np.r_[0.0, _GRID], np.r_[0.0, curve], label=f"mean, {kind}", **look)
            axes.set_title("\n".join([machine, *told[averaging(year)]]), loc="left", fontsize=7)
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
            words.append(f"{machine}: {'; '.join(told[averaging(year)])}, in percent.")
        for axes in all_axes[len(machines) :]:
            axes.set_visible(False)
        for axes in all_axes[max(len(machines) - columns, 0) : len(machines)]:  # the last of each column
            axes.tick_params(labelbottom=True)
        figure.supxlabel("false positive rate", fontsize=8)
        figure.supylabel("true positive rate", fontsize=8)
        handles, labels = all_axes[0].get_legend_handles_labels()
        ncols = 2 if any("pAUC " in label for label in labels) else 3
        figure.legend(handles, labels, loc="outside upper center", ncols=ncols, columnspacing=1.0)
        return Drawing(figure, f"ROC with the region of pAUC, {where}", " ".join(words), name)


def _told(values: dict[tuple[str, str, str], float], machine: str, section: str) -> list[str]:
    """AUC and pAUC, and the AUC of each domain where there are domains."""
    lines = []
    for titles in ({"auc": "AUC", "pauc": "pAUC"}, {"auc_source": "AUC source", "auc_target": "target"}):
        there = {title: values.get((machine, section, metric)) for metric, title in titles.items()}
        lines.append(", ".join(f"{title} {100 * value:.1f}" for title, value in there.items() if value is not None))
    return [line for line in lines if line]


def _draw_sections(axes: Axes, clips: pd.DataFrame, told: dict[str, list[str]], apart: bool) -> None:
    """Thin lines; `apart`: each with a dash of its own, and with its AUC and pAUC in the legend, if not too many."""
    curves = {section: _roc(own) for (section,), own in groups(clips, "section")}
    there = {section: curve for section, curve in curves.items() if curve is not None}
    if len(there) < 2:
        return  # the mean is the section's own
    apart = apart and len(there) <= len(_DASHES)
    for i, (section, curve) in enumerate(there.items()):
        label = f"{section}: {told[section][0]}" if apart else None if i else "each section"
        axes.plot(*curve, color=GREY, linewidth=0.9, linestyle=_DASHES[i] if apart else "-", label=label)


def _mean_rocs(clips: pd.DataFrame, year: int) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """(kind, true positive rates at `_GRID`, look) of all clips and of each domain as its official AUC has it."""
    anomaly = clips["label"] == 1
    chosen = {"all clips": pd.Series(True, index=clips.index)}
    if YEARS[year].domains:
        both = anomaly & ("pauc_source" not in YEARS[year].score_metrics)  # 2021 told the domain of a test clip
        chosen |= {domain: (clips["domain"] == domain) | both for domain in DOMAINS}
    for (kind, mask), look in zip(chosen.items(), _MEANS, strict=False):
        curves = [_roc(section) for _, section in groups(clips.loc[mask], "section")]
        sampled = [np.interp(_GRID, *curve) for curve in curves if curve is not None]
        if sampled:
            yield kind, np.mean(sampled, axis=0), look


def _roc(clips: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    """(false, true positive rates); None where there are not both kinds of clips."""
    from sklearn.metrics import roc_curve  # late: it takes long to import

    if len(clips["label"].unique()) < 2:
        return None
    false_rate, true_rate, _ = roc_curve(clips["label"].astype(int), clips["score"])
    return false_rate, true_rate


def _standardised(scores: pd.DataFrame) -> np.ndarray:
    places = pd.Series(np.nan, index=scores.index)
    for _, section in groups(scores, "machine", "section"):
        normal = section.loc[section["label"] == 0, "score"]
        middle, (q1, q3) = normal.median(), normal.quantile([0.25, 0.75])
        places[section.index] = (section["score"] - middle) / ((q3 - q1) or 1.0)
    return places.to_numpy()


def _draw_row(axes: Axes, at: float, normal: np.ndarray, anomaly: np.ndarray, ends: tuple[float, float]) -> None:
    edges = np.linspace(*ends, 1 + int(np.clip(2 * np.sqrt(len(normal) + len(anomaly)), 10, 40)))
    heights = [
        np.histogram(values, edges, density=True)[0] if len(values) else edges[1:] * 0 for values in (normal, anomaly)
    ]
    most = max(height.max() for height in heights) or 1.0
    looks: tuple[dict[str, Any], ...] = (
        {"facecolor": PALE, "edgecolor": DARK},
        {"facecolor": "white", "edgecolor": ORANGE, "hatch": "//////"},
    )
    for height, values, look, side in zip(heights, (normal, anomaly), looks, (1, -1), strict=True):
        axes.stairs(at + side * 0.42 * height / most, edges, baseline=at, fill=True, linewidth=0.6, **look)
        if len(values) <= _FEW_CLIPS:
            axes.vlines(values, at, at + side * 0.12, color=look["edgecolor"], linewidth=0.7)
    axes.axhline(at, color=DARK, linewidth=0.5)


def _row_in_words(label: str, normal: np.ndarray, anomaly: np.ndarray) -> str:
    counts = f"{label}: {len(normal)} normal and {len(anomaly)} anomalous clips"
    if not len(normal) or not len(anomaly):
        return f"{counts}."
    above = float((anomaly > np.quantile(normal, 1 - MAX_FALSE_POSITIVE_RATE)).mean())
    return f"{counts}; {percent(above, 0)} of the anomalous ones score above nine in ten normal ones."
