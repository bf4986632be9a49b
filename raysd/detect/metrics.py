"""Per-clip scores -> AUC, pAUC and official scores of each year, as long rows.

Definitions: DCASE 2020 Task 2 evaluator (arithmetic means), 2021 (domains tested separately, harmonic means), 2022 to
2024 evaluator (normals of one domain against the anomalies of both, harmonic means). The names:

- `auc`, `pauc`: all clips of a section. pAUC is scikit-learn's, up to a false positive rate of 0.1, standardised by
  McClish: 0.5 for chance, 1 for a perfect detector, and it can be below 0.5.
- `auc_source`, `auc_target` (2021 also `pauc_source`, `pauc_target`): the year's official metric of a domain.
- `auc_source_same`, `pauc_target_same` and so on: normals and anomalies of that domain alone, as some papers count.
- `auc_pooled`, `pauc_pooled` (section `pooled`): all clips of a machine in one ranking, as some papers count.
- `precision`, `recall`, `f1` (per domain where there are domains): from decisions, where they are given.
- `auc_domains`, `pauc_domains`, `precision_domains`, ... (in means only): over the sections and both domains.
- `official` (in means only): the year's mean over all its official metrics.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pandas as pd

from raysd.data.layouts import YEARS, Year
from raysd.errors import BadInput

COLUMNS = ["part", "machine", "section", "metric", "value", "num_normal", "num_anomaly"]
"""The columns of rows of metrics."""
ALL_MACHINES = "all"
"""The `machine` of a mean over all machines."""
POOLED = "pooled"
"""The `section` of a metric over all clips of a machine."""
MAX_FALSE_POSITIVE_RATE = 0.1
"""Where pAUC ends."""
DOMAINS = ("source", "target")

_EPSILON = sys.float_info.epsilon  # the official evaluators' floor of harmonic means and of divisors


def harmonic_mean(values: np.ndarray) -> float:
    """Harmonic mean of values of which none counts as less than the float epsilon, as in the official evaluator."""
    from scipy.stats import hmean  # late: it takes long to import, and most commands need none of it

    return float(hmean(np.maximum(values, _EPSILON)))


def arithmetic_mean(values: np.ndarray) -> float:
    return float(np.mean(values))


MEANS: dict[str, Callable[[np.ndarray], float]] = {
    "arithmetic_mean": arithmetic_mean,
    "harmonic_mean": harmonic_mean,
}
"""The `section` of a mean over sections -> the mean."""


def headline_metrics(year: int) -> tuple[str, ...]:
    """What a table shows for each machine: the metrics that the year's official score is made of, then `official`."""
    return (*YEARS[year].score_metrics, "official")


def averaging(year: int) -> str:
    """The `section` of the rows that hold the year's own kind of mean."""
    return f"{YEARS[year].averaging}_mean"


def summarise(scores: pd.DataFrame, year: int) -> pd.DataFrame:
    """Rows of every section, machine and the whole: what a trial stores. See `section_metrics` and `aggregate`."""
    rows = section_metrics(scores, year)
    return pd.concat([rows, aggregate(rows, year)], ignore_index=True) if len(rows) else rows


def section_metrics(scores: pd.DataFrame, year: int) -> pd.DataFrame:
    """Rows (`COLUMNS`) of every section and, pooled, of every machine.

    `scores` has a row for each test clip, with columns `part`, `machine`, `section`, `domain`, `label` (0 normal,
    1 anomaly, missing: not counted), `score` (higher is more anomalous), and may have `decision` (0 or 1). A metric
    without both normals and anomalies has no row. Raises BadInput for a score that is not finite.
    """
    clips = _labelled(scores)
    rules = YEARS[year]
    rows: list[tuple] = []
    for keys, section in groups(clips, "part", "machine", "section"):
        rows += [(*keys, *found) for found in _metrics_of_section(section, rules)]
    for keys, machine in groups(clips, "part", "machine"):
        everything = np.ones(len(machine), dtype=bool)
        rows += [(*keys, POOLED, *found) for found in _rankings(machine, everything, "_pooled")]
    return pd.DataFrame(rows, columns=COLUMNS)


def aggregate(rows: pd.DataFrame, year: int) -> pd.DataFrame:
    """Means of `section_metrics`' rows: per machine and over all machines, arithmetic and harmonic, parts kept apart.

    In a year with arithmetic means, the mean over all is the mean of the machines' means; else it is taken over all
    sections at once. `official` is in the year's own kind of mean alone. The numbers of clips are those of the
    sections counted, so that a section without a metric shows in them.
    """
    rules = YEARS[year]
    terms = pd.concat([rows, *_composites(rows, rules)], ignore_index=True)
    means: list[dict[str, Any]] = []
    for (part, metric), term in groups(terms, "part", "metric"):
        for name, mean in MEANS.items():
            if metric == "official" and name != averaging(year):
                continue
            shared = {"part": part, "section": name, "metric": metric}
            machines = [
                {**shared, "machine": machine, "value": mean(own["value"].to_numpy()), **_clips_behind(own)}
                for (machine,), own in groups(term, "machine")
            ]
            nested = rules.averaging == "arithmetic"
            values = np.array([row["value"] for row in machines]) if nested else term["value"].to_numpy()
            means += [*machines, {**shared, "machine": ALL_MACHINES, "value": mean(values), **_clips_behind(term)}]
    return pd.DataFrame(means, columns=COLUMNS).sort_values(
        ["part", "section", "metric"], kind="stable", ignore_index=True
    )


def groups(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rows of each combination of values that occurs, in order."""
    for keys, rows in frame.groupby(list(columns), observed=True):
        yield cast("tuple[str, ...]", keys), rows


def _labelled(scores: pd.DataFrame) -> pd.DataFrame:
    bad = ~np.isfinite(scores["score"].to_numpy(dtype=float))
    if bad.any():
        raise BadInput(f"{_clip_name(scores.loc[bad].iloc[0])}: the score is not finite; {bad.sum()} such clip(s)")
    clips = scores.loc[scores["label"].notna()]
    wrong = [label not in (0, 1) for label in clips["label"]]
    if any(wrong):
        clip = clips.loc[wrong].iloc[0]
        raise BadInput(f"{_clip_name(clip)}: the label is {clip['label']}; allowed: 0 (normal), 1 (anomaly), missing")
    return clips.assign(label=clips["label"].astype(int))


def _clip_name(clip: pd.Series) -> str:
    return " ".join(str(clip[column]) for column in ("machine", "section", "path", "name") if column in clip.index)


def _metrics_of_section(clips: pd.DataFrame, rules: Year) -> Iterator[tuple]:
    everything = np.ones(len(clips), dtype=bool)
    yield from _rankings(clips, everything, "")
    if not rules.domains:
        yield from _decisions(clips, everything, "")
        return
    anomaly = clips["label"].to_numpy() == 1
    separate = "pauc_source" in rules.score_metrics  # 2021 told the domain of a test clip
    for domain in DOMAINS:
        own = clips["domain"].to_numpy(dtype=object) == domain
        if separate:
            yield from _rankings(clips, own, f"_{domain}")
        else:
            yield from _rankings(clips, own | anomaly, f"_{domain}", only="auc")
        yield from _rankings(clips, own, f"_{domain}_same")
        yield from _decisions(clips, own, f"_{domain}")


def _rankings(clips: pd.DataFrame, chosen: np.ndarray, suffix: str, only: str = "") -> Iterator[tuple]:
    """(metric, value, normals, anomalies) of AUC and pAUC of the chosen clips; nothing where a class is absent."""
    label, score = clips["label"].to_numpy()[chosen], clips["score"].to_numpy(dtype=float)[chosen]
    counts = int((label == 0).sum()), int((label == 1).sum())
    if min(counts) == 0:
        return
    from sklearn.metrics import roc_auc_score  # late: it takes long to import, and most commands need none of it

    yield f"auc{suffix}", float(roc_auc_score(label, score)), *counts
    if only != "auc":
        yield f"pauc{suffix}", float(roc_auc_score(label, score, max_fpr=MAX_FALSE_POSITIVE_RATE)), *counts


def _decisions(clips: pd.DataFrame, chosen: np.ndarray, suffix: str) -> Iterator[tuple]:
    """(metric, value, normals, anomalies) of precision, recall and F1; 0 where the official divisor would be 0."""
    if "decision" not in clips.columns:
        return
    label, decision = clips["label"].to_numpy()[chosen], clips["decision"].to_numpy()[chosen]
    counts = int((label == 0).sum()), int((label == 1).sum())
    if min(counts) == 0:
        return
    hits = int(((label == 1) & (decision == 1)).sum())
    precision = hits / max(int((decision == 1).sum()), _EPSILON)
    recall = hits / counts[1]
    yield f"precision{suffix}", precision, *counts
    yield f"recall{suffix}", recall, *counts
    yield f"f1{suffix}", 2 * precision * recall / max(precision + recall, _EPSILON), *counts


def _composites(rows: pd.DataFrame, rules: Year) -> Iterator[pd.DataFrame]:
    """Rows renamed to what they are averaged into, with the clips of their whole section."""
    sections = ["part", "machine", "section"]
    whole = rows.loc[rows["metric"] == "auc", [*sections, "num_normal", "num_anomaly"]]
    terms_of = {"official": list(rules.score_metrics)}
    if rules.domains:
        for metric in ("auc", "pauc", "precision", "recall", "f1"):
            terms_of[f"{metric}_domains"] = [f"{metric}_{domain}" for domain in DOMAINS]
    for name, members in terms_of.items():
        terms = rows.loc[rows["metric"].isin(members)].drop(columns=["num_normal", "num_anomaly"])
        yield terms.merge(whole, on=sections).assign(metric=name)


def _clips_behind(terms: pd.DataFrame) -> dict[str, int]:
    sections = list(zip(terms["machine"], terms["section"], strict=True))
    counted = {}
    for name in ("num_normal", "num_anomaly"):
        most: dict[tuple[str, str], int] = {}
        for section, count in zip(sections, terms[name].tolist(), strict=True):
            most[section] = max(count, most.get(section, 0))
        counted[name] = sum(most.values())
    return counted
