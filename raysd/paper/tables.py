"""The table of a study: variants x machines over seeds, from the metrics that the trials keep."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from raysd.detect.metrics import ALL_MACHINES, averaging, headline_metrics
from raysd.detect.proxies import PROXIES
from raysd.errors import BadInput
from raysd.paper import formats
from raysd.paper.effects import Contrast, Effect, contrasts, effects
from raysd.paper.grids import Grid, Sheet
from raysd.paper.statistics import (
    ALPHA,
    RANDOM_FLIPS,
    Comparison,
    compare,
    is_exact,
    smallest_p,
    ties,
)
from raysd.paper.study_grids import NOT_COMPARED, TOLD, effect_key, key_of, study_grids, told, told_comparison
from raysd.paper.values import At, Cell, FoundTrial, Row, found_trials, on_same_data, revisions, rows_of
from raysd.recipe import recipe_key
from raysd.results.provenance import CHECKPOINT_RULE, train_sets
from raysd.results.store import Record, Results

if TYPE_CHECKING:
    from raysd.study.design import LoadedStudy

CSV_COLUMNS = (
    *("study", "profile", "year", "data_fingerprint", "train_sets", "checkpoint"),
    *("part", "variant", "role", "machine", "metric", "mean", "sd", "n", "wanted"),
    *("difference", "difference_sd", "difference_n", "low", "high", "p", "p_holm", "family"),
    *("best", "second", "tied", "keys"),
)
"""The columns of a table as CSV; values are fractions of 1. `low` and `high` are the ends of the difference's 95 %
interval, `family` is how many tests `p_holm` is corrected for, `best`, `second` and `tied` (not told apart from the
best) are 1 or 0, `keys` the trials behind a cell. Of a factorial design lines follow whose `role` is `main effect` or
`interaction`; they have a difference alone."""

ORACLE = "ORACLE: chosen on test labels, no comparison with anything"
"""The first line of whatever shows what was chosen on test labels."""


class NothingFinished(BadInput):
    """The results hold no finished trial of the study."""


@dataclass(frozen=True)
class Standing:
    """The rows of one column, for one part, machine and metric, compared with its best."""

    best: Row | None
    second: Row | None
    tied: tuple[Row, ...]
    """Those not told apart from the best."""

    def marks(self, row: Row) -> tuple[bool, bool, bool]:
        """Whether a row is the best, the second, and not told apart from the best."""
        return row is self.best, row is self.second, row.variant in self._tied

    @cached_property
    def _tied(self) -> set[str]:
        return {row.variant for row in self.tied}


@dataclass(frozen=True)
class StudyTable(formats.Printed):
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
    seeds: tuple[int, ...]
    """Those that the study asks for."""
    revisions: tuple[str, ...]
    """Commits of the code that made the values."""
    oracle: bool = False
    """Something in it was chosen on test labels."""
    contrasts: tuple[Contrast, ...] = ()
    """Main effects and interactions, of the rows that have levels, where the design is factorial."""
    _families: dict[At, Mapping[str, Comparison]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _standings: dict[At, Standing] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def compared(self) -> tuple[Row, ...]:
        """The baseline and the variants."""
        return tuple(row for row in self.rows if row.role != "reference")

    @property
    def variants(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.role == "variant")

    def comparison(self, row: Row, part: str, machine: str, metric: str) -> Comparison | None:
        """The row against the baseline, paired by seed; None for the baseline itself and for references.

        All variants of the study are one family, for each part, machine and metric apart.
        """
        at = (part, machine, metric)
        if at not in self._families:
            values = [variant.cell(*at).values for variant in self.variants]
            found = compare(self.rows[0].cell(*at).values, values)
            self._families[at] = {own.variant: one for own, one in zip(self.variants, found, strict=True)}
        return self._families[at].get(row.variant) if row.role == "variant" else None

    def tied(self, part: str, machine: str, metric: str) -> tuple[Row | None, tuple[Row, ...]]:
        """The best of baseline and variants by mean, and those not told apart from it; see `standing`."""
        found = self.standing(part, machine, metric)
        return found.best, found.tied

    def standing(self, part: str, machine: str, metric: str) -> Standing:
        """The best and the second of baseline and variants by mean, and those not told apart from the best.

        A row that lacks seeds takes no part beside rows that lack none or fewer: its mean is that of other seeds.
        """
        at = (part, machine, metric)
        if at not in self._standings:
            values = {row.variant: row.cell(*at).values for row in self.compared}
            most = max(map(len, values.values()), default=0)
            rows = [row for row in self.compared if 0 < len(values[row.variant]) >= min(row.wanted, most)]
            found = Standing(None, None, ())
            if len(rows) > 1:
                best, equal = ties([values[row.variant] for row in rows])
                others = [row for i, row in enumerate(rows) if i != best]
                second = max(others, key=lambda row: row.cell(*at).mean)
                found = Standing(None if best is None else rows[best], second, tuple(rows[i] for i in sorted(equal)))
            self._standings[at] = found
        return self._standings[at]

    def effects(self, part: str, machine: str, metric: str) -> list[Effect]:
        """Main effects, then two-way interactions: one family. Nothing where the design is not factorial."""
        values = [row.cell(part, machine, metric).values for row in self.rows if row.levels]
        return effects(self.contrasts, values, len(self.seeds))

    def caption(self) -> list[str]:
        """What holds for the whole table, line by line."""
        machines = [machine for machine in self.machines if machine != ALL_MACHINES]
        seeds = ", ".join(map(str, self.seeds))
        nested = averaging(self.year) == "arithmetic_mean"
        over_all = f"; {ALL_MACHINES}: {'mean of the machines' if nested else 'over all of them'}" * (len(machines) > 1)
        return [
            *([ORACLE] if self.oracle else []),
            f"data: DCASE {self.year}, {', '.join(self.parts)}: {', '.join(machines)} (fingerprint {self.fingerprint})",
            f"profile: {self.profile or 'none'}; trained on: {self.train_sets}; checkpoint: {CHECKPOINT_RULE}",
            f"code: {', '.join(self.revisions)}",
            f"percent; {averaging(self.year).replace('_', ' ')} over sections{over_all}; "
            f"mean ± standard deviation over n = {len(self.seeds)} seeds ({seeds})",
            *self._of_tests(),
            *self.notes,
        ]

    def _of_tests(self) -> list[str]:
        """How the rows were compared, and what the marks mean."""
        if not self.variants:
            return []
        at = [(part, self.machines[-1], self.metrics[0]) for part in self.parts]
        found = [one for row in self.variants for where in at if (one := self.comparison(row, *where))]
        pairs, family = {one.n for one in found}, max(one.family for one in found)
        most = max(pairs, default=0)
        if most < 2:
            return ["difference to the baseline, paired by seed; fewer than 2 seeds: no interval and no test"]
        several = "; each column is a family of its own" if len(self.machines) + len(self.parts) > 2 else ""
        kind = f"two-sided sign-flip test of the paired differences ({RANDOM_FLIPS:,} random flips)"
        if is_exact(most):
            least = f"with {most} seeds not below {smallest_p(most):.2g}"
            kind = f"exact two-sided sign-flip test of the paired differences, {least}"
        aside = "; references take no part" if len(self.compared) < len(self.rows) else ""
        lines = [
            "difference to the baseline, paired by seed, with its 95 % interval: bootstrap over seeds, stratified by "
            "section, widened for few seeds",
            f"p: {kind}; Holm over {family} variant{'s' * (family != 1)}, for each metric apart{several}",
            "bold: the best; underlined: the second; ≈: not told apart from the best (p above "
            f"{ALPHA:g} after Holm){aside}",
        ]
        if 1 in pairs:
            lines.append("no test: fewer than 2 seeds that the baseline has too")
        if self.contrasts:
            against = {level for one in self.contrasts for level in zip(one.factors, one.against, strict=True)}
            levels = ", ".join(f"{factor}={level}" for factor, level in sorted(against))
            lines.append(
                f"main effects: the mean difference of variants that differ in one factor alone, from {levels}; "
                f"interactions: of such differences; Holm over all {len(self.contrasts)} of both"
            )
        if any(row.found < row.wanted for row in self.compared):
            lines.append("rows that lack seeds are not marked, unless all lack as many")
        return lines

    def sheet(self) -> Sheet:
        return Sheet(self.study, self.question, self.caption(), self.grids())

    def to_macros(self) -> str:
        """Every number as a LaTeX macro, as it is printed: \\raysd{STUDY/VARIANT/PART/MACHINE/METRIC/WHAT}."""
        cells: dict[str, str] = {}
        for at in product(self.parts, self.machines, self.metrics):
            numbers = {row.variant: told(self, row, at) for row in self.rows}
            numbers |= {effect_key(one.contrast): told_comparison(one.comparison) for one in self.effects(*at)}
            cells |= {
                f"{self.study}/{key_of(name, at, what)}": text
                for name, own in numbers.items()
                for what, text in own.items()
            }
        example = next(iter(cells), "")
        keys = f"KEY: {self.study}/VARIANT/PART/MACHINE/METRIC/WHAT with WHAT one of {', '.join(TOLD)}"
        keys += "; of an effect 'effect LABEL' in place of VARIANT" * bool(self.contrasts)
        return formats.macros(self.study, cells, [keys, f"for instance \\raysd{{{example}}}", *self.caption()])

    def grids(self) -> Sequence[Grid]:
        """For each part: each metric with all machines, then the differences to the baseline."""
        return study_grids(self)

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
            of_part = list(product((part,), self.machines, self.metrics))
            for row, at in product(self.rows, of_part):
                cell, one = row.cell(*at), self.comparison(row, *at) or NOT_COMPARED
                numbers = [cell.mean, cell.sd, len(cell.values), row.wanted, *_numbers(one, self._sd_of_pairs(row, at))]
                marks = map(int, self.standing(*at).marks(row))
                keys = " ".join(cell.keys[seed] for seed in sorted(cell.keys))
                writer.writerow([*shared, part, row.variant, row.role, *at[1:], *map(_exact, numbers), *marks, keys])
            for at in of_part:
                for effect in self.effects(*at):
                    kind = "main effect" if len(effect.contrast.factors) == 1 else "interaction"
                    numbers = [math.nan, math.nan, effect.comparison.n, effect.wanted]
                    numbers += _numbers(effect.comparison, math.nan)
                    about = [part, effect.contrast.label, kind, *at[1:]]
                    writer.writerow([*shared, *about, *map(_exact, numbers), "", "", "", ""])
        return text.getvalue()

    def _sd_of_pairs(self, row: Row, at: At) -> float:
        """Of the differences to the baseline; NaN with fewer than two."""
        if row.role != "variant":
            return math.nan
        own, baseline = row.cell(*at).values, self.rows[0].cell(*at).values
        return Cell({seed: value - baseline[seed] for seed, value in own.items() if seed in baseline}).sd


def _numbers(one: Comparison, sd: float) -> list[float | int]:
    """From `difference` to `family` of the columns."""
    return [one.difference, sd, one.n, one.low, one.high, one.p, one.p_holm, one.family]


def _exact(number: float | int) -> float | int | str:
    return "" if isinstance(number, float) and math.isnan(number) else number


def study_tables(study: "LoadedStudy", results: Results, fingerprint: str | None = None) -> list[StudyTable]:
    """The study's table on the corpus of `fingerprint`, or one on each corpus that it was run on.

    Only trials of the study's own recipes, seeds and the current numerics count, whichever study ran them. Raises
    BadInput where there are none.
    """
    trials, old = found_trials(study, results)
    notes = [f"left out: {old} trials of another revision of the numerics"] if old else []
    same_data = {recipe_key(variant.recipe) for variant in study.variants if on_same_data(study, variant)}
    own = {trial.fingerprint: trial.key for trial in reversed(trials) if trial.recipe_key in same_data}
    chosen = [corpus for corpus in sorted(own) if fingerprint in (None, corpus)]
    if not chosen:
        on = f" on the data {fingerprint}" if fingerprint else ""
        raise NothingFinished(f"{results}: no finished trial of study {study.name}{on}; first: raysd run {study.name}")
    tables = []
    for corpus in chosen:
        lacking = _unmeasured(results.read(own[corpus]))
        more = [f"not in all means, for want of labelled test clips of either kind: {', '.join(lacking)}"]
        tables.append(_table(study, trials, corpus, notes + (more if lacking else [])))
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


def _table(study: "LoadedStudy", trials: Sequence[FoundTrial], corpus: str, notes: Sequence[str]) -> StudyTable:
    rows, used, left_out = rows_of(study, trials, corpus)
    skipped = {json.dumps(clip) for trial in used for clip in trial.origin.get("skipped", [])}
    unread = [f"{len(skipped)} clips could not be read and were skipped"] if skipped else []
    at = {position for row in rows for position in row.cells}
    machines = sorted({machine for _, machine, _ in at} - {ALL_MACHINES})
    data, metric = study.baseline.recipe.data, study.study.metric
    shown = PROXIES if metric in PROXIES else headline_metrics(data.year)
    crossed = [row.levels for row in rows if row.levels] if "factorial" in study.study.design else []
    return StudyTable(
        study=study.name,
        question=study.study.question,
        profile=study.profile,
        year=data.year,
        fingerprint=corpus,
        train_sets=train_sets(data.additional),
        parts=tuple(sorted({part for part, _, _ in at})),
        machines=(*machines, ALL_MACHINES) if len(machines) > 1 else tuple(machines),
        metrics=(metric, *(other for other in shown if other != metric)),
        rows=tuple(rows),
        notes=(*notes, *study.notes, *left_out, *unread),
        seeds=study.study.seeds,
        revisions=tuple(revisions([trial.origin for trial in used])),
        oracle=study.oracle,
        contrasts=tuple(contrasts(crossed, study.own_levels)) if crossed else (),
    )
