"""What is in a results root: every study with its trials done, begun and failed, and every search."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raysd.results.launches import Launch, LaunchedTrial, read_launches, write_launch
from raysd.results.searches import SearchLog, Suggestion
from raysd.results.store import Results
from raysd.session import Session
from raysd.study.design import trials_of
from raysd.study.search import search_name, settings_of

COLUMNS = ("key", "study", "profile", "year", "data_fingerprint", "finished")
"""What is read of each record, finished or failed."""


@dataclass(frozen=True)
class StudyRow:
    """A study with one profile on one corpus."""

    study: str
    profile: str | None
    year: int
    fingerprint: str
    done: int
    total: int | None
    """Trials that it asked for when it was launched last; None where no launch was noted."""
    begun: int | None
    """Trials of which a training is under way, or broken off; None where no launch tells which are its own."""
    failed: int
    """Trials whose last attempt failed."""
    earlier: int
    """Finished trials beside those: of other settings or seeds than at its last launch."""
    launched: datetime | None
    changed: datetime


@dataclass(frozen=True)
class SearchRow:
    """The suggestions of a search, by what became of them."""

    search: str
    done: int
    pruned: int
    failed: int
    asked: int
    """Under way, or broken off."""
    changed: datetime


@dataclass(frozen=True)
class Overview:
    """All of a results root, what changed last first."""

    results: str
    studies: tuple[StudyRow, ...]
    searches: tuple[SearchRow, ...]
    others_begun: int
    """Trainings under way, or broken off, of which no launch was noted."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, default=lambda when: when.isoformat(timespec="seconds"))

    def to_rich(self) -> Group:
        """For a terminal or a log."""
        if not self.studies and not self.searches:
            return Group(Text(f"{self.results}: nothing was run here yet"))
        parts: list[Any] = []
        if self.studies:
            header = ("study", "profile", "year", "data", "done", "begun", "failed", "last change (UTC)")
            table = _table(header, numbers=("done", "begun", "failed"))
            for row in self.studies:
                done = f"{row.done}/{'?' if row.total is None else row.total}"
                done += f" + {row.earlier}" if row.earlier else ""
                begun = "?" if row.begun is None else str(row.begun)
                about = [row.study, row.profile or "-", str(row.year), row.fingerprint[:8]]
                table.add_row(*map(Text, [*about, done, begun, str(row.failed), _minute(row.changed)]))
            parts.append(table)
        if self.searches:
            header = ("search", "done", "pruned", "failed", "asked", "last change (UTC)")
            table = _table(header, numbers=header[1:-1])
            for row in self.searches:
                counts = [str(count) for count in (row.done, row.pruned, row.failed, row.asked)]
                table.add_row(*map(Text, [row.search, *counts, _minute(row.changed)]))
            parts.append(table)
        return Group(*parts, *map(Text, self._notes()))

    def _notes(self) -> list[str]:
        notes = [f"results: {self.results}"]
        if any(row.total is None for row in self.studies):
            notes.append("?: not known; its launch was not noted. raysd status STUDY tells it from the study's file")
        if any(row.earlier for row in self.studies):
            notes.append("+ n: finished trials of it with other settings or seeds than at its last launch")
        if self.others_begun:
            notes.append(f"begun, of no launch that was noted: {self.others_begun}")
        return notes


def note_launch(session: Session) -> None:
    """Writes down what the study asks for; its clips are decoded."""
    study = session.study
    recipe = study.baseline.recipe
    corpora = {row.recipe.data: row.recipe for row in study.variants}
    known = {data: session.fingerprint(one) or "" for data, one in corpora.items()}
    trials = trials_of(study, lambda of: known[of.data])
    launch = Launch(
        study=study.name,
        profile=study.profile,
        question=study.study.question,
        year=recipe.data.year,
        fingerprint=known[recipe.data],
        when=datetime.now(UTC),
        trials=tuple(LaunchedTrial(trial.key, trial.training_key, trial.variant, trial.seed) for trial in trials),
        search=search_name(study, known[recipe.data]) if session.is_search else None,
        suggestions=settings_of(study).suggestions if session.is_search else 0,
    )
    write_launch(session.results, launch)


def overview(results: Results) -> Overview:
    """What the results hold, from records' columns, launch notes, checkpoints' times and searches' logs alone."""
    done = {row["key"]: row for row in results.rows(COLUMNS)}
    tried = results.failures(COLUMNS)
    attempts = tried.astype(object).where(tried.notna(), None).to_dict("records")
    failed = {row["key"]: row for row in sorted(attempts, key=lambda row: row["finished"]) if row["key"] not in done}
    launches, checkpoints, searches = read_launches(results), results.checkpoints(), _searches(results)

    keys = {launch: _keys(launch, searches) for launch in launches}
    claimed = {(launch.study, launch.profile, key) for launch in launches for key in keys[launch]}
    others: dict[_Corpus, list[dict[str, Any]]] = defaultdict(list)
    for row in [*done.values(), *failed.values()]:
        if (row["study"], row["profile"], row["key"]) not in claimed:
            others[_corpus(row)].append(row)
    rows = [
        _launched(launch, keys[launch], searches, done, failed, checkpoints, others.pop(_corpus_of(launch), []))
        for launch in launches
    ]
    for (study, profile, year, fingerprint), own in others.items():
        finished = sum(row["key"] in done for row in own)
        changed = max(row["finished"] for row in own)
        rows.append(
            StudyRow(study, profile, year, fingerprint, finished, None, None, len(own) - finished, 0, None, changed)
        )
    known = {trial.training_key for launch in launches for trial in launch.trials}
    asked = sum(suggestion.state == "asked" for found, _ in searches.values() for suggestion in found)
    return Overview(
        str(results),
        tuple(sorted(rows, key=lambda row: row.changed, reverse=True)),
        tuple(_search_row(name, *searches[name]) for name in sorted(searches)),
        max(0, len(checkpoints.keys() - known) - asked),  # a search's log does not name its trainings
    )


_Corpus = tuple[str, str | None, int, str]
_Searches = dict[str, tuple[list[Suggestion], datetime]]
"""Name -> its suggestions, and when the last of them changed."""


def _corpus(row: dict[str, Any]) -> _Corpus:
    return row["study"], row["profile"], row["year"], row["data_fingerprint"]


def _corpus_of(launch: Launch) -> _Corpus:
    return launch.study, launch.profile, launch.year, launch.fingerprint


def _searches(results: Results) -> _Searches:
    changed: dict[str, datetime] = {}
    for name, detail in results.storage.details("searches", ".json").items():
        search = name.split("/")[1]
        changed[search] = max(detail.modified, changed.get(search, detail.modified))
    return {name: (SearchLog(results, name).read(), when) for name, when in changed.items()}


def _suggestions(launch: Launch, searches: _Searches) -> list[Suggestion]:
    return searches[launch.search][0] if launch.search in searches else []


def _keys(launch: Launch, searches: _Searches) -> set[str]:
    """The trials that it asked for, as far as they are known."""
    return {trial.key for trial in launch.trials} | {one.key for one in _suggestions(launch, searches)}


def _launched(
    launch: Launch,
    keys: set[str],
    searches: _Searches,
    done: dict[str, dict[str, Any]],
    failed: dict[str, dict[str, Any]],
    checkpoints: dict[str, datetime],
    others: Sequence[dict[str, Any]],
) -> StudyRow:
    begun = {one.key for one in _suggestions(launch, searches) if one.state == "asked"} - done.keys()
    times = [launch.when, *(row["finished"] for row in others)]
    for trial in launch.trials:
        written = checkpoints.get(trial.training_key)
        if written and trial.key not in done:
            times.append(written)
            if trial.key not in failed or failed[trial.key]["finished"] < written:
                begun.add(trial.key)
    times += [row["finished"] for rows in (done, failed) for key in keys if (row := rows.get(key))]
    return StudyRow(
        study=launch.study,
        profile=launch.profile,
        year=launch.year,
        fingerprint=launch.fingerprint,
        done=len(keys & done.keys()),
        total=len(launch.trials) + max(0, launch.suggestions - 1),
        begun=len(begun),
        failed=len((keys & failed.keys()) - begun),
        earlier=sum(row["key"] in done for row in others),
        launched=launch.when,
        changed=max(times),
    )


def _search_row(name: str, suggestions: list[Suggestion], changed: datetime) -> SearchRow:
    states = Counter(one.state for one in suggestions)
    return SearchRow(name, states["done"], states["pruned"], states["failed"], states["asked"], changed)


def _table(header: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return table


def _minute(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M}"
