"""The search: what it suggests, in which order it learns, and that a killed one goes on as if it had not been."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from raysd.errors import BadInput
from raysd.recipe import NUMERICS, recipe_key
from raysd.results.searches import SearchLog
from raysd.results.store import Record, Results
from raysd.study.design import LoadedStudy, Trial, load_study
from raysd.study.search import StudySearch, build_optuna, objective_metric, search_name

RECIPE = {"augment": {"high_frequency": {"cutoff_hz": 1000}}, "train": {"epochs": 9}}
FACTORS = {
    "rate": {"setting": "train.learning_rate", "range": {"low": 1e-4, "high": 1e-2, "log": True}},
    "width": {"setting": "train.batch_size", "range": {"low": 16, "high": 64}},
    "high": {"setting": "augment.high_frequency", "off": None},
    "cutoff": {"setting": "augment.high_frequency.cutoff_hz", "range": {"low": 250.0, "high": 7000.0, "log": True}},
    "scorer": {"levels": {"near": {"scoring.name": "knn"}, "gauss": {"scoring.name": "gaussian"}}},
    "shrinkage": {
        "setting": "scoring.shrinkage",
        "range": {"low": 0.001, "high": 0.5, "log": True},
        "when": {"scoring.name": "gaussian"},
    },
}
Load = Callable[..., LoadedStudy]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(**changes: Any) -> LoadedStudy:
        study = {
            "question": "what is best?",
            "baseline": "r.yaml",
            "factors": FACTORS,
            "design": "search",
            "search": {"suggestions": 30, "random_first": 8},
            "references": [],
        }
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE))
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(study | changes, sort_keys=False))
        return load_study(tmp_path / "s.yaml")

    return load


def worth(trial: Trial) -> float:
    """An objective that knows what it wants: a high rate, no change of high frequencies, a Gaussian."""
    recipe = trial.recipe
    rate = 1 + math.log10(recipe.train.learning_rate / 1e-2) / 2
    return 0.3 * rate + 0.3 * (recipe.augment.high_frequency is None) + 0.3 * (recipe.scoring.name == "gaussian")


def finish(results: Results, trial: Trial, objective: str = "proxy_perturbed") -> None:
    """Writes a record as if the trial had been run."""
    means = {"proxy_perturbed": worth(trial), "official": 1 - worth(trial)}
    row = {"part": "dev", "machine": "all", "section": "arithmetic_mean", "num_normal": 1, "num_anomaly": 1}
    now = datetime(2024, 1, 1, tzinfo=UTC)
    results.write(
        Record(
            key=trial.key,
            training_key=trial.training_key,
            recipe_key=recipe_key(trial.recipe),
            numerics=NUMERICS,
            variant=trial.variant,
            study="s",
            profile=None,
            seed=trial.seed,
            year=2020,
            data_fingerprint=trial.fingerprint,
            recipe=trial.recipe.model_dump_json(),
            started=now,
            finished=now,
            train_seconds=1.0,
            total_seconds=2.0,
            provenance=json.dumps({}),
            metrics=[{**row, "metric": metric, "value": value} for metric, value in means.items()],
        )
    )


def run(search: StudySearch, most: int = 1000) -> list[Trial]:
    """Runs trials one after another, at most so many."""
    ran: list[Trial] = []
    while len(ran) < most and (trial := search.next()):
        finish(search.results, trial)
        search.done(trial.key)
        ran.append(trial)
    return ran


def test_the_baseline_comes_first_and_all_lies_in_the_space(load: Load, tmp_path: Path) -> None:
    study = load()
    search = StudySearch(study, "data", Results(tmp_path / "results"))
    assert search.left == 30
    ran = run(search)
    assert search.left == 0
    assert ran[0].variant == ran[0].role == "baseline"
    assert ran[0].recipe == study.baseline.recipe
    assert search.suggestions[0].choices == {
        "rate": 1e-3,
        "width": 64,
        "high": "on",
        "cutoff": 1000.0,
        "scorer": "near",
    }
    assert len(search.suggestions) == 30
    for suggestion in search.suggestions[1:]:
        recipe = search.trial(suggestion).recipe
        assert 1e-4 <= recipe.train.learning_rate <= 1e-2
        assert 16 <= recipe.train.batch_size <= 64
        # what means nothing was not asked for
        assert ("cutoff" in suggestion.choices) == (recipe.augment.high_frequency is not None)
        assert ("shrinkage" in suggestion.choices) == (recipe.scoring.name == "gaussian")
        assert recipe.train.held_out == study.baseline.recipe.train.held_out == 0.2
        assert suggestion.value == pytest.approx(worth(search.trial(suggestion)))


def test_it_learns(load: Load, tmp_path: Path) -> None:
    search = StudySearch(load(), "data", Results(tmp_path / "results"))
    run(search)
    values = [one.value or 0.0 for one in search.suggestions]
    assert sum(values[-10:]) / 10 > sum(values[1:9]) / 8 + 0.1
    assert objective_metric(search.study) == "proxy_perturbed"


def test_broken_off_anywhere_it_suggests_the_same(load: Load, tmp_path: Path) -> None:
    whole, broken = Results(tmp_path / "whole"), Results(tmp_path / "broken")
    expected = run(StudySearch(load(), "data", whole))
    ran: list[Trial] = []
    while some := run(StudySearch(load(), "data", broken), 7):
        ran += some
        # one was asked for when the driver died; it is asked for again
        begun = StudySearch(load(), "data", broken)
        under_way = begun.next()
        assert (StudySearch(load(), "data", broken).next() or expected[0]).key == (under_way or expected[0]).key
    assert [trial.key for trial in ran] == [trial.key for trial in expected]
    name = search_name(load(), "data")
    assert SearchLog(broken, name).read() == SearchLog(whole, name).read()


def test_finished_but_not_told_is_told_later(load: Load, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    trial = StudySearch(load(), "data", results).next()
    assert trial is not None
    finish(results, trial)  # and the driver dies
    later = StudySearch(load(), "data", results)
    assert [(one.state, one.value) for one in later.suggestions] == [("done", pytest.approx(worth(trial)))]


def test_a_longer_search_goes_on_and_another_space_begins_anew(load: Load, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    run(StudySearch(load(search={"suggestions": 3}), "data", results))
    longer = StudySearch(load(search={"suggestions": 5}), "data", results)
    assert (len(longer.suggestions), longer.left) == (3, 2)
    run(longer)
    assert [one.number for one in longer.suggestions] == [0, 1, 2, 3, 4]
    fewer = {name: factor for name, factor in FACTORS.items() if name != "width"}
    for other in (
        StudySearch(load(factors=fewer), "data", results),
        StudySearch(load(search={"suggestions": 5, "seed": 1}), "data", results),
        StudySearch(load(search={"suggestions": 5}), "other data", results),
    ):
        assert other.suggestions == []


def test_a_search_keeps_its_name_whoever_names_it(load: Load) -> None:
    name = search_name(load(), "data")
    assert name == "s-534e830e7d3f"  # another name would begin every search anew
    assert search_name(load(search={"suggestions": 7, "random_first": 8, "objective": "perturbed"}), "data") == name


def test_what_fails_is_not_tried_again_but_what_had_no_luck_is(load: Load, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    search = StudySearch(load(), "data", results)
    run(search, 1)
    bad, unlucky = search.next(), search.next()
    assert bad is not None
    assert unlucky is not None
    search.failed(bad.key, "non_finite")
    search.failed(unlucky.key, "infrastructure")
    later = StudySearch(load(), "data", results)
    assert [one.state for one in later.suggestions] == ["done", "failed", "asked"]
    assert (later.next() or bad).key == unlucky.key


def test_optuna_knows_what_was_pruned_and_what_runs(load: Load, tmp_path: Path) -> None:
    study = load(pruning={"first_epochs": 1, "reduction": 2})
    search = StudySearch(study, "data", Results(tmp_path / "results"))
    run(search, 1)
    pruned, running, failed = search.next(), search.next(), search.next()
    assert pruned is not None
    assert running is not None
    assert failed is not None
    for epochs, value in ((1, 0.7), (2, 0.1)):
        search.log.write_rung(epochs, pruned.key, value)
    search.pruned(pruned.key)
    search.failed(failed.key, "code")
    told = build_optuna(study, search.suggestions)
    states = [trial.state for trial in told.trials]
    assert states == [optuna.trial.TrialState(1), optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.RUNNING]
    assert told.trials[1].intermediate_values == {1: 0.7, 2: 0.1}
    assert search.suggestions[1].value == 0.1


def test_one_process_at_a_time_runs_a_search(load: Load, tmp_path: Path) -> None:
    first, second = (StudySearch(load(), "data", Results(tmp_path / "results")).log for _ in range(2))
    with first.alone(), pytest.raises(BadInput, match="another run of the search s-"), second.alone():
        pytest.fail("both run it")
    with second.alone():
        assert second.read() == []


def test_an_oracle_is_told_by_its_own_metric(load: Load, tmp_path: Path) -> None:
    study = load(search={"suggestions": 2, "oracle": True})
    search = StudySearch(study, "data", Results(tmp_path / "results"))
    (baseline,) = run(search, 1)
    assert search.suggestions[0].value == pytest.approx(1 - worth(baseline))
    assert study.oracle
    assert search_name(study, "data") != search_name(load(search={"suggestions": 2}), "data")


def test_equal_suggestions_cost_nothing(load: Load, tmp_path: Path) -> None:
    few = {"high": FACTORS["high"], "scorer": FACTORS["scorer"]}
    search = StudySearch(load(factors=few, search={"suggestions": 20}), "data", Results(tmp_path / "results"))
    ran = run(search)
    assert len(ran) == len({trial.key for trial in ran}) <= 4
    assert len(search.suggestions) == 20
    assert {one.state for one in search.suggestions} == {"done"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [0, 1]}, "seeds: a search trains every suggestion with one seed"),
        ({"design": ["search", "one_at_a_time"]}, "design search stands alone"),
        ({"factors": {"rate": {"setting": "train.learning_rate", "range": {"low": 1, "high": 0.1}}}}, "low has to be"),
        (
            {"factors": {"rate": {"setting": "train.learning_rate", "range": {"low": 0, "high": 1, "log": True}}}},
            "a log scale has no place for low 0",
        ),
        ({"design": "one_at_a_time", "search": None}, "a range is for the design search"),
        (
            {
                "design": "leave_one_out",
                "search": None,
                "factors": {"high": FACTORS["high"]},
                "pruning": {"first_epochs": 1},
            },
            "pruning: only a search may give up trials; a variant that was given up after a few epochs is no compar",
        ),
        ({"search": {"objective": "test_auc"}}, "'test_auc' is not allowed"),
    ],
)
def test_a_mistake_is_one_line(changes: dict[str, Any], said: str, load: Load) -> None:
    with pytest.raises(BadInput) as error:
        load(**changes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
