"""The table of a study: variants x machines over seeds, from the metrics that the trials keep."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raysd.detect.metrics import ALL_MACHINES, averaging, headline_metrics
from raysd.errors import BadInput
from raysd.paper.statistics import mean, paired_differences, standard_deviation
from raysd.recipe import NUMERICS, recipe_key
from raysd.results.provenance import CHECKPOINT_RULE, train_sets
from raysd.results.store import Record, Results

if TYPE_CHECKING:
    from raysd.study.design import LoadedStudy, Variant

CSV_COLUMNS = (
    *("study", "profile", "year", "data_fingerprint", "train_sets", "checkpoint"),
    *("part", "variant", "role", "machine", "metric", "mean", "sd", "n", "wanted"),
    *("difference", "difference_sd", "difference_n", "keys"),
)
"""The columns of a table as CSV; values are fractions of 1, `keys` the trials behind a cell."""

ORACLE = "ORACLE: chosen on test labels, no comparison with anything"
"""The first line of whatever shows what was chosen on test labels."""
TITLES = {
    "auc": "AUC",
    "pauc": "pAUC",
    "auc_source": "AUC source",
    "auc_target": "AUC target",
    "pauc_source": "pAUC source",
    "pauc_target": "pAUC target",
    "official": "official score",
}


@dataclass(frozen=True)
class Cell:
    """One variant on one machine by one metric: a value of each seed, and the trial behind it."""

    values: dict[int, float] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return float(mean(np.array(list(self.values.values()), dtype=float)))

    @property
    def sd(self) -> float:
        return float(standard_deviation(np.array(list(self.values.values()), dtype=float)))


@dataclass(frozen=True)
class Row:
    """One variant; `cells` by (part, machine, metric)."""

    variant: str
    role: str
    wanted: int
    """Seeds that the study asks for."""
    found: int
    """Finished trials."""
    cells: dict[tuple[str, str, str], Cell]

    @property
    def label(self) -> str:
        return f"{self.variant} (reference)" if self.role == "reference" else self.variant


@dataclass(frozen=True)
class StudyTable:
    """A study on one corpus. Values are fractions of 1; what is printed is in percent."""

    study: str
    question: str
    profile: str | None
    year: int
    fingerprint: str
    train_sets: str
    parts: tuple[str, ...]
    machines: tuple[str, ...]
    """`all`, the mean over them, is the last where there are several."""
    metrics: tuple[str, ...]
    """The metric of comparison first."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    oracle: bool = False
    """Something in it was chosen on test labels."""

    def caption(self) -> list[str]:
        """What holds for the whole table, line by line."""
        return [
            *([ORACLE] if self.oracle else []),
            f"data: DCASE {self.year}, {', '.join(m for m in self.machines if m != ALL_MACHINES)} "
            f"(fingerprint {self.fingerprint})",
            f"profile: {self.profile or 'none'}; trained on: {self.train_sets}; checkpoint: {CHECKPOINT_RULE}",
            "percent; mean ± standard deviation over seeds; differences are paired by seed, n in brackets",
            *self.notes,
        ]

    def to_markdown(self) -> str:
        """A heading, the caption, and a table for each part and metric."""
        lines = [f"## {self.study}", "", escaped(self.question), "", *(f"- {line}" for line in self.caption())]
        for title, header, rows, reference_at in self.grids():
            lines += ["", f"### {title}", "", as_row(header), as_row(["---", *["---:"] * (len(header) - 1)])]
            for i, row in enumerate(rows):
                if i == reference_at:
                    lines.append(as_row(["*references, not compared*", *[""] * (len(header) - 1)]))
                lines.append(as_row(row))
        return "\n".join(lines) + "\n"

    def to_rich(self) -> Group:
        """The same for a terminal."""
        grids = []
        for title, header, rows, reference_at in self.grids():
            grid = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
            for name in header:
                grid.add_column(name, justify="right" if grid.columns else "left", overflow="fold")
            for i, row in enumerate(rows):
                grid.add_row(*map(Text, row), end_section=i + 1 == reference_at)
            grids.append(grid)
        heading = Text(f"{self.study}: {self.question}", style="bold")
        return Group(heading, *(Text(line) for line in self.caption()), *grids)

    def to_csv(self) -> str:
        """One line a cell in full precision, as fractions of 1, with the keys of the trials behind it.

        Where something was chosen on test labels, a line above the header says so.
        """
        text = io.StringIO()
        text.write(f"{ORACLE}\n" if self.oracle else "")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        shared = [self.study, self.profile, self.year, self.fingerprint, self.train_sets, CHECKPOINT_RULE]
        for part in self.parts:
            for row in self.rows:
                for machine in self.machines:
                    for metric in self.metrics:
                        cell = row.cells.get((part, machine, metric), Cell())
                        change = self._difference(row, part, machine, metric)
                        numbers = [cell.mean, cell.sd, len(cell.values), row.wanted]
                        numbers += [float(mean(change)), float(standard_deviation(change)), len(change)]
                        writer.writerow(
                            [*shared, part, row.variant, row.role, machine, metric]
                            + ["" if isinstance(number, float) and np.isnan(number) else number for number in numbers]
                            + [" ".join(cell.keys[seed] for seed in sorted(cell.keys))]
                        )
        return text.getvalue()

    def _difference(self, row: Row, part: str, machine: str, metric: str) -> np.ndarray:
        """(num_shared_seeds,): the variant's values less the baseline's; empty where the row is not compared."""
        if row.role != "variant":
            return np.array([])
        at = (part, machine, metric)
        return paired_differences(self.rows[0].cells.get(at, Cell()).values, row.cells.get(at, Cell()).values)

    def grids(self) -> Iterator[tuple[str, list[str], list[list[str]], int]]:
        """For each part and metric: title, header, rows of text, and the index of the first reference."""
        reference_at = sum(row.role != "reference" for row in self.rows)
        last = self.machines[-1]
        for part in self.parts:
            for metric in self.metrics:
                title = f"{TITLES.get(metric, metric)}, {part}"
                header = [
                    "variant",
                    "seeds",
                    *self.machines,
                    "difference" + (f", {last}" if last == ALL_MACHINES else ""),
                ]
                rows = [
                    [
                        row.label,
                        f"{row.found}/{row.wanted}",
                        *(_value(row, (part, machine, metric)) for machine in self.machines),
                        _signed(self._difference(row, part, last, metric)),
                    ]
                    for row in self.rows
                ]
                yield title, header, rows, reference_at
            compared = [row for row in self.rows if row.role == "variant"]
            if compared and len(self.machines) > 1:
                metric = self.metrics[0]
                title = f"Difference to the baseline in {TITLES.get(metric, metric)}, {part}"
                rows = [
                    [row.label, *(_signed(self._difference(row, part, machine, metric)) for machine in self.machines)]
                    for row in compared
                ]
                yield title, ["variant", *self.machines], rows, -1


def study_tables(study: "LoadedStudy", results: Results, fingerprint: str | None = None) -> list[StudyTable]:
    """The study's table on the corpus of `fingerprint`, or one on each corpus that it was run on.

    Only trials of the study's own recipes, seeds and the current numerics count, whichever study ran them. Raises
    BadInput where there are none.
    """
    variants = {recipe_key(variant.recipe): variant for variant in study.variants}
    asked = {key: study.seeds_of(variant) for key, variant in variants.items()}
    found = results.rows(["key", "recipe_key", "numerics", "seed"])
    found = [row for row in found if row["seed"] in asked.get(row["recipe_key"], ())]
    current = {row["key"] for row in found if row["numerics"] == NUMERICS}
    old = len(found) - len(current)
    notes = (f"left out: {old} trials of another revision of the numerics",) if old else ()
    trials = results.rows(["key", "recipe_key", "seed", "data_fingerprint", "metrics", "provenance"], current)

    same_data = {key for key, variant in variants.items() if variant.recipe.data == study.baseline.recipe.data}
    corpora = sorted({trial["data_fingerprint"] for trial in trials if trial["recipe_key"] in same_data})
    chosen = [corpus for corpus in corpora if fingerprint in (None, corpus)]
    if not chosen:
        on = f" on the data {fingerprint}" if fingerprint else ""
        raise BadInput(f"{results}: no finished trial of study {study.name}{on}; first: raysd run {study.name}")
    tables = []
    for corpus in chosen:
        keys = (t["key"] for t in trials if t["data_fingerprint"] == corpus and t["recipe_key"] in same_data)
        lacking = _unmeasured(results.read(next(keys)))
        more = (f"not in all means, for want of labelled test clips of either kind: {', '.join(lacking)}",)
        tables.append(_table(study, trials, variants, same_data, corpus, notes + (more if lacking else ())))
    return tables


def _unmeasured(record: Record) -> list[str]:
    """The sections that have test clips but not all figures: no labels, one class only, or one domain only."""
    wanted = set(headline_metrics(record.year)) - {"official"}
    found: dict[tuple[str, str, str], set[str]] = {}
    for clip in record.scores:
        if clip["split"] == "test":
            found.setdefault((clip["part"], clip["machine"], clip["section"]), set())
    for row in record.metrics:
        found.get((row["part"], row["machine"], row["section"]), set()).add(row["metric"])
    return [f"{machine} {section}" for (_, machine, section), metrics in sorted(found.items()) if not wanted <= metrics]


def _table(
    study: "LoadedStudy",
    trials: list[dict[str, Any]],
    variants: "dict[str, Variant]",
    same_data: set[str],
    corpus: str,
    notes: tuple[str, ...],
) -> StudyTable:
    year = study.baseline.recipe.data.year
    notes = (*notes, *study.notes)
    rows, skipped = [], set()
    for key, variant in variants.items():
        own = [trial for trial in trials if trial["recipe_key"] == key]
        if key in same_data:
            own = [trial for trial in own if trial["data_fingerprint"] == corpus]
        elif len({trial["data_fingerprint"] for trial in own}) > 1:  # its own data settings, run on several corpora
            notes = (*notes, f"'{variant.name}' left out: its data differ, and it was run on several corpora")
            own = []
        rows.append(Row(variant.name, variant.role, len(study.seeds_of(variant)), len(own), _cells(own, year)))
        for trial in own:
            skipped |= {json.dumps(clip) for clip in json.loads(trial["provenance"]).get("skipped", [])}
    if skipped:
        notes = (*notes, f"{len(skipped)} clips could not be read and were skipped")
    at = {position for row in rows for position in row.cells}
    machines = sorted({machine for _, machine, _ in at} - {ALL_MACHINES})
    metrics = headline_metrics(year)
    return StudyTable(
        study=study.name,
        question=study.study.question,
        profile=study.profile,
        year=year,
        fingerprint=corpus,
        train_sets=train_sets(study.baseline.recipe.data.additional),
        parts=tuple(sorted({part for part, _, _ in at})),
        machines=(*machines, ALL_MACHINES) if len(machines) > 1 else tuple(machines),
        metrics=(study.study.metric, *(metric for metric in metrics if metric != study.study.metric)),
        rows=tuple(rows),
        notes=notes,
        oracle=study.oracle,
    )


def _cells(trials: list[dict[str, Any]], year: int) -> dict[tuple[str, str, str], Cell]:
    """The headline metrics of each machine in the year's own kind of mean."""
    section, headline = averaging(year), set(headline_metrics(year))
    cells: dict[tuple[str, str, str], Cell] = {}
    for trial in trials:
        for row in trial["metrics"]:
            if row["section"] == section and row["metric"] in headline:
                cell = cells.setdefault((row["part"], row["machine"], row["metric"]), Cell())
                cell.values[trial["seed"]] = row["value"]
                cell.keys[trial["seed"]] = trial["key"]
    return cells


def _value(row: Row, at: tuple[str, str, str]) -> str:
    cell = row.cells.get(at, Cell())
    if not cell.values:
        return "-"
    text = f"{100 * cell.mean:.2f}" + (f" ± {100 * cell.sd:.2f}" if len(cell.values) > 1 else "")
    return text if len(cell.values) == row.found else f"{text} ({len(cell.values)}/{row.wanted})"


def _signed(differences: np.ndarray) -> str:
    return f"{100 * mean(differences):+.2f} ({len(differences)})" if len(differences) else ""


def as_row(cells: list[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
