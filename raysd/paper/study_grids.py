"""The table of a study as text: its grids, and each of its numbers as it is printed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysd.detect.metrics import ALL_MACHINES
from raysd.paper.effects import Contrast
from raysd.paper.grids import Entry, Grid
from raysd.paper.statistics import Comparison
from raysd.paper.values import At, Row

if TYPE_CHECKING:
    from raysd.paper.tables import StudyTable

REFERENCES = "references, not compared"
TITLES = {
    "auc": "AUC",
    "pauc": "pAUC",
    "auc_source": "AUC source",
    "auc_target": "AUC target",
    "pauc_source": "pAUC source",
    "pauc_target": "pAUC target",
    "official": "official score",
    "proxy_perturbed": "AUC of held-out normals against perturbed copies",
    "proxy_other_sections": "AUC of held-out normals against other sections",
}
"""Metrics as they are printed."""
NOT_COMPARED = Comparison(0, math.nan, math.nan, math.nan, math.nan, math.nan, 0)
TOLD = ("mean", "sd", "n", "wanted", "difference", "low", "high", "pairs", "p", "p_holm", "family")
"""What is told of a cell."""


@dataclass(frozen=True)
class _Line:
    """A line of a grid of differences."""

    label: str
    key: str
    """Its name in keys."""
    counts: Sequence[str]
    """What stands between the label and the numbers."""
    compared: Callable[[At], Comparison | None]
    said: int
    """How many seeds the line says."""


def study_grids(table: "StudyTable") -> list[Grid]:
    """For each part: each metric with all machines; the differences to the baseline, and those of factors, if any.

    Differences stand beside the values where there is one machine.
    """
    grids = []
    for part in table.parts:
        grids += [_means(table, part, metric) for metric in table.metrics]
        first, *others = table.metrics
        of_first = [(machine, (part, machine, first)) for machine in table.machines]
        name = f"{TITLES.get(first, first)}, {part}"
        if table.variants and len(table.machines) > 1:
            of_others = [(TITLES.get(metric, metric), (part, ALL_MACHINES, metric)) for metric in others]
            grids += _differences(table, f"in {name}", of_first)
            grids += _differences(table, f"over all machines in the other metrics, {part}", of_others)
        grids += _effects(table, name, of_first)
    return grids


def told(table: "StudyTable", row: Row, at: At) -> dict[str, str]:
    """What there is to tell of a cell, each number as it is printed; see `TOLD`."""
    cell, one = row.cell(*at), table.comparison(row, *at)
    texts = {"mean": percent(cell.mean), "sd": percent(cell.sd), "n": str(len(cell.values)), "wanted": str(row.wanted)}
    return {what: text for what, text in texts.items() if text} | (told_comparison(one) if one else {})


def told_comparison(one: Comparison) -> dict[str, str]:
    """The same of a comparison alone."""
    if not one.n:
        return {}
    texts = {"difference": signed(one.difference), "low": percent(one.low), "high": percent(one.high)}
    texts |= {"pairs": str(one.n), "p": probability(one.p), "p_holm": probability(one.p_holm)}
    texts |= {"family": str(one.family) if one.n > 1 else ""}
    return {what: text for what, text in texts.items() if text}


def key_of(name: str, at: At, what: str) -> str:
    """Names a number within a table; `name` is that of a variant, or `effect_key`."""
    return "/".join((name, *at, what))


def effect_key(contrast: Contrast) -> str:
    """Of one factor alone the label may be a variant's name too."""
    return f"effect {contrast.label}"


def _means(table: "StudyTable", part: str, metric: str) -> Grid:
    """A row each, with the differences beside it where there is one machine."""
    alone, rows = bool(table.variants) and len(table.machines) == 1, []
    for row in table.rows:
        cells: list[Entry | str] = [row.label, f"{row.found}/{row.wanted}"]
        cells += [_value(table, row, (part, machine, metric)) for machine in table.machines]
        if alone:
            at = (part, table.machines[0], metric)
            one = table.comparison(row, *at)
            cells += [_difference(row.variant, at, one, len(row.cell(*at).values)), *_tests(row.variant, at, one)]
        rows.append(cells)
    header = ["variant", "seeds", *table.machines] + (["difference", "p", "p (Holm)"] if alone else [])
    references_at = len(table.compared)
    breaks = {references_at: REFERENCES} if references_at < len(rows) else {}
    return Grid(header, rows, f"{TITLES.get(metric, metric)}, {part}", breaks=breaks)


def _differences(table: "StudyTable", title: str, columns: Sequence[tuple[str, At]]) -> list[Grid]:
    """Differences to the baseline with intervals, and their p: of each column (name, what is compared)."""
    lines = []
    for row in table.variants:
        n = (table.comparison(row, *columns[-1][1]) or NOT_COMPARED).n
        lines.append(_Line(row.variant, row.variant, [str(n)], lambda at, row=row: table.comparison(row, *at), n))
    return _side_by_side(["variant", "n"], lines, "Difference to the baseline", title, columns)


def _effects(table: "StudyTable", title: str, columns: Sequence[tuple[str, At]]) -> list[Grid]:
    """Main effects and interactions of a factorial design."""
    found = {at: table.effects(*at) for _, at in columns} if table.contrasts else {}
    grids = []
    for num_factors, name, of in ((1, "Main effects", "pairs"), (2, "Two-way interactions", "quadruples")):
        chosen = [i for i, contrast in enumerate(table.contrasts) if len(contrast.factors) == num_factors]
        against = {
            f"{factor}={level}"
            for i in chosen
            for factor, level in zip(table.contrasts[i].factors, table.contrasts[i].against, strict=True)
        }
        lines = []
        for i in chosen:
            contrast, n = table.contrasts[i], found[columns[-1][1]][i].comparison.n
            counts = [str(contrast.matches), f"{n}/{len(table.seeds)}"]
            lines.append(
                _Line(contrast.label, effect_key(contrast), counts, lambda at, i=i: found[at][i].comparison, n)
            )
        if lines:
            header = ["factor", f"{of} of variants", "seeds"]
            against = ", ".join(sorted(against))
            grids += _side_by_side(header, lines, name, f"against {against}: {title}", columns)
    return grids


def _side_by_side(
    header: Sequence[str], lines: Sequence[_Line], name: str, title: str, columns: Sequence[tuple[str, At]]
) -> list[Grid]:
    """Of one column a grid with all that is to say; of several one with differences, and one with p."""
    if len(columns) == 1:
        at, rows = columns[0][1], []
        for line in lines:
            one = line.compared(at)
            rows.append([line.label, *line.counts, _difference(line.key, at, one, line.said)])
            rows[-1] += _tests(line.key, at, one)
        return [Grid([*header, "difference", "p", "p (Holm)"], rows, f"{name} {title}")]
    differences, tests = [], []
    for line in lines:
        start = [line.label, *line.counts]
        compared = [(at, line.compared(at)) for _, at in columns]
        differences.append([*start, *(_difference(line.key, at, one, line.said) for at, one in compared)])
        tests.append([*start, *(_both_p(line.key, at, one) for at, one in compared)])
    header = [*header, *(column for column, _ in columns)]
    return [
        Grid(header, differences, f"{name} {title}"),
        Grid(header, tests, f"{name} {title}: p, and in brackets after Holm"),
    ]


def _value(table: "StudyTable", row: Row, at: At) -> Entry:
    cell, text = row.cell(*at), "-"
    if cell.values:
        text = percent(cell.mean) + (f" ± {percent(cell.sd)}" if len(cell.values) > 1 else "")
        text += "" if len(cell.values) == row.found else f" ({len(cell.values)}/{row.wanted})"
    return Entry(text, *table.standing(*at).marks(row), key=key_of(row.variant, at, "mean"))


def _difference(name: str, at: At, one: Comparison | None, said: int) -> Entry:
    """`said` is what the line says already of how many seeds are compared."""
    text = ""
    if one and one.n:
        text = signed(one.difference) + (f" [{percent(one.low)}, {percent(one.high)}]" if one.n > 1 else "")
        text += f" (n {one.n})" if one.n != said else ""
    return Entry(text, key=key_of(name, at, "difference"))


def _tests(name: str, at: At, one: Comparison | None) -> list[Entry]:
    """p, and p after Holm. Where there are pairs, but too few, it is said."""
    one = one or NOT_COMPARED
    p = "no test" if one.n == 1 else probability(one.p)
    return [Entry(p, key=key_of(name, at, "p")), Entry(probability(one.p_holm), key=key_of(name, at, "p_holm"))]


def _both_p(name: str, at: At, one: Comparison | None) -> Entry:
    p, after = _tests(name, at, one)
    return Entry(f"{p.text} ({after.text})" if after.text else p.text, key=p.key)


def percent(value: float) -> str:
    """Nothing where there is no number."""
    return "" if math.isnan(value) else f"{100 * value:.2f}"


def signed(value: float) -> str:
    return f"{100 * value:+.2f}"


def probability(p: float) -> str:
    """Nothing where there is no test."""
    return "" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
