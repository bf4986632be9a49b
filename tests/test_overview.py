"""What a results root holds, told from launch notes, records, failures, checkpoints and searches' logs."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from raysd.errors import BadInput
from raysd.overview import StudyRow, note_launch, overview
from raysd.recipe import Recipe
from raysd.results.launches import Launch, read_launches
from raysd.results.searches import SearchLog, Suggestion
from raysd.results.storage import open_storage
from raysd.results.store import Results
from raysd.running import run_missing
from raysd.session import Session
from raysd.study.design import Trial, load_study, trials_of
from raysd.trial import Run

STUDY = {
    "question": "Which trials are there?",
    "baseline": "tiny.yaml",
    "factors": {"high_frequency": {"setting": "augment.high_frequency"}},
    "design": "leave_one_out",
    "seeds": [0, 1, 2],
    "references": [],
}
SEARCH = {
    "question": "Which mask is best?",
    "baseline": "tiny.yaml",
    "factors": {"rate": {"setting": "train.learning_rate", "range": {"low": 1e-4, "high": 1e-2, "log": True}}},
    "design": "search",
    "search": {"suggestions": 5},
    "references": [],
}


@pytest.fixture
def session(
    tmp_path: Path, tiny_recipe: Recipe, corpus: Callable[[int], Path], cache_dir: Path
) -> Callable[[str], Session]:
    """A study at hand, by name: `mine`, `other` (the same, of another name), `search`."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
    for name, study in (("mine", STUDY), ("other", STUDY), ("search", SEARCH)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")

    def opened(name: str) -> Session:
        session = Session(load_study(tmp_path / f"{name}.yaml"), Results(tmp_path / "results"), corpus(2020), cache_dir)
        session.decode()
        return session

    return opened


def trials(session: Session) -> list[Trial]:
    return trials_of(session.study, lambda recipe: session.fingerprint(recipe) or "")


def finish(session: Session, trial: Trial) -> None:
    run = Run(trial, session.place(), datetime.now(UTC))
    session.results.write(dataclasses.replace(run.failed("code", ""), state="done", failure_kind=None, traceback=None))


def fail(session: Session, trial: Trial, minutes_ago: float) -> None:
    failed = Run(trial, session.place(), datetime.now(UTC)).failed("oom", "MemoryError")
    when = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    session.results.write_failure(dataclasses.replace(failed, finished=when))


def begin(session: Session, trial: Trial) -> None:
    session.results.checkpoint(trial.training_key, "all").write(b"weights")


def counts(row: StudyRow) -> tuple[int, int | None, int | None, int, int]:
    return row.done, row.total, row.begun, row.failed, row.earlier


def test_done_begun_and_failed_of_every_study(session: Callable[[str], Session]) -> None:
    mine, other = session("mine"), session("other")
    assert overview(mine.results).studies == ()
    for one in (mine, other):
        note_launch(one)
    done, began, failed, resumed, rescued, _ = trials(mine)
    finish(mine, done)
    begin(mine, began)
    fail(mine, failed, 5)
    fail(mine, failed, 3)
    fail(mine, resumed, 5)
    begin(mine, resumed)
    fail(mine, rescued, 5)
    finish(other, rescued)
    mine.results.checkpoint("of nobody", "all").write(b"weights")

    found = overview(mine.results)
    first, second = sorted(found.studies, key=lambda row: row.study)
    assert (first.study, first.profile, first.year) == ("mine", None, 2020)
    assert counts(first) == counts(second) == (2, 6, 2, 1, 0)  # they share all their trials
    assert found.others_begun == 1
    assert max(first.changed, second.changed) >= datetime.now(UTC) - timedelta(minutes=1)
    assert json.loads(found.to_json())["studies"][0]["total"] == 6

    fewer = dataclasses.replace(mine, study=load_study(mine.study.path, seeds=(1,)))
    note_launch(fewer)
    (first,) = (row for row in overview(mine.results).studies if row.study == "mine")
    assert (first.total, first.earlier) == (2, 1)
    assert len(read_launches(mine.results)) == 2  # a launch replaces that before it


def test_a_run_notes_what_it_launches(session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch) -> None:
    from raysd.scale import tune

    mine, launched = session("mine"), list[Launch]()

    def run_trials(*_: object) -> tune.Outcome:
        launched.extend(read_launches(mine.results))
        return tune.Outcome(interrupted=True)

    monkeypatch.setattr(tune, "run_trials", run_trials)
    run_missing(mine, Console(quiet=True), ("raysd", "run", "mine"))
    (launch,) = launched  # before the first trial
    assert (launch.study, launch.question, launch.search) == ("mine", STUDY["question"], None)
    assert [trial.key for trial in launch.trials] == [trial.key for trial in trials(mine)]
    assert [trial.training_key for trial in launch.trials] == [trial.training_key for trial in trials(mine)]


def test_older_results_have_no_launches(session: Callable[[str], Session]) -> None:
    mine = session("mine")
    first, second, *_ = trials(mine)
    finish(mine, first)
    fail(mine, second, 5)
    begin(mine, second)
    found = overview(mine.results)
    assert [counts(row) for row in found.studies] == [(1, None, None, 1, 0)]
    assert found.others_begun == 1


def test_a_search_counts_its_suggestions(session: Callable[[str], Session]) -> None:
    search = session("search")
    note_launch(search)
    (baseline,) = trials(search)
    assert counts(overview(search.results).studies[0]) == (0, 5, 0, 0, 0)
    log = SearchLog(search.results, read_launches(search.results)[0].search or "")
    for number, state in enumerate(["done", "pruned", "failed", "asked"]):
        key = baseline.key if number == 0 else f"k{number}"
        log.write(Suggestion(number, {}, {}, key, state=state))  # pyright: ignore[reportArgumentType]
    finish(search, baseline)
    found = overview(search.results)
    (row,) = found.searches
    assert (row.search, row.done, row.pruned, row.failed, row.asked) == (log.name, 1, 1, 1, 1)
    assert counts(found.studies[0]) == (1, 5, 1, 0, 0)


def test_a_note_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for content in (b"{", b"[]", b'{"trials": [[1]]}', b'{"study": "s"}'):
        open_storage(tmp_path).replace("launches/x.json", content)
        with pytest.raises(BadInput, match=r"launches/x\.json: cannot be read as a note of a launch .*; delete it"):
            overview(Results(tmp_path))
