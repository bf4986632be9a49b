"""A study at hand -> its figures: collects what they show, of few trials at a time."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from raysd.detect.metrics import ALL_MACHINES
from raysd.errors import BadInput, nearest
from raysd.paper.figures import (
    Curve,
    Drawing,
    Panel,
    embedding_map,
    factor_curve,
    forest,
    learning_curves,
    roc_curves,
    score_distributions,
    seed_spread,
)
from raysd.paper.figures.embeddings import MapName
from raysd.paper.report import search_sections
from raysd.paper.search_table import title
from raysd.paper.tables import ORACLE, StudyTable, study_tables
from raysd.paper.values import Row
from raysd.recipe import training_key
from raysd.results.storage import StorageError
from raysd.results.store import Results
from raysd.settings import flatten
from raysd.study.importance import importances
from raysd.study.search import build_optuna
from raysd.study.searched import Searched, searched

if TYPE_CHECKING:
    from raysd.session import Session
    from raysd.study.design import LoadedStudy, Variant

_MOST_ROWS = 30  # variants in one figure
_MOST_PANELS = 4  # machines in one figure of curves
_MOST_CURVES = 6
_MOST_LINES = 3


@dataclass(frozen=True)
class _Study:
    """A comparing study on one corpus."""

    table: StudyTable
    results: Results
    study: "LoadedStudy"
    map_name: MapName

    @property
    def metric(self) -> str:
        return self.table.metrics[0]

    @property
    def title(self) -> str:
        return title(self.metric)

    @property
    def overall(self) -> str:
        """The mean over all machines, or the only machine."""
        return self.table.machines[-1]

    @property
    def rows(self) -> "list[tuple[Variant, Row]]":
        """The baseline and the variants, each as the study has it and as the table has it."""
        pairs = zip(self.study.variants, self.table.rows, strict=True)
        return [(variant, row) for variant, row in pairs if row.role != "reference"]

    @cached_property
    def typical(self) -> tuple[Row, int, str] | None:
        """The baseline's trial of median value (of two in the middle the lower), as (row, seed, key).

        Where the baseline has none, of the first row that has one.
        """
        for _, row in self.rows:
            for part in self.table.parts:
                cell = row.cell(part, self.overall, self.metric)
                if cell.values:
                    seed = sorted(cell.values, key=lambda seed: (cell.values[seed], seed))[(len(cell.values) - 1) // 2]
                    return row, seed, cell.keys[seed]
        return None

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Of the typical trial: its test clips with a label."""
        scores = self.results.scores({self.typical[2]} if self.typical else set())
        return scores.loc[(scores["split"] == "test") & scores["label"].notna()]


def study_drawings(
    table: StudyTable,
    results: Results,
    study: "LoadedStudy",
    only: Collection[str] = (),
    map_name: MapName = "pca",
) -> list[Drawing]:
    """All figures of a comparing study that make sense, or those of the kinds in `only` (of `KINDS`), in their order.

    What single trials show, is shown of the baseline's trial of median value.
    """
    shown = _Study(table, results, study, map_name)
    drawings = [drawing for kind, make in KINDS.items() if kind in (only or KINDS) for drawing in make(shown)]
    return [drawing.stamped(ORACLE) for drawing in drawings] if table.oracle else drawings


def search_drawings(found: Searched, only: Collection[str] = ()) -> list[Drawing]:
    """The figures of a search, or those of the kinds in `only` (of `SEARCH_KINDS`)."""
    sections = search_sections(found, importances(build_optuna(found.study, found.suggestions)))
    drawings = [drawing for section in sections for drawing in section.drawings]
    drawings = [drawing for drawing in drawings if drawing.name.partition("-")[0] in (only or SEARCH_KINDS)]
    return [drawing.stamped(ORACLE) for drawing in drawings] if found.study.oracle else drawings


def save_figures(
    session: "Session", folder: Path, formats: Sequence[str], only: Sequence[str] = (), map_name: MapName = "pca"
) -> Iterator[Path]:
    """Writes the figures of a study to files FOLDER/STUDY-FIGURE.FORMAT, and gives their paths as it goes.

    With a part of the corpus' fingerprint in the name where the study was run on several. Raises BadInput for a kind
    of figure that such a study does not have, a folder that cannot be written, and where nothing is finished.
    """
    study = session.study
    known = SEARCH_KINDS if session.is_search else tuple(KINDS)
    for kind in only:
        if kind not in known:
            what = "a search has" if session.is_search else "a study that compares has"
            raise BadInput(f"--only {kind}: {what} no such figure; {nearest(kind, known)}")
    for corpus, several, drawings in _drawings_of(session, only, map_name):
        for drawing in drawings:
            name = "-".join([study.name, *([corpus[:8]] if several else []), drawing.name])
            try:
                yield from drawing.save(re.sub(r"[^\w.=-]+", "_", name), folder, formats)
            except StorageError as error:
                raise BadInput(
                    f"--to {folder}: figures cannot be written there ({error}); give another folder"
                ) from None


def _drawings_of(
    session: "Session", only: Collection[str], map_name: MapName
) -> Iterator[tuple[str, bool, list[Drawing]]]:
    """(corpus, whether there are several, its figures)."""
    study, results = session.study, session.results
    fingerprint = session.fingerprint(study.baseline.recipe)
    if session.is_search:
        found = searched(study, results, fingerprint)
        if not found:
            raise BadInput(f"{results}: nothing of the search {study.name}; first: raysd run {study.name}")
        yield from ((one.fingerprint, len(found) > 1, search_drawings(one, only)) for one in found)
    else:
        tables = study_tables(study, results, fingerprint)
        for table in tables:
            yield table.fingerprint, len(tables) > 1, study_drawings(table, results, study, only, map_name)


def _forests(shown: _Study) -> Iterator[Drawing]:
    """Of the whole; then, where there are several machines, of each."""
    table = shown.table
    machines = dict.fromkeys([shown.overall, *table.machines])
    for part in table.parts:
        for machine in machines:
            found = {row.variant: table.comparison(row, part, machine, shown.metric) for row in table.variants}
            there = {variant: one for variant, one in found.items() if one is not None}
            chosen = _farthest({variant: one.difference for variant, one in there.items()})
            if any(one.n for one in there.values()):
                more = () if machine == shown.overall else (machine,)
                where = f"{_machines(machine)}, {part}{_of(chosen, there)}"
                yield forest({it: there[it] for it in chosen}, shown.title, where, "-".join(["forest", part, *more]))


def _seeds(shown: _Study) -> Iterator[Drawing]:
    if len(shown.table.seeds) < 2:
        return
    for part in shown.table.parts:
        values = {row.variant: row.cell(part, shown.overall, shown.metric).values for _, row in shown.rows}
        baseline, *variants = values
        middle = _mean(values[baseline].values())
        chosen = [baseline, *_farthest({variant: _mean(values[variant].values()) - middle for variant in variants})]
        if any(values[row] for row in chosen):
            where = f"{_machines(shown.overall)}, {part}{_of(chosen, values)}"
            yield seed_spread({row: values[row] for row in chosen}, shown.title, where, f"seeds-{part}")


def _curves(shown: _Study) -> Iterator[Drawing]:
    """Of each factor that sets a number to three levels or more."""
    for factor, settings in shown.study.study.factors.items():
        curves = _along(shown, factor, settings.setting) if settings.setting else {}
        if not any(len(points) > 2 for points in curves.values()):
            continue
        chosen = dict(list(curves.items())[:_MOST_CURVES])
        lines = _lines_across(shown, settings.setting or "")
        for part in shown.table.parts:
            panels = [_panel(shown, chosen, lines, part, machine) for machine in shown.table.machines]
            panels = [panel for panel in panels if panel.curves]
            for start in range(0, len(panels), _MOST_PANELS):
                some = panels[start : start + _MOST_PANELS]
                number = [str(1 + start // _MOST_PANELS)] if len(panels) > _MOST_PANELS else []
                where = f"{', '.join(panel.name for panel in some)}, {part}"
                where += f" (the first {_MOST_CURVES} of {len(curves)} curves)" if len(curves) > _MOST_CURVES else ""
                yield factor_curve(some, factor, shown.title, where, "-".join(["curve", factor, part, *number]))


def _along(shown: _Study, factor: str, path: str) -> dict[str, dict[float, Row]]:
    """Name of a curve -> level -> row: rows that are the same but for the number at `path`.

    A curve is named by the levels in which it differs from other curves.
    """
    groups: dict[str, dict[float, tuple[Variant, Row]]] = {}
    for variant, row in shown.rows:
        if not row.cells:
            continue
        rest = flatten(variant.recipe, defaults=True)
        level = rest.pop(path, None)
        if isinstance(level, int | float) and not isinstance(level, bool):
            groups.setdefault(repr(sorted(rest.items())), {})[float(level)] = (variant, row)
    found = [list(group.items()) for group in groups.values() if len(group) > 1]
    levels = [dict(group[0][1][0].levels) for group in found]
    telling = [other for other in shown.study.study.factors if len({own.get(other) for own in levels}) > 1]
    curves: dict[str, dict[float, Row]] = {}
    for group, own in zip(found, levels, strict=True):
        name = ", ".join(f"{other}={own[other]}" for other in telling if other in own and other != factor)
        if len(found) > 1 and (not name or name in curves):
            name = group[0][1][0].name
        curves[name] = {level: row for level, (_, row) in sorted(group, key=lambda point: point[0])}
    return curves


def _lines_across(shown: _Study, path: str) -> list[Row]:
    """The baseline, and those that differ from it in nothing but that they do not have the setting."""
    rows = [row for _, row in shown.rows[:1]]
    for variant, row in shown.rows[1:]:
        if len(variant.changed) == 1 and flatten(variant.recipe, defaults=True).get(path) is None:
            rows.append(row)
    return rows[:_MOST_LINES]


def _panel(
    shown: _Study, curves: Mapping[str, Mapping[float, Row]], lines: Sequence[Row], part: str, machine: str
) -> Panel:
    def values(row: Row) -> list[float]:
        return list(row.cell(part, machine, shown.metric).values.values())

    drawn = [
        Curve(name, {level: values(row) for level, row in points.items() if values(row)})
        for name, points in curves.items()
    ]
    means = {row.variant: float(np.mean(values(row))) for row in lines if values(row)}
    return Panel(_machines(machine), [curve for curve in drawn if curve.points], means)


def _learning(shown: _Study) -> Iterator[Drawing]:
    """Of the baseline, and of the variants with trainings of their own that did best and worst."""
    part, (first, baseline) = shown.table.parts[0], shown.rows[0]
    means: dict[str, tuple[float, Row]] = {}
    for variant, row in shown.rows[1:]:
        cell = row.cell(part, shown.overall, shown.metric)
        if cell.values and training_key(variant.recipe, 0, "") != training_key(first.recipe, 0, ""):
            means[row.variant] = (cell.mean, row)
    ordered = [row for _, row in sorted(means.values(), key=lambda found: found[0])]
    rows = [baseline, *ordered[-1:], *(ordered[:1] if len(ordered) > 1 else [])]
    keys = {key: row.variant for row in rows for key in row.cell(part, shown.overall, shown.metric).keys.values()}
    histories: dict[str, list[list[dict[str, Any]]]] = {row.variant: [] for row in rows}
    for trial in shown.results.rows(["key", "history"], set(keys)) if keys else []:
        if trial["history"] and trial["history"][0]["loss"] is not None:  # what does not train has none
            histories[keys[trial["key"]]].append(trial["history"])
    trained = {variant: seeds for variant, seeds in histories.items() if seeds}
    if trained:
        yield learning_curves(trained)


def _scores(shown: _Study) -> Iterator[Drawing]:
    for part, scores in _by_part(shown):
        yield score_distributions(scores, _trial(shown, part), f"scores-{part}")


def _rocs(shown: _Study) -> Iterator[Drawing]:
    for part, scores in _by_part(shown):
        yield roc_curves(scores, shown.table.year, _trial(shown, part), f"roc-{part}")


def _embeddings(shown: _Study) -> Iterator[Drawing]:
    if shown.typical is None:
        return
    (trial,) = shown.results.rows(["training_key"], {shown.typical[2]})
    table = shown.results.read_embeddings(trial["training_key"])
    if table is None:
        return
    clips = table.drop_columns(["z"]).to_pandas()
    z_ND = table["z"].combine_chunks().flatten().to_numpy().reshape(len(clips), -1)
    for part in shown.table.parts:
        chosen = (clips["part"] == part).to_numpy()
        if chosen.sum() > 2:
            yield embedding_map(clips[chosen], z_ND[chosen], _trial(shown, part), shown.map_name, f"embeddings-{part}")


KINDS: dict[str, Callable[[_Study], Iterator[Drawing]]] = {
    "forest": _forests,
    "curve": _curves,
    "seeds": _seeds,
    "learning": _learning,
    "scores": _scores,
    "roc": _rocs,
    "embeddings": _embeddings,
}
"""The kinds of figures of a comparing study, in the order in which they are shown."""
SEARCH_KINDS = ("history", "ranking", "importances")
"""Those of a search."""


def _by_part(shown: _Study) -> Iterator[tuple[str, pd.DataFrame]]:
    """The test clips of the typical trial, of sections with clips of both kinds."""
    for part in shown.table.parts:
        own = shown.scores.loc[shown.scores["part"] == part]
        both = own.groupby(["machine", "section"])["label"].transform("nunique") == 2
        if both.any():
            yield part, own.loc[both]


def _trial(shown: _Study, part: str) -> str:
    """What a figure of single trials says of whose clips and which trial it shows."""
    machines = [machine for machine in shown.table.machines if machine != ALL_MACHINES]
    of = machines[0] if len(machines) == 1 else f"{len(machines)} machines"
    row, seed, _ = shown.typical or (shown.rows[0][1], 0, "")
    return f"{of}, {part}: {row.variant}, seed {seed}"


def _machines(machine: str) -> str:
    return "mean over machines" if machine == ALL_MACHINES else machine


def _farthest(differences: Mapping[str, float]) -> list[str]:
    """Those that a figure has room for, in their order: where there are too many, those farthest from zero."""
    far = sorted(differences, key=lambda variant: -abs(np.nan_to_num(differences[variant])))[:_MOST_ROWS]
    return [variant for variant in differences if variant in far]


def _of(chosen: Collection[str], of: Collection[str]) -> str:
    return f" (the {len(chosen)} of {len(of)} that differ most)" if len(chosen) < len(of) else ""


def _mean(values: Collection[float]) -> float:
    return float(np.mean(list(values))) if values else float("nan")
