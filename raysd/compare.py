"""Two studies, or one study at two revisions of the code: the same trials side by side.

The same trial is one recipe with one seed on one corpus. Its key may differ, as that covers the numerics' revision too.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raysd.detect.metrics import ALL_MACHINES, averaging
from raysd.errors import BadInput, nearest
from raysd.initial import Checkpoints
from raysd.recipe import recipe_key
from raysd.results.launches import read_launches
from raysd.results.store import Results
from raysd.study.design import LoadedStudy, load_study
from raysd.study.files import Changes
from raysd.study.places import find_study

Same = tuple[str, int, str]
"""What makes two trials the same: recipe key, seed, data fingerprint."""
COLUMNS = ("key", "recipe_key", "seed", "data_fingerprint", "numerics", "variant", "study", "profile", "finished")


@dataclass(frozen=True)
class OneTrial:
    """A finished trial of one side."""

    key: str
    variant: str
    seed: int
    fingerprint: str
    metrics: dict[tuple[str, str, str, str], float]
    """(part, machine, section, metric) -> value."""
    year: int

    def value(self, part: str, metric: str) -> float | None:
        """A metric over all machines, in the year's own kind of mean; a fraction of 1."""
        return self.metrics.get((part, ALL_MACHINES, averaging(self.year), metric))


@dataclass(frozen=True)
class Side:
    """What one of the two names found."""

    name: str
    results: str
    trials: dict[Same, OneTrial]
    about: str
    """Commits and revisions of the numerics behind them."""
    metric: str
    """The metric of its study."""


@dataclass(frozen=True)
class Comparison:
    """Two sides, trial by trial."""

    a: Side
    b: Side
    metric: str

    @property
    def both(self) -> list[Same]:
        return [same for same in self.a.trials if same in self.b.trials]

    def only(self, side: Side) -> list[OneTrial]:
        """The trials that the other side has not."""
        other = self.b if side is self.a else self.a
        return [trial for same, trial in side.trials.items() if same not in other.trials]

    def equal(self, same: Same) -> bool:
        """Whether all metrics that both sides have of the trial are equal to the bit, of every section."""
        a, b = self.a.trials[same].metrics, self.b.trials[same].metrics
        return all(a[at] == b[at] for at in a.keys() & b.keys())

    def parts(self, same: Same) -> list[str]:
        """The parts of the data that either side has scored."""
        return sorted({part for side in (self.a, self.b) for part, *_ in side.trials[same].metrics})

    def difference(self, same: Same, part: str) -> float | None:
        """B less A in points; None where one has no such value."""
        a, b = (side.trials[same].value(part, self.metric) for side in (self.a, self.b))
        return None if a is None or b is None else 100 * (b - a)

    def summary(self) -> str:
        """One line."""
        if not self.both:
            return "no trial in both: nothing to compare"
        equal = sum(map(self.equal, self.both))
        count = len(self.both)
        line = f"{count} trials in both: {equal} equal to the bit in all metrics, {count - equal} differ"
        found = [(gap, same) for same in self.both for part in self.parts(same) if (gap := self.difference(same, part))]
        if not found:
            return line
        gap, same = max(found, key=lambda pair: abs(pair[0]))
        trial = self.a.trials[same]
        return f"{line}; largest difference in {self.metric} {gap:+.4g} points ({trial.variant}, seed {trial.seed})"

    def to_rich(self) -> Group:
        """For a terminal or a log."""
        lines = [
            f"{letter}: {side.name}, {side.results}: {len(side.trials)} trials; {side.about}"
            for letter, side in (("A", self.a), ("B", self.b))
        ]
        corpora = {fingerprint for _, _, fingerprint in self.both}
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("variant", overflow="fold")
        header = ["seed", "part", *(["data"] if len(corpora) > 1 else []), f"{self.metric} A", f"{self.metric} B"]
        for name in [*header, "difference", "all metrics"]:
            table.add_column(name, justify="left" if name in ("part", "data") else "right", no_wrap=True)
        for same in self.both:
            a, b = self.a.trials[same], self.b.trials[same]
            name = a.variant if a.variant == b.variant else f"{a.variant} / {b.variant}"
            for part in self.parts(same):
                gap, values = self.difference(same, part), (side.value(part, self.metric) for side in (a, b))
                cells = [name, str(a.seed), part, *([a.fingerprint[:8]] if len(corpora) > 1 else [])]
                cells += ["-" if value is None else f"{100 * value:.2f}" for value in values]
                cells += ["-" if gap is None else f"{gap:+.2f}", "equal" if self.equal(same) else "differ"]
                table.add_row(*map(Text, cells))
        parts: list[Any] = [table] if self.both else []
        for letter, side in (("A", self.a), ("B", self.b)):
            alone = self.only(side)
            if alone:
                parts.append(Text(f"only in {letter} ({len(alone)}):"))
                parts += [Text(f"  {trial.variant}, seed {trial.seed}  {trial.key}") for trial in alone]
        return Group(*map(Text, lines), *parts, Text(self.summary()))


def compare(
    a: str,
    b: str,
    results_a: Results,
    results_b: Results,
    changes: Changes | None = None,
    profile: str | None = None,
    metric: str | None = None,
) -> Comparison:
    """Study `a` in one results root beside study `b` in another, or the same.

    Each is a study's file or name, with `@COMMIT` behind it for its trials of one commit of the code. `changes` and
    `profile` are those of `load_study`, for both. `metric` is by default that of A's study. Raises BadInput where a
    side has no trials, or where no trial has such a metric.
    """
    sides = [_side(name, results, changes, profile) for name, results in ((a, results_a), (b, results_b))]
    chosen = metric or sides[0].metric
    known = {at[3] for side in sides for trial in side.trials.values() for at in trial.metrics}
    if chosen not in known and known:
        raise BadInput(f"metric: '{chosen}' is no metric of these trials; {nearest(chosen, known)}")
    return Comparison(sides[0], sides[1], chosen)


def _side(what: str, results: Results, changes: Changes | None, profile: str | None) -> Side:
    name, commit = (what, "") if Path(what).is_file() or "@" not in what else what.rsplit("@", 1)
    study = _study(name, changes, profile, results)
    names: dict[str, str] = {}
    if study and study.study.search is None:
        mine = _by_recipe(study, names)
    else:  # what a search has tried does not stand in its file
        mine = _by_name(study.name if study else name, results, study.profile if study else profile)

    rows = [row for row in results.rows([*COLUMNS, "provenance"]) if mine(row)]
    for row in rows:
        row["commit"] = json.loads(row.pop("provenance")).get("commit") or "unknown"
    rows = [row for row in rows if row["commit"].startswith(commit)]
    latest: dict[Same, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["numerics"], row["finished"])):
        latest[row["recipe_key"], row["seed"], row["data_fingerprint"]] = row
    if not latest:
        raise BadInput(f"{results}: no finished trial of {what}; raysd studies lists what there is")

    keys = {row["key"] for row in latest.values()}
    measured = {row["key"]: row for row in results.rows(["key", "year", "metrics"], keys)}
    order = {recipe: place for place, recipe in enumerate(names)}
    trials = {}
    for same, row in sorted(latest.items(), key=lambda pair: _rank(pair[1], order)):
        found = measured[row["key"]]
        metrics = {(m["part"], m["machine"], m["section"], m["metric"]): m["value"] for m in found["metrics"]}
        variant = str(names.get(row["recipe_key"], row["variant"]))
        trials[same] = OneTrial(row["key"], variant, row["seed"], row["data_fingerprint"], metrics, found["year"])
    return Side(what, str(results), trials, _about(rows, latest), study.study.metric if study else "official")


def _study(name: str, changes: Changes | None, profile: str | None, results: Results) -> LoadedStudy | None:
    """The study's file; None where there is none, and the records have to know the name."""
    try:
        find_study(name)
    except BadInput:
        if changes or Path(name).suffix in (".yaml", ".yml"):
            raise
        return None
    return load_study(name, changes, profile, pin=Checkpoints(results).pinned)


def _by_recipe(study: LoadedStudy, names: dict[str, str]) -> Callable[[dict[str, Any]], bool]:
    """Whether a record is of one of the study's own recipes and seeds, whichever study ran it."""
    seeds = {}
    for variant in study.variants:
        key = recipe_key(variant.recipe)
        names[key], seeds[key] = variant.name, study.seeds_of(variant)
    return lambda row: row["seed"] in seeds.get(row["recipe_key"], ())


def _by_name(name: str, results: Results, profile: str | None) -> Callable[[dict[str, Any]], bool]:
    """Whether a record says that the study ran it, or the study's last launch asked for it."""
    launches = [launch for launch in read_launches(results) if launch.study == name]
    asked = {trial.key for launch in launches if profile in (None, launch.profile) for trial in launch.trials}
    return lambda row: row["key"] in asked or (row["study"] == name and profile in (None, row["profile"]))


def _rank(row: dict[str, Any], order: dict[str, int]) -> tuple[int, str, int, str]:
    """The study's own order where there is a file; else by name, the baseline first."""
    place = order.get(str(row["recipe_key"]), -int(row["variant"] == "baseline"))
    return place, row["variant"], row["seed"], row["data_fingerprint"]


def _about(rows: list[dict[str, Any]], latest: dict[Same, dict[str, Any]]) -> str:
    commits = Counter(row["commit"][:8] for row in latest.values())
    numerics = sorted({row["numerics"] for row in latest.values()})
    about = f"commit {', '.join(commits)}; numerics {', '.join(map(str, numerics))}"
    passed_over = len(rows) - len(latest)
    return f"{about}; {passed_over} of an earlier revision passed over" if passed_over else about
