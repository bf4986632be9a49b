"""What difference a number of seeds can detect, given how much a study's results scatter over seeds."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raysd.errors import BadInput
from raysd.paper.statistics import ALPHA, detectable_by_sign_flips, seeds_to_reach, smallest_p
from raysd.paper.tables import NothingFinished, StudyTable
from raysd.session import Session
from raysd.study.design import LoadedStudy
from raysd.study.plan import POWER, count
from raysd.study.spread import Spread, spread_of

SHOWN = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20)
"""Numbers of seeds, shown beside the study's own."""
MOST_SEEDS = 1000
"""More are not looked for."""


@dataclass(frozen=True)
class Power:
    """What seeds can show of a study on one part of one corpus."""

    study: str
    question: str
    metric: str
    place: str
    """The part and the corpus; empty where nothing is finished."""
    num_seeds: int
    """The study's own."""
    family: int
    """Variants that are compared with the baseline: Holm's first step asks for a p of 0.05 over this number."""
    spreads: Mapping[str, Spread | None]
    """Of each machine, the mean over all of them the last; None where fewer than two seeds are there."""
    difference: float | None = None
    """A fraction of 1, of which is asked how many seeds it takes."""

    @property
    def spread(self) -> Spread | None:
        """Of the mean over all machines, or of the only one."""
        return list(self.spreads.values())[-1] if self.spreads else None

    @property
    def alphas(self) -> tuple[float, ...]:
        """What p is held against: of one comparison, and, where there are several, of the first in Holm's order."""
        return (ALPHA, ALPHA / self.family) if self.family > 1 else (ALPHA,)

    def to_rich(self) -> Group:
        """For a terminal."""
        of = f"{self.metric}, {self.place}" if self.place else self.metric
        title = Text(f"{self.study}: {self.question}", style="bold")
        lines = [f"{of}: smallest detectable difference (exact sign-flip test, alpha {ALPHA}, power {POWER})"]
        lines.append(
            f"in points; sd of differences: {_points(self.spread.sd)}, {self.spread.source}"
            if self.spread
            else "in standard deviations of the paired differences, unknown until two seeds of the baseline are there"
        )
        parts = [title, *map(Text, lines), self._by_seeds(), *map(Text, self._what_it_takes())]
        if len(self.spreads) > 1 and self.spread:
            parts.append(self._by_machine())
        return Group(*parts)

    @property
    def titles(self) -> list[str]:
        """What each of the alphas is that of."""
        return ["one comparison", f"first of {self.family} (Holm)"][: len(self.alphas)]

    def _by_seeds(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("seeds", "least p", *self.titles):
            table.add_column(name, justify="right")
        for number in sorted({*SHOWN, self.num_seeds}):
            least = [detectable_by_sign_flips(1.0, number, POWER, alpha) for alpha in self.alphas]
            table.add_row(
                f"the study's {number}" if number == self.num_seeds else str(number),
                f"{smallest_p(number):.3g}",
                *(_size(one, self.spread) for one in least),
            )
        return table

    def _what_it_takes(self) -> list[str]:
        lines = []
        for title, alpha in zip(self.titles, self.alphas, strict=True):
            lines.append(f"{title}: needs p <= {alpha:.2g}, which takes {seeds_to_reach(alpha)} seeds or more")
            if self.difference is not None and self.spread:
                takes = _takes(self.difference, self.spread, alpha)
                lines[-1] += f"; a difference of {_points(self.difference)} takes {takes}"
        if self.difference is not None and not self.spread:
            lines.append("how many seeds a difference takes is unknown until two seeds of the baseline are there")
        return lines

    def _by_machine(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, title=f"by machine, {count(self.num_seeds, 'seed')}", title_justify="left")
        table.add_column("machine")
        takes = [] if self.difference is None else [f"seeds for {_points(self.difference)}"]
        for name in ("sd", *(heading for title in self.titles for heading in (title, *takes))):
            table.add_column(name, justify="right")
        for machine, spread in self.spreads.items():
            cells = []
            for alpha in self.alphas:
                least = detectable_by_sign_flips(1.0, self.num_seeds, POWER, alpha)
                cells.append(_size(least, spread) if spread else "-")
                if self.difference is not None:
                    cells.append(_takes(self.difference, spread, alpha).split()[0] if spread else "-")
            table.add_row(machine, f"{100 * spread.sd:.2f}" if spread else "-", *cells)
        return table


def study_power(session: Session, difference: float | None = None) -> list[Power]:
    """Of each corpus and part that the results hold trials of; of the study alone where they hold none.

    `difference` is a fraction of 1. Raises BadInput for a search, whose trials are not compared over seeds.
    """
    if session.is_search:
        raise BadInput(f"{session.study.name}: a search has one seed a recipe; ask for a study of several seeds")
    try:
        tables = [table for table in session.tables() if isinstance(table, StudyTable)]
    except NothingFinished:
        tables = []
    return power_of(session.study, tables, difference)


def power_of(study: LoadedStudy, tables: Sequence[StudyTable], difference: float | None = None) -> list[Power]:
    """The same, where the study's tables are at hand."""
    asked = study.study
    shared = (study.name, asked.question, asked.metric)
    family = sum(row.role == "variant" for row in study.variants)
    found = [
        Power(
            *shared,
            f"{part}, DCASE {table.year} (fingerprint {table.fingerprint})",
            len(asked.seeds),
            family,
            {machine: _spread(table, part, machine) for machine in table.machines},
            difference,
        )
        for table in tables
        for part in table.parts
    ]
    return found or [Power(*shared, "", len(asked.seeds), family, {}, difference)]


def seeds_for(difference: float, sd: float, alpha: float = ALPHA) -> int | None:
    """The fewest seeds that detect a difference, given the standard deviation of differences; None: more than 1000."""
    fewest = seeds_to_reach(alpha)
    numbers: Sequence[int] = range(max(2, fewest), MOST_SEEDS + 1)
    at = bisect_left(numbers, True, key=lambda n: detectable_by_sign_flips(sd, n, POWER, alpha) <= difference)
    return numbers[at] if at < len(numbers) else None


def _spread(table: StudyTable, part: str, machine: str) -> Spread | None:
    values = [dict(row.cell(part, machine, table.metrics[0]).values) for row in table.compared]
    return spread_of(values[0], values[1:])


def _size(least: float, spread: Spread | None) -> str:
    """A detectable difference, given in standard deviations."""
    if math.isinf(least):
        return "none"
    return f"{100 * spread.sd * least:.2f}" if spread else f"{least:.2f} sd"


def _takes(difference: float, spread: Spread, alpha: float) -> str:
    number = seeds_for(difference, spread.sd, alpha)
    return f">{MOST_SEEDS} seeds" if number is None else count(number, "seed")


def _points(fraction: float) -> str:
    points = f"{100 * fraction:.2g}"
    return f"{points} point" if points == "1" else f"{points} points"
