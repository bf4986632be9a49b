"""The comparison table of a year: what is published beside what a study found, by machine type and on average.

Published figures stand as their sources print them, under the kind of mean that they were taken with, and ours in the
same mean below them. Nothing published is averaged, tested or set off against ours.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from raysd.data.years import YEARS, Part
from raysd.detect.metrics import ALL_MACHINES, MEANS, averaging, headline_metrics
from raysd.errors import BadInput
from raysd.paper import formats
from raysd.paper.gaps import data_gaps, has_all_sections, sections_by_machine
from raysd.paper.grids import Entry, Grid, Sheet
from raysd.paper.published import CAVEATS, INCREASES, Mean, Published, System, increases_of, read_published, systems_of
from raysd.paper.study_grids import TITLES
from raysd.paper.tables import ORACLE, NothingFinished, StudyTable, study_tables
from raysd.paper.values import Cell, Row
from raysd.results.provenance import CHECKPOINT_RULE
from raysd.results.store import Results

if TYPE_CHECKING:
    from raysd.study.design import LoadedStudy

PARTS: tuple[Part, ...] = ("dev", "eval")
OTHER_DATA = "other_data"
"""Key of the footnote at our rows where ours is not the whole data set of the year."""
CSV_COLUMNS = (
    *("year", "part", "origin", "system", "published", "mean", "machine", "metric", "value_percent", "sd_percent"),
    *("n", "wanted", "averaging", "caveats", "source", "keys"),
)
"""The columns of the comparison as CSV. `origin` is `published` or `ours`, `published` a publication's year, `mean` the
kind of mean; an increase over a baseline has its metric as `increase_...`. `keys` are the trials behind our cells."""

Column = tuple[str, str, str]
"""Heading, machine, metric."""
_KINDS: dict[Mean, tuple[str, str]] = {
    "arithmetic": ("arithmetic_mean", ""),
    "harmonic": ("harmonic_mean", ""),
    "pooled": ("arithmetic_mean", "_pooled"),  # over machines, of what is pooled within each
}
"""Kind of mean -> the `section` of its rows in the results, and how its metrics end there."""


@dataclass(frozen=True)
class YearComparison(formats.Printed):
    """What is published on the data of a year, and what a study found on them."""

    year: int
    figures: Sequence[Published]
    study: str
    question: str
    table: StudyTable | None = None
    """The study's own; None where it has no finished trial."""
    ours: Mapping[Mean, Sequence[Row]] = field(default_factory=dict)
    """Our rows in each kind of mean."""
    gaps: Mapping[Part, Sequence[str]] = field(default_factory=dict)
    """What our data lack of the year's, of the parts that were scored; empty where it is all there."""
    averaged: frozenset[Part] = frozenset()
    """The parts of which ours has all machine types and sections, so that our average means what the others' do."""

    @cached_property
    def sources(self) -> Mapping[str, int]:
        """Where the published figures are from -> the number in brackets."""
        systems = [system for part in PARTS for system in systems_of(self.figures, self.year, part)]
        found: dict[str, int] = {}
        for system in [*systems, *increases_of(self.figures, self.year)]:
            for figure in system.values.values():
                found.setdefault(figure.source, len(found) + 1)
        return found

    def sheet(self) -> Sheet:
        stamps = [ORACLE] if self.table and self.table.oracle else []
        grids = [*self._increases(), *(grid for part in PARTS for grid in self._of_part(part))]
        title = f"DCASE {self.year}: published systems and study {self.study}"
        return Sheet(title, self.question, self.caption(), [*grids, self._source_list()], stamps)

    def caption(self) -> list[str]:
        """What holds for all grids, line by line."""
        return [
            "percent; published figures stand as their sources print them, with two decimals at most, under the mean "
            "that they were taken with; numbers in brackets: sources, below",
            "nothing published is computed anew, tested, or set off against ours",
            "letters: what is known to keep a figure from being compared; no letter means that nothing is known, not "
            "that there is nothing",
            "order: by the last column or, where that is empty, by the mean of the others; with gaps in both, last",
            f"official score: {YEARS[self.year].score_name}",
            *(self._of_ours(self.table) if self.table else [f"ours: no finished trial of study {self.study}"]),
        ]

    def _of_ours(self, table: StudyTable) -> list[str]:
        seeds = ", ".join(map(str, table.seeds))
        lines = [
            f"ours: study {table.study}, profile {table.profile or 'none'}; trained on: {table.train_sets}; "
            f"checkpoint: {CHECKPOINT_RULE}; data: fingerprint {table.fingerprint}; code: {', '.join(table.revisions)}",
            f"ours: mean ± standard deviation over n = {len(table.seeds)} seeds ({seeds})",
        ]
        for part in PARTS:
            if part not in self.gaps:
                lines.append(f"ours: no scores on the {_long(part)}")
                continue
            if self.gaps[part]:
                what = "; ".join(self.gaps[part])
                lines.append(f"NOT COMPARABLE: ours is not the {_long(part)} of the published rows: {what}")
            if part not in self.averaged:
                lines.append(f"ours: no average over machine types on the {_long(part)}, as not all are there")
        return [*lines, *table.notes]

    def _of_part(self, part: Part) -> Iterator[Grid]:
        """The averages, then each metric by machine type, as far as anything of the kind is published."""
        metrics = headline_metrics(self.year)
        averages = [(TITLES.get(metric, metric), ALL_MACHINES, metric) for metric in metrics]
        yield self._grid(f"Averages over machine types, {_long(part)}", part, averages)
        systems = systems_of(self.figures, self.year, part)
        for metric in metrics:
            machines = list(sections_by_machine(self.year, part))
            if any((machine, metric) in system.values for system in systems for machine in machines):
                columns = [(machine, machine, metric) for machine in machines]
                title = f"{TITLES.get(metric, metric)} by machine type, {_long(part)}"
                yield self._grid(title, part, [*columns, ("average", ALL_MACHINES, metric)], machines)

    def _increases(self) -> Iterator[Grid]:
        """What is reported without values: a grid of its own, for there is nothing in it to stand beside."""
        columns = [(name, ALL_MACHINES, metric) for metric, name in INCREASES.items()]
        rows = [self._published_row(system, "", columns) for system in increases_of(self.figures, self.year)]
        if rows:
            header, footnotes = ["system", "seeds", *INCREASES.values()], _footnotes(rows)
            yield Grid(header, rows, "Increases as they are reported, no values", (0,), footnotes=footnotes)

    def _grid(self, title: str, part: Part, columns: Sequence[Column], needed: Sequence[str] = ()) -> Grid:
        """Blocks of rows, one for each kind of mean, published and ours; a row has a value of a machine in `needed`."""
        rows: list[list[Entry | str]] = []
        breaks: dict[int, str] = {}
        for heading, block in self._blocks(part, columns, needed or [ALL_MACHINES]):
            if block:
                breaks[len(rows)] = heading
                rows += block
        header = ["system", "seeds", *(name for name, *_ in columns)]
        return Grid(header, rows, title, (0,), breaks, _footnotes(rows))

    def _blocks(
        self, part: Part, columns: Sequence[Column], needed: Sequence[str]
    ) -> Iterator[tuple[str, list[list[Entry | str]]]]:
        metrics = {metric for *_, metric in columns}
        systems = [
            system
            for system in systems_of(self.figures, self.year, part)
            if any(machine in needed and metric in metrics for machine, metric in system.values)
        ]
        target = [system for system in systems if system.is_target]
        yield "the paper that is asked about, as others report it", self._published_rows(target, part, columns)
        own = averaging(self.year).removesuffix("_mean")
        for mean in sorted(_WORDS, key=lambda mean: mean != own):  # stable: the year's own first
            words = _WORDS[mean].format(sections=f"{YEARS[self.year].section_prefix}s")
            others = [system for system in systems if system.mean == mean and not system.is_target]
            others.sort(key=_order(columns), reverse=True)
            yield f"as published, {words}", self._published_rows(others, part, columns)
            if mean == own:
                yield f"ours, {words}", self._our_rows(self.ours.get(mean, ()), mean, part, columns, needed)
            elif others:  # beside what is published so; the study's other rows stand in the CSV
                yield f"ours, {words}", self._our_rows(self.ours.get(mean, ())[:1], mean, part, columns, needed)

    def _published_rows(
        self, systems: Sequence[System], part: Part, columns: Sequence[Column]
    ) -> list[list[Entry | str]]:
        return [self._published_row(system, part, columns) for system in systems]

    def _published_row(self, system: System, part: str, columns: Sequence[Column]) -> list[Entry | str]:
        figures = [system.values.get((machine, metric)) for _, machine, metric in columns]
        there = [figure for figure in figures if figure]
        shared = [key for key in CAVEATS if all(key in figure.caveats for figure in there)]
        sources = sorted({self.sources[figure.source] for figure in there})
        name = re.sub(r" \(sd [0-9.]+\)$", "", system.name)  # it stands at the number
        label = Entry(f"{name} [{', '.join(map(str, sources))}]", notes=shared)
        seeds = {figure.num_seeds for figure in there}
        row: list[Entry | str] = [label, seeds.pop() if len(seeds) == 1 else ""]
        for (_, machine, metric), figure in zip(columns, figures, strict=True):
            if figure is None:
                row.append("")
                continue
            key = f"{system.name}/{part}/{machine}/{metric}/published, {system.mean}"
            row.append(Entry(_as_printed(figure), notes=[k for k in figure.caveats if k not in shared], key=key))
        return row

    def _our_rows(
        self, ours: Sequence[Row], mean: Mean, part: Part, columns: Sequence[Column], needed: Sequence[str]
    ) -> list[list[Entry | str]]:
        rows: list[list[Entry | str]] = []
        for row in ours:
            shown = [(machine, metric) for _, machine, metric in columns if self._has_average(part, machine)]
            if not any(row.cell(part, *at).values for at in shown if at[0] in needed):
                continue
            cells: list[Entry | str] = [Entry(row.label, notes=[OTHER_DATA] if self.gaps.get(part) else [])]
            cells.append(f"{row.found}/{row.wanted}")
            for _, machine, metric in columns:
                cell = row.cell(part, machine, metric) if (machine, metric) in shown else Cell()
                key = f"{row.variant}/{part}/{machine}/{metric}/ours, {mean}"
                cells.append(Entry(_ours(cell, row), key=key) if cell.values else "")
            rows.append(cells)
        return rows

    def _has_average(self, part: Part, machine: str) -> bool:
        return machine != ALL_MACHINES or part in self.averaged

    def _source_list(self) -> Grid:
        """The numbered sources, and what each says of its averages."""
        told: dict[str, dict[str, None]] = {source: {} for source in self.sources}
        for figure in self.figures:
            if figure.source in told and figure.dataset.startswith(f"dcase{self.year}"):
                told[figure.source][figure.averaging.partition("; sd ")[0].removesuffix("; deterministic")] = None
        rows = [[f"[{number}]", source, "; ".join(told[source])] for source, number in self.sources.items()]
        return Grid(["", "source", "averaging, in its words"], rows, "Sources of the published figures", (0, 1, 2))

    def to_macros(self) -> str:
        """A LaTeX command for each cell, by `dcase2020/SYSTEM/PART/MACHINE/METRIC/published, MEAN`, or `ours, MEAN`."""
        sheet = self.sheet()
        cells = formats.cells_of(replace(sheet, name=f"dcase{self.year}"))
        return formats.macros(sheet.name, cells, [*sheet.stamps, *sheet.caption])

    def to_csv(self) -> str:
        """One line a figure: the published as in published.csv, ours in full precision."""
        text = io.StringIO()
        text.write(f"{ORACLE}\n" if self.table and self.table.oracle else "")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for system in increases_of(self.figures, self.year):
            writer.writerows(self._published_lines(system))
        for part in PARTS:
            for system in systems_of(self.figures, self.year, part):
                writer.writerows(self._published_lines(system))
            for mean, rows in self.ours.items():
                for row in rows:
                    for (own_part, machine, metric), cell in row.cells.items():
                        if own_part == part and self._has_average(part, machine):
                            writer.writerow(self._our_line(mean, part, machine, metric, row, cell))
        return text.getvalue()

    def _published_lines(self, system: System) -> Iterator[list[object]]:
        for (machine, metric), figure in system.values.items():
            first = [self.year, figure.part, "published", system.name, system.year, system.mean, machine, metric]
            told = [figure.value_percent, figure.sd_percent, figure.num_seeds, "", figure.averaging]
            yield [*first, *told, " ".join(figure.caveats), figure.source, ""]

    def _our_line(self, mean: Mean, part: Part, machine: str, metric: str, row: Row, cell: Cell) -> list[object]:
        sd = 100 * cell.sd if len(cell.values) > 1 else ""
        keys = " ".join(cell.keys[seed] for seed in sorted(cell.keys))
        caveat = OTHER_DATA if self.gaps.get(part) else ""
        numbers = [100 * cell.mean, sd, len(cell.values), row.wanted]
        return [self.year, part, "ours", row.label, "", mean, machine, metric, *numbers, "", caveat, "", keys]


_WORDS: dict[Mean, str] = {
    "arithmetic": "arithmetic means over {sections} and machine types",
    "harmonic": "harmonic means over {sections} and machine types",
    "pooled": "all {sections} of a machine type pooled",
    "unknown": "averaging not stated",
}


def _long(part: Part) -> str:
    return {"dev": "development data", "eval": "evaluation data"}[part]


def _footnotes(rows: Sequence[Sequence[Entry | str]]) -> dict[str, str]:
    """The footnotes that the rows call for."""
    other = "not the data of the published rows, so not comparable with them: see the caption"
    used = {note for row in rows for cell in row if isinstance(cell, Entry) for note in cell.notes}
    return {key: text for key, text in (CAVEATS | {OTHER_DATA: other}).items() if key in used}


def _as_printed(figure: Published) -> str:
    if figure.metric in INCREASES:
        return f"+{figure.value_percent} over its baseline"
    _, _, decimals = figure.value_percent.partition(".")
    value = f"{float(figure.value_percent):.2f}" if len(decimals) > 2 else figure.value_percent
    return f"{value} ± {figure.sd_percent}" if figure.sd_percent else value


def _ours(cell: Cell, row: Row) -> str:
    text = f"{100 * cell.mean:.2f}" + (f" ± {100 * cell.sd:.2f}" if len(cell.values) > 1 else "")
    return text if len(cell.values) == row.found else f"{text} ({len(cell.values)}/{row.wanted})"


def _order(columns: Sequence[Column]) -> Callable[[System], tuple[bool, float]]:
    """Systems by what the grid shows last, the average or the official score, where it is printed; else by the mean of
    what would give it, where all of that is; else after all others. The mean serves the order alone."""
    *others, last = [(machine, metric) for _, machine, metric in columns]

    def rank(system: System) -> tuple[bool, float]:
        if last in system.values:
            return True, float(system.values[last].value_percent)
        values = [float(system.values[at].value_percent) for at in others if at in system.values]
        mean = MEANS["harmonic_mean" if system.mean == "harmonic" else "arithmetic_mean"]
        return len(values) == len(others), mean(np.array(values)) if values else 0.0

    return rank


def compare_with_published(
    study: "LoadedStudy", results: Results, fingerprint: str | None = None, figures: Sequence[Published] = ()
) -> list[YearComparison]:
    """The comparison on the study's year with its trials on the corpus of `fingerprint`, or one for each corpus that it
    was run on; without any trial, what is published. `figures` are those of published.csv, unless given.

    Raises BadInput where nothing is published on the year.
    """
    figures = figures or read_published()
    year = study.baseline.recipe.data.year
    years = sorted({int(figure.dataset[5:9]) for figure in figures})
    if year not in years:
        raise BadInput(
            f"study {study.name}: no published figures on DCASE {year} are at hand, only on "
            f"{' and '.join(map(str, years))}; --set data.year={years[0]} asks for another year"
        )
    try:
        tables = study_tables(study, results, fingerprint)
    except NothingFinished:
        return [YearComparison(year, figures, study.name, study.study.question)]
    return [_with_ours(table, results, figures) for table in tables]


def _with_ours(table: StudyTable, results: Results, figures: Sequence[Published]) -> YearComparison:
    keys = [key for row in table.rows for cell in row.cells.values() for key in cell.keys.values()]
    trials = {trial["key"]: trial for trial in results.rows(["key", "seed", "metrics"], set(keys))}
    ours: dict[Mean, Sequence[Row]] = {mean: [_in_mean(mean, row, trials) for row in table.rows] for mean in _KINDS}
    record = results.read(keys[0])
    parts: list[Part] = [part for part in PARTS if part in table.parts]
    gaps: dict[Part, Sequence[str]] = {part: data_gaps(record, part) for part in parts}
    averaged: frozenset[Part] = frozenset(part for part in parts if has_all_sections(record, part))
    return YearComparison(table.year, figures, table.study, table.question, table, ours, gaps, averaged)


def _in_mean(mean: Mean, row: Row, trials: Mapping[str, Mapping[str, Any]]) -> Row:
    """The row with its headline metrics taken in that kind of mean, as far as the results keep them so."""
    section, suffix = _KINDS[mean]
    metrics = {f"{metric}{suffix}": metric for *_, metric in row.cells}
    cells: dict[tuple[str, str, str], Cell] = {}
    for key in sorted({key for cell in row.cells.values() for key in cell.keys.values()}):
        for entry in trials[key]["metrics"]:
            if entry["section"] == section and entry["metric"] in metrics:
                cell = cells.setdefault((entry["part"], entry["machine"], metrics[entry["metric"]]), Cell())
                cell.values[trials[key]["seed"]], cell.keys[trials[key]["seed"]] = entry["value"], key
    return replace(row, cells=cells)
