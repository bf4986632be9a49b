"""The table of a search: its suggestions by objective, with the official metrics that the search never looked at."""

import csv
import io
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from rich.console import RenderableType

from raysd.detect.metrics import headline_metrics
from raysd.paper import formats
from raysd.paper.grids import Entry, Grid, Sheet
from raysd.paper.study_grids import REFERENCES, TITLES
from raysd.paper.tables import ORACLE
from raysd.paper.terminal import terminal
from raysd.results.provenance import CHECKPOINT_RULE
from raysd.results.searches import STATES

CSV_COLUMNS = (
    *("study", "profile", "year", "data_fingerprint", "train_sets", "checkpoint", "oracle"),
    *("variant", "role", "number", "state", "objective_metric", "objective", "epochs", "key"),
)
"""The first columns of a search as CSV; one for each metric and part, and one for each factor, follow."""

CHOICES_SHOWN = 5
"""On a terminal."""
_PROXY_TITLES = {"proxy_perturbed": "perturbed-copies proxy", "proxy_other_sections": "other-sections proxy"}


@dataclass(frozen=True)
class SearchRow:
    """One suggestion, or one reference. Values are fractions of 1; None where there is none."""

    name: str
    role: str
    """`baseline`, `variant` or `reference`."""
    state: str
    key: str
    number: int | None
    """Of the suggestion."""
    objective: float | None
    epochs: int | None
    metrics: dict[tuple[str, str], float]
    """(part, metric) -> its value over all machines."""
    choices: dict[str, Any]


@dataclass(frozen=True)
class SearchTable(formats.Printed):
    """A search on one corpus. Rows: what is finished, the best first; what was pruned, is under way, has failed; the
    references, which have no objective."""

    study: str
    question: str
    profile: str | None
    year: int
    fingerprint: str
    train_sets: str
    objective: str
    """The metric that is maximised."""
    held_out: float
    """Share of the training clips that the objective is measured on."""
    oracle: bool
    """Whether test labels have chosen anything in it: the suggestions, or a recipe that it starts from."""
    seed: int
    machines: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    """(part, metric), the study's metric first."""
    factors: tuple[str, ...]
    rows: tuple[SearchRow, ...]

    @property
    def stamp(self) -> list[str]:
        """What every form starts with: nothing, unless test labels were looked at."""
        return [ORACLE] if self.oracle else []

    @property
    def references_at(self) -> int:
        """The row from which on they are references."""
        return sum(row.role != "reference" for row in self.rows)

    def caption(self) -> list[str]:
        """What holds for the whole table, line by line."""
        suggestions = [row for row in self.rows if row.number is not None]
        counts = Counter(row.state for row in suggestions)
        states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        held_out = f"on {100 * self.held_out:g} % of the training clips, held out"
        seen = "on test clips" if self.objective in headline_metrics(self.year) else held_out
        lines = [
            f"data: DCASE {self.year}, {', '.join(self.machines) or 'nothing scored yet'} "
            f"(fingerprint {self.fingerprint})",
            f"profile: {self.profile or 'none'}; trained on: {self.train_sets}; checkpoint: {CHECKPOINT_RULE}; "
            f"seed {self.seed}",
            f"{len(suggestions)} suggestions: {states}; objective: {title(self.objective)}, {seen}; percent",
        ]
        if counts["pruned"]:
            lines.append("the objective of a pruned suggestion is that after its last epoch")
        if any(row.state == "failed" and not row.key for row in suggestions):
            lines.append("a suggestion without a trial failed because the levels drawn for it exclude each other")
        winner, distinct = suggestions[0], len({row.key for row in suggestions if row.state == "done"})
        if winner.state == "done" and winner.role != "baseline":
            lines.append(
                f"the first row is the best of {distinct}, with one seed: its values are optimistic; for an honest "
                f"number promote it (raysd promote {self.study} --as FILE) and run it with fresh seeds"
            )
        return lines

    def grid(self) -> Grid:
        """A row a suggestion, with its choices."""
        parts = {part for part, _ in self.columns}
        metrics = [title(metric) + (f", {part}" if len(parts) > 1 else "") for part, metric in self.columns]
        rows = [
            [
                _name(row),
                row.state,
                Entry(_percent(row.objective), key=f"{row.name}/{self.objective}"),
                *(Entry(_percent(row.metrics.get(at)), key=f"{row.name}/{'/'.join(at)}") for at in self.columns),
                "-" if row.epochs is None else str(row.epochs),
                *(Entry(_choice(row.choices.get(name)), key=f"{row.name}/{name}") for name in self.factors),
            ]
            for row in self.rows
        ]
        header = ["suggestion", "state", title(self.objective), *metrics, "epochs", *self.factors]
        words = {0, 1, *range(len(header) - len(self.factors), len(header))}
        breaks = {self.references_at: REFERENCES} if self.references_at < len(rows) else {}
        return Grid(header, rows, words=words, breaks=breaks)

    def sheet(self) -> Sheet:
        return Sheet(self.study, self.question, self.caption(), [self.grid()], self.stamp)

    def to_macros(self) -> str:
        """Every number as a LaTeX macro: \\raysd{STUDY/SUGGESTION/WHAT}."""
        whats = [self.objective, *("/".join(column) for column in self.columns), *self.factors]
        keys = f"KEY: {self.study}/SUGGESTION/WHAT with WHAT one of {', '.join(whats)}"
        return formats.macros(self.study, formats.cells_of(self.sheet()), [*self.stamp, keys, *self.caption()])

    def to_rich(self) -> RenderableType:
        """The same for a terminal, with the choices of the best alone, in one column: all would fill many screens."""
        grid = self.grid()
        first = len(grid.header) - len(self.factors)
        rows = []
        for i, row in enumerate(grid.entries()):
            chosen = zip(self.factors, row[first:] if i < CHOICES_SHOWN else (), strict=False)
            rows.append([*row[:first], "; ".join(f"{name} {it.text}" for name, it in chosen if it.text != "-")])
        choices = f"choices (of the best {CHOICES_SHOWN}; --format markdown has all)"
        short = replace(grid, header=[*grid.header[:first], choices], rows=rows, words={0, 1, first})
        return terminal(replace(self.sheet(), grids=[short]))

    def to_csv(self) -> str:
        """One line a suggestion in full precision, as fractions of 1, with its choices and the key of its trial.

        For an oracle a line stands above the header that says so.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        text.writelines(f"{line}\n" for line in self.stamp)
        metrics = [f"{metric}_{part}" for part, metric in self.columns]
        writer.writerow([*CSV_COLUMNS, *metrics, *(f"choice_{factor}" for factor in self.factors)])
        shared = [self.study, self.profile, self.year, self.fingerprint, self.train_sets, CHECKPOINT_RULE, self.oracle]
        for row in self.rows:
            own = [row.name, row.role, row.number, row.state, self.objective, row.objective, row.epochs, row.key]
            measured = [row.metrics.get(column) for column in self.columns]
            writer.writerow([*shared, *own, *measured, *(row.choices.get(factor) for factor in self.factors)])
        return text.getvalue()


def title(metric: str) -> str:
    """A metric as it is printed."""
    return (TITLES | _PROXY_TITLES).get(metric, metric)


def _name(row: SearchRow) -> str:
    number = "" if row.number is None else f"{row.number}"
    return {"baseline": f"{number} (baseline)", "variant": number}.get(row.role, f"{row.name} (reference)")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _choice(value: Any) -> str:
    """A number as it is read best; the name of a level; a stroke where the factor means nothing."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
