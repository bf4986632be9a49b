"""What the results hold of a study: which trials are done, begun, failed and why, or missing."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raysd.recipe import Recipe, recipe_key
from raysd.results.store import Results
from raysd.study.design import LoadedStudy, Role, Trial, trials_of
from raysd.study.plan import duration

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Failure:
    """The last failed attempt at a trial that is neither done nor begun again."""

    variant: str
    seed: int
    key: str
    kind: str
    message: str
    """The last line of what Python said."""
    attempts: int
    when: datetime


@dataclass(frozen=True)
class VariantStatus:
    """One row of a study, by seed."""

    name: str
    role: Role
    done: list[int]
    begun: dict[int, datetime]
    """Seed -> when its training, under way or broken off, wrote its last checkpoint."""
    failed: dict[int, str]
    """Seed -> kind of failure."""
    missing: list[int]

    @property
    def seeds(self) -> int:
        return len(self.done) + len(self.begun) + len(self.failed) + len(self.missing)


@dataclass(frozen=True)
class StudyStatus:
    """A study on one corpus."""

    study: str
    question: str
    profile: str | None
    results: str
    fingerprint: str | None
    """None: no corpus was given, and the results hold none of this study."""
    rows: tuple[VariantStatus, ...]
    failures: tuple[Failure, ...]

    def summary(self) -> str:
        """One line."""
        kinds = Counter(kind for row in self.rows for kind in row.failed.values())
        failed = f" ({', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))})" if kinds else ""
        done, begun, missing = (
            sum(len(getattr(row, state)) for row in self.rows) for state in ("done", "begun", "missing")
        )
        return (
            f"{done} of {sum(row.seeds for row in self.rows)} trials done, {begun} begun, "
            f"{kinds.total()} failed{failed}, {missing} missing"
        )

    def to_rich(self) -> Group:
        """For a terminal or a log."""
        table = Table(title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("variant", overflow="fold")
        for name in ("done", "begun", "failed", "missing"):
            table.add_column(name, justify="right", no_wrap=True)
        for i, row in enumerate(self.rows):
            if row.role == "reference" and i and self.rows[i - 1].role != "reference":
                table.rows[-1].end_section = True
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(row.failed.values()).items()))
            label = f"{row.name} (reference)" if row.role == "reference" else row.name
            cells = [label, f"{len(row.done)}/{row.seeds}", str(len(row.begun)), kinds or "0", str(len(row.missing))]
            table.add_row(*map(Text, cells))
        on = f"data: fingerprint {self.fingerprint}" if self.fingerprint else "data: not known; give --data-root"
        lines = [f"{on}; profile: {self.profile or 'none'}; results: {self.results}", self.summary()]
        written = [when for row in self.rows for when in row.begun.values()]
        if written:
            ago = max(0.0, (datetime.now(UTC) - max(written)).total_seconds())  # clocks of machines differ
            lines.append(f"begun: under way, or broken off and to be continued; last checkpoint {duration(ago)} ago")
        if self.failures:
            lines.append(f"failed (raysd run tries again; whole tracebacks are in {self.results}/failures):")
        for failure in self.failures:
            times = f", {failure.attempts} attempts" if failure.attempts > 1 else ""
            lines.append(
                f"  {failure.variant} seed {failure.seed}  {failure.kind}: {failure.message}"
                f"  ({failure.when:%Y-%m-%d %H:%M} UTC{times})"
            )
        heading = Text(f"{self.study}: {self.question}", style="bold")
        return Group(heading, table, *map(Text, lines))


def study_status(
    study: LoadedStudy, results: Results, fingerprint: Callable[[Recipe], str | None] = lambda recipe: None
) -> list[StudyStatus]:
    """The study on the corpus that `fingerprint` gives for a recipe's data; where it gives None, on each corpus on
    which the results hold a trial of it, finished or failed.

    Trials of another revision of the numerics do not count.
    """
    columns = ["key", "recipe_key", "data_fingerprint"]
    tried = results.failures([*columns, "failure_kind", "traceback", "finished"]).to_dict("records")
    attempts: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(tried, key=lambda row: row["finished"]):
        attempts.setdefault(row["key"], []).append(row)
    known = fingerprint(study.baseline.recipe)
    if known is not None:
        return [_status(study, results, known, lambda recipe: fingerprint(recipe) or "", attempts)]

    seen: dict[str, set[str]] = {recipe_key(variant.recipe): set() for variant in study.variants}
    for row in [*results.rows(columns), *tried]:
        seen.get(row["recipe_key"], set()).add(row["data_fingerprint"])
    data = study.baseline.recipe.data
    corpora = set().union(*(seen[recipe_key(v.recipe)] for v in study.variants if v.recipe.data == data))

    def corpus_of(recipe: Recipe, corpus: str) -> str:
        others = seen[recipe_key(recipe)]
        return corpus if recipe.data == data else next(iter(others)) if len(others) == 1 else ""

    return [
        _status(study, results, corpus or None, partial(corpus_of, corpus=corpus), attempts)
        for corpus in sorted(corpora) or [""]
    ]


def _status(
    study: LoadedStudy,
    results: Results,
    fingerprint: str | None,
    corpus_of: Callable[[Recipe], str],
    attempts: dict[str, list[dict[str, Any]]],
) -> StudyStatus:
    done, checkpoints = results.done(), results.checkpoints()
    rows = {variant.name: VariantStatus(variant.name, variant.role, [], {}, {}, []) for variant in study.variants}
    failures = []
    for trial in trials_of(study, corpus_of):
        row, tried = rows[trial.variant], attempts.get(trial.key, [])
        begun = checkpoints.get(trial.training_key, _NEVER)
        if trial.key in done:
            row.done.append(trial.seed)
        elif begun > (tried[-1]["finished"] if tried else _NEVER):
            row.begun[trial.seed] = begun
        elif tried:
            failure = _failure(trial, tried)
            row.failed[trial.seed] = failure.kind
            failures.append(failure)
        else:
            row.missing.append(trial.seed)
    question, profile = study.study.question, study.profile
    return StudyStatus(study.name, question, profile, str(results), fingerprint, tuple(rows.values()), tuple(failures))


def _failure(trial: Trial, tried: list[dict[str, Any]]) -> Failure:
    last = tried[-1]
    lines = [line.strip() for line in (last["traceback"] or "").splitlines() if line.strip()]
    message = lines[-1] if lines else "nothing was said"
    return Failure(trial.variant, trial.seed, trial.key, last["failure_kind"], message, len(tried), last["finished"])
