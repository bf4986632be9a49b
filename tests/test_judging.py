"""Clips that are held out of a training, what a trial is worth on them, and trainings that a search gives up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raysd.data.store import open_store
from raysd.detect.metrics import summarise
from raysd.detect.proxies import objective_value, proxy_metrics
from raysd.recipe import Recipe
from raysd.results.searches import SearchLog
from raysd.results.store import Results
from raysd.settings import with_changes
from raysd.study.design import Role, Trial
from raysd.train import GivenUp
from raysd.trial import Judging, Place, run_trial


@pytest.fixture
def place(corpus: Callable[[int], Path], cache_dir: Path, tmp_path: Path) -> Place:
    return Place(corpus(2020), cache_dir, tmp_path / "results")


def trial_of(place: Place, recipe: Recipe, changes: dict[str, Any], role: Role = "variant") -> Trial:
    recipe = with_changes(recipe, {"train.held_out": 0.25, **changes}, "test")
    store = open_store(place.data_root, recipe.data, place.cache)
    return Trial("some", role, recipe, 0, store.fingerprint)


def test_what_is_held_out_is_not_trained_on_and_judges(place: Place, tiny_recipe: Recipe) -> None:
    record = run_trial(trial_of(place, tiny_recipe, {}), place)
    scores, metrics = pd.DataFrame(record.scores), pd.DataFrame(record.metrics)
    # of 4 sections with 8 training clips each, 2 are held out and stand in once for each of 5 perturbations
    assert scores["split"].value_counts().to_dict() == {
        "train": 24,
        "test": 24,
        "held_out": 8,
        "perturbed": 40,
        "other_section": 8,
    }
    assert set(scores.query("label.isna()")["split"]) == {"perturbed", "other_section"}
    again = proxy_metrics(scores, 2020)
    for name in ("proxy_perturbed", "proxy_other_sections"):
        assert objective_value(metrics, name, 2020) == objective_value(again, name, 2020)
    # the metrics of the test clips are of the test clips alone
    pd.testing.assert_frame_equal(
        metrics.query("not metric.str.startswith('proxy_')").reset_index(drop=True),
        summarise(scores.query("split == 'test'"), 2020),
    )


def test_without_training_clips_can_be_held_out_too(place: Place, tiny_recipe: Recipe) -> None:
    recipe = trial_of(place, tiny_recipe, {"encoder": {"name": "spectral_mean"}, "scoring.name": "gaussian"})
    metrics = pd.DataFrame(run_trial(recipe, place).metrics)
    assert 0.5 < objective_value(metrics, "proxy_perturbed", 2020) <= 1
    assert 0 <= objective_value(metrics, "proxy_other_sections", 2020) <= 1


@pytest.mark.parametrize(
    ("role", "goes_on", "judged"), [("variant", False, {1}), ("baseline", True, {1, 2}), ("reference", True, set())]
)
def test_what_does_badly_is_given_up_but_never_the_baseline_nor_a_reference(
    role: Role, goes_on: bool, judged: set[int], place: Place, tiny_recipe: Recipe
) -> None:
    judging = Judging("some-search", "proxy_perturbed", first_epochs=1, reduction=2)
    place, results = replace(place, judging=judging), Results(place.results_root)
    log = SearchLog(results, "some-search")
    for i in range(3):
        log.write_rung(1, f"better{i}", 1.0)
    trial = trial_of(place, tiny_recipe, {"train.epochs": 3}, role)
    epochs: list[int] = []
    if goes_on:
        run_trial(trial, place, lambda epoch: epochs.append(epoch.epoch))
        assert epochs == [1, 2, 3]
        assert set(log.values_of(trial.key)) == judged
        return
    with pytest.raises(GivenUp, match="after 1 epochs"):
        run_trial(trial, place, lambda epoch: epochs.append(epoch.epoch))
    assert epochs == [1]
    assert set(log.values_of(trial.key)) == judged
    assert 0 < log.values_of(trial.key)[1] < 1
    assert not results.has(trial.key)
    assert len(results.failures()) == 0  # it is no failure
    assert results.checkpoints() == {}


def test_to_be_judged_changes_no_number(place: Place, tiny_recipe: Recipe, tmp_path: Path) -> None:
    trial = trial_of(place, tiny_recipe, {"train.epochs": 3})
    judged = replace(place, judging=Judging("some-search", "official", 1, 2), results_root=tmp_path / "judged")
    alone, watched = run_trial(trial, place), run_trial(trial, judged)
    assert pd.DataFrame(alone.scores).equals(pd.DataFrame(watched.scores))
    assert [epoch["loss"] for epoch in alone.history] == [epoch["loss"] for epoch in watched.history]


@pytest.mark.parametrize(
    ("first", "reduction", "epochs", "rungs"), [(2, 3, 50, {2, 6, 18}), (1, 2, 8, {1, 2, 4}), (5, 3, 5, set())]
)
def test_rungs_come_before_the_last_epoch(first: int, reduction: int, epochs: int, rungs: set[int]) -> None:
    assert Judging("", "", first, reduction).rungs(epochs) == rungs


def test_one_in_so_many_stays() -> None:
    judging = Judging("", "", 1, 3)
    assert judging.stays(0.5, [0.5])  # the first of all
    assert judging.stays(0.9, [0.9, 0.5, 0.4])
    assert not judging.stays(0.5, [0.9, 0.5, 0.4])
    assert judging.stays(0.5, [0.9, 0.5, 0.4, 0.3])  # two of four, a third rounded up
