"""What the results hold of a study."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.status import StudyStatus, study_status
from raysd.study.design import LoadedStudy, Trial, load_study, trials_of
from raysd.trial import Place, Run

CORPUS = "c0ffee"
STUDY = {
    "question": "Which trials are there?",
    "baseline": "tiny.yaml",
    "factors": {"high_frequency": {"setting": "augment.high_frequency"}, "spec_mask": {"setting": "augment.spec_mask"}},
    "design": "leave_one_out",
    "seeds": [0, 1, 2],
}


@pytest.fixture
def study(tmp_path: Path, tiny_recipe: Recipe) -> LoadedStudy:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    return load_study(tmp_path / "mine.yaml")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


def fail(results: Results, trial: Trial, kind: str, said: str, minutes_ago: float = 60) -> None:
    run = Run(trial, Place(Path(), Path(), results.root), datetime.now(UTC))
    when = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    results.write_failure(dataclasses.replace(run.failed(kind, said), finished=when))


def finish(results: Results, trial: Trial) -> None:
    run = Run(trial, Place(Path(), Path(), results.root), datetime.now(UTC))
    results.write(dataclasses.replace(run.failed("code", ""), state="done", failure_kind=None, traceback=None))


def begin(results: Results, trial: Trial) -> None:
    results.checkpoint(trial.training_key, "all").write(b"weights")


def trial(study: LoadedStudy, variant: str, seed: int, corpus: str = CORPUS) -> Trial:
    (found,) = (trial for trial in trials_of(study, corpus) if (trial.variant, trial.seed) == (variant, seed))
    return found


def shown(found: StudyStatus) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(found.to_rich())
    return captured.get()


def test_every_trial_is_done_begun_failed_or_missing(study: LoadedStudy, results: Results) -> None:
    finish(results, trial(study, "baseline", 0))
    begin(results, trial(study, "baseline", 1))
    masked = trial(study, "without spec_mask", 0)
    fail(results, masked, "infrastructure", "its process died")
    fail(results, masked, "oom", "Traceback:\n  at it\nMemoryError: no 3 GB left\n", minutes_ago=5)
    fail(results, trial(study, "without spec_mask", 1), "non_finite", "NonFiniteLoss: in epoch 1")
    fail(results, trial(study, "without high_frequency", 2), "code", "ValueError: x", minutes_ago=5)
    begin(results, trial(study, "without high_frequency", 2))  # tried again
    fail(results, trial(study, "baseline", 0), "infrastructure", "before it was done")

    (found,) = study_status(study, results, lambda recipe: CORPUS)
    baseline, without_high, without_mask, classical = found.rows
    assert (baseline.done, list(baseline.begun), baseline.missing) == ([0], [1], [2])
    assert (list(without_high.begun), without_high.failed, without_high.missing) == ([2], {}, [0, 1])
    assert (without_mask.failed, without_mask.missing) == ({0: "oom", 1: "non_finite"}, [2])
    assert classical.missing == [0]
    assert found.summary() == "1 of 10 trials done, 2 begun, 2 failed (1 non_finite, 1 oom), 5 missing"
    (oom, _) = found.failures
    assert (oom.variant, oom.seed, oom.attempts, oom.message) == (masked.variant, 0, 2, "MemoryError: no 3 GB left")
    said = shown(found)
    assert "without spec_mask seed 0  oom: MemoryError: no 3 GB left" in said
    assert "2 attempts" in said
    assert "classical (reference)" in said


def test_without_data_each_corpus_that_the_results_know_is_shown(study: LoadedStudy, results: Results) -> None:
    finish(results, trial(study, "baseline", 0, "one"))
    fail(results, trial(study, "baseline", 0, "two"), "code", "KeyError: 'x'")
    one, two = study_status(study, results)
    assert (one.fingerprint, one.rows[0].done, one.failures) == ("one", [0], ())
    assert (two.fingerprint, two.rows[0].failed) == ("two", {0: "code"})


def test_of_a_study_that_was_never_run_all_is_missing_and_nothing_is_made(study: LoadedStudy, results: Results) -> None:
    (found,) = study_status(study, results)
    assert found.summary() == "0 of 10 trials done, 0 begun, 0 failed, 10 missing"
    assert "give --data-root" in shown(found)
    assert not Path(results.root).exists()
