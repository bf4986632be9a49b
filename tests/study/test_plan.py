"""What a study still needs, what it will cost, and what it can show."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from raysd.errors import BadInput
from raysd.recipe import Recipe
from raysd.settings import difference, with_changes
from raysd.study.cost import Clips, Hardware, Rate, Speeds
from raysd.study.design import LoadedStudy, load_study, trials_of
from raysd.study.plan import Plan, Room, describe, duration, make_plan, size
from raysd.study.print_plan import MOST_ROWS, render, summary
from raysd.study.spread import Spread, spread_of

BASE = {"augment": {"log_mixup_exp": {}}, "train": {"epochs": 10}, "encoder": {"name": "cnn", "width": 0.25}}
FLOOR = {"encoder": {"name": "spectral_mean"}, "scoring": {"name": "gaussian"}}
STUDY = {
    "question": "does it help?",
    "baseline": "base.yaml",
    "factors": {
        "mixup": {"setting": "augment.log_mixup_exp"},
        "k": {"setting": "scoring.k", "levels": [1, 4]},
        "epochs": {"setting": "train.epochs", "levels": [10, 30]},
    },
    "design": "one_at_a_time",
    "seeds": [0, 1],
    "references": ["floor.yaml"],
}


@pytest.fixture
def study(tmp_path: Path) -> LoadedStudy:
    for name, content in (("base", BASE), ("floor", FLOOR), ("s", STUDY)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_study(tmp_path / "s.yaml")


CLIPS = Clips(train=100, all=150)


def plan_of(study: LoadedStudy, corpus: str = "d0", **known: Any) -> Plan:
    return make_plan(study, trials_of(study, corpus), **known)


def timed(study: LoadedStudy, *recipes: Recipe, **known: Any) -> Plan:
    """A plan with a calibration of `recipes`: 10 items a second in training, 50 clips a second of embedding."""
    speeds = Speeds([], {}, Hardware.planned(study.study.scale), [Rate(recipe, 10.0, 50.0) for recipe in recipes])
    return plan_of(study, speeds=speeds, clips=lambda recipe: CLIPS, **known)


def printed(plan: Plan, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(render(plan))
    return console.export_text()


def keys(study: LoadedStudy, *names: str) -> list[str]:
    return [trial.key for trial in trials_of(study, "d0") if trial.variant in names]


# --- what is to do ----------------------------------------------------------------------------------------------------


def test_trainings_and_scorings_are_counted_apart(study: LoadedStudy) -> None:
    plan = plan_of(study)
    assert [(row.name, row.seeds, row.done, row.trainings, row.scorings) for row in plan.rows] == [
        ("baseline", 2, 0, 2, 2),
        ("without mixup", 2, 0, 2, 2),
        ("k=4", 2, 0, 0, 2),  # shares the baseline's trainings
        ("epochs=30", 2, 0, 2, 2),
        ("floor", 1, 0, 0, 1),  # trains nothing
    ]
    assert (plan.trainings, plan.scorings) == (6, 9)
    assert plan.smallest_p == 0.5
    assert plan.rows[1].changed == {"augment.log_mixup_exp": ("on", None)}


def test_what_is_in_the_results_is_not_done_again(study: LoadedStudy) -> None:
    trained = [trial.training_key for trial in trials_of(study, "d0") if trial.variant == "baseline"]
    plan = plan_of(study, done=keys(study, "baseline", "floor"), trained=trained)
    assert [row.done for row in plan.rows] == [2, 0, 0, 0, 1]
    assert [(row.trainings, row.scorings) for row in plan.rows] == [(0, 0), (2, 2), (0, 2), (2, 2), (0, 0)]
    assert (plan.done, plan.scorings, plan.trainings, plan.reused_trainings) == (3, 6, 4, 2)
    assert plan_of(study, "d1", done=keys(study, "baseline")).done == 0
    finished = plan_of(study, done=[trial.key for trial in trials_of(study, "d0")])
    assert (finished.scorings, finished.seconds, finished.num_bytes) == (0, 0.0, 0)


def test_without_data_everything_is_to_do_and_that_is_said(study: LoadedStudy) -> None:
    plan = plan_of(study, data_known=False, done=keys(study, "baseline"))
    assert plan.done == 0
    assert not plan.data_known
    assert any("give --data-root" in line for line in summary(plan))


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_training_is_paid_once_and_what_only_scores_pays_no_training(study: LoadedStudy) -> None:
    baseline, floor = study.baseline.recipe, study.variants[-1].recipe
    plan = timed(study, baseline, floor)
    # 100 clips x 10 epochs at 10 a second, then 150 clips at 50 a second; an augmentation has the baseline's shape
    assert {row.name: row.seconds for row in plan.rows} == {
        "baseline": pytest.approx(2 * (100 + 3)),
        "without mixup": pytest.approx(2 * (100 + 3)),
        "k=4": pytest.approx(2 * 3),
        "epochs=30": pytest.approx(2 * (300 + 3)),
        "floor": pytest.approx(3),
    }
    assert plan.seconds == pytest.approx(1027)
    assert plan.unknown_trials == 0
    assert [trial.trains for trial in plan.missing[:3]] == [True, True, False]
    assert "measured by the calibration, with one worker" in printed(plan)


def test_the_clock_is_said_for_as_many_at_a_time_as_there_is_room_for(study: LoadedStudy) -> None:
    plan = timed(study, study.baseline.recipe, study.variants[-1].recipe, room=Room(2, "this machine has 2 cores"))
    assert plan.wall_seconds is not None
    assert plan.seconds / 2 <= plan.wall_seconds < plan.seconds
    assert f"{duration(plan.wall_seconds)} with 2 at a time (this machine has 2 cores)" in printed(plan, 200)


def test_gpu_hours_are_of_all_the_gpus_that_a_trial_holds(study: LoadedStudy) -> None:
    assert timed(study, study.baseline.recipe).gpu_hours is None
    four = load_study(study.path, {"scale": {"workers": 2, "gpus_per_worker": 2}})
    plan = timed(four, study.baseline.recipe, study.variants[-1].recipe)
    assert plan.gpu_hours == pytest.approx(4 * 1027 / 3600)
    assert "1.14 GPU-hours" in printed(plan)


def test_time_that_cannot_be_known_is_said_to_be_unknown(study: LoadedStudy) -> None:
    plan = plan_of(study)
    assert plan.unknown_trials == 9
    assert all(row.seconds is None for row in plan.rows)
    assert any("time: unknown, as these trials are unlike any finished one; --calibrate" in s for s in summary(plan))
    some = timed(study, study.baseline.recipe)
    assert some.unknown_trials == 1
    assert any("and 1 trial unlike any finished one" in line for line in summary(some))


def test_what_was_paid_for_already_is_told(study: LoadedStudy) -> None:
    plan = plan_of(study, done=keys(study, "baseline"), paid_seconds=7500)
    assert "2 in the results, which took 2 h 05 min" in summary(plan)[0]


def test_disk_from_measured_sizes_else_from_the_number_of_clips(study: LoadedStudy) -> None:
    checkpoint = plan_of(study, sizes=(0.0, 0.0)).num_bytes
    assert checkpoint is not None
    assert checkpoint > 0
    assert plan_of(study, sizes=(1000.0, 50.0)).num_bytes == 9 * 1000 + 6 * 50 + checkpoint
    rough = plan_of(study, clips=lambda recipe: Clips(800, 1000)).num_bytes
    assert rough is not None
    assert 6 * 1000 * 128 * 4 < rough < 20e6
    assert plan_of(study).num_bytes is None


# --- what it can show -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ((0, 1, 2), "3 seeds cannot reach p < 0.05: "),
        ((0, 1, 2), "ends at p = 0.25; 6 seeds reach 0.031"),
        (range(6), "of 3 variants Holm's first has to be below p = 0.017, which takes 7 seeds"),
        (range(7), "7 seeds: the exact two-sided test of paired differences goes down to p = 0.0156"),
    ],
)
def test_what_the_seeds_can_show(study: LoadedStudy, seeds: Any, said: str) -> None:
    text = "\n".join(summary(plan_of(load_study(study.path, seeds=tuple(seeds)))))
    assert said in text
    assert ("Holm" in text) == (len(seeds) == 6)


def test_the_detectable_difference_follows_from_the_spread(study: LoadedStudy) -> None:
    six = load_study(study.path, seeds=tuple(range(6)))
    plan = plan_of(six, spread=Spread(0.01, "from somewhere"))
    assert plan.detectable == pytest.approx(0.0179, rel=0.02)  # all of 6 have one sign: Phi(1.79) ** 6 is 0.8
    assert any("difference in official: 1.8 points with 6 seeds" in line for line in summary(plan))
    three = plan_of(load_study(study.path, seeds=(0, 1, 2)), spread=Spread(0.01, "from somewhere"))
    assert three.detectable is None
    assert any("difference in official: none with 3 seeds, however large" in line for line in summary(three))
    assert any("unknown until two seeds" in line for line in summary(plan_of(six)))


def test_the_spread_comes_from_pairs_else_from_the_baseline_alone() -> None:
    baseline = {0: 0.70, 1: 0.72, 2: 0.74}
    shifted = {0: 0.71, 1: 0.74}  # differences 0.01 and 0.02
    apart = {1: 0.70, 2: 0.76}  # -0.02 and 0.02
    pairs = spread_of(baseline, [shifted, apart, {2: 0.9}, {}])
    assert pairs is not None
    assert pairs.sd == pytest.approx(((0.00005 + 0.0008) / 2) ** 0.5)
    assert "differences of 2 variants over 2 seeds" in pairs.source
    alone = spread_of(baseline, [{2: 0.9}])
    assert alone is not None
    assert alone.sd == pytest.approx(2**0.5 * 0.02)
    assert "baseline" in alone.source
    assert spread_of({0: 0.7}, [{0: 0.8}]) is None


# --- searches and budgets ---------------------------------------------------------------------------------------------

SEARCH: dict[str, Any] = {
    "question": "which?",
    "baseline": "base.yaml",
    "factors": {
        "rate": {"setting": "train.learning_rate", "range": {"low": 1e-4, "high": 1e-2, "log": True}},
        "loss": {"setting": "loss.classification.name", "levels": ["arcface", "subcluster_adacos"]},
        "mixup": {"setting": "augment.log_mixup_exp"},
    },
    "design": "search",
    "search": {"suggestions": 12},
    "pruning": {},
    "references": [],
}


def test_of_a_search_the_space_is_shown_and_what_its_suggestions_cost(study: LoadedStudy, tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(SEARCH, sort_keys=False))
    search = load_study(tmp_path / "search.yaml")
    plan = timed(search, search.baseline.recipe)
    assert [(row.name, row.seeds) for row in plan.rows] == [("baseline", 1), ("11 suggestions", 11)]
    assert (plan.trainings, plan.scorings) == (12, 12)
    each = plan.rows[0].seconds
    assert each is not None
    assert plan.seconds == pytest.approx(12 * each)
    text = printed(plan, 160)
    for words in ("0.0001 to 0.01, log", "arcface, subcluster_adacos", "on, off", "the most it can be", "perturbed"):
        assert words in text
    assert "ORACLE" not in text
    halfway = timed(search, search.baseline.recipe, suggestions_ended=7)
    assert (halfway.rows[1].done, halfway.rows[1].scorings, halfway.scorings) == (7, 4, 5)
    assert halfway.seconds == pytest.approx(5 * each)


def test_a_budget_of_gpu_hours_needs_gpus(study: LoadedStudy) -> None:
    hours = load_study(study.path, {"budget": {"hours": 8}})
    assert any("budget: 8 hours a run" in line for line in summary(plan_of(hours)))
    gpu_hours = {"budget": {"gpu_hours": 3}}
    with pytest.raises(BadInput, match=r"s.yaml: budget.gpu_hours: its trials use no GPU .*give hours"):
        plan_of(load_study(study.path, gpu_hours))
    assert plan_of(load_study(study.path, {**gpu_hours, "scale": {"gpus_per_worker": 1}})).budget


# --- printing ---------------------------------------------------------------------------------------------------------


def test_the_printed_plan(study: LoadedStudy) -> None:
    text = printed(timed(study, study.baseline.recipe, done=keys(study, "baseline")))
    for words in ("s: does it help?", "augment.log_mixup_exp off", "train.epochs 30 (was 10)", "7 of 9 trials to do"):
        assert words in text
    assert "'k=1' is the same recipe as 'baseline'" in text
    row = next(line for line in text.splitlines() if "epochs=30" in line)
    assert row.split()[-6:] == ["2", "-", "2", "2", "10", "min"]


def test_a_plan_for_scripts_holds_everything(study: LoadedStudy) -> None:
    plan = timed(study, study.baseline.recipe, done=keys(study, "baseline"), spread=Spread(0.01, "x"))
    told = json.loads(plan.to_json())
    assert [row["name"] for row in told["rows"]] == [row.name for row in plan.rows]
    assert told["rows"][1]["changed"] == {"augment.log_mixup_exp": ["on", None]}
    assert {trial["key"] for trial in told["missing"]} == set(keys(study, *(row.name for row in plan.rows[1:])))
    assert told["detectable"] == plan.detectable
    assert (told["done"], told["trainings"], told["scorings"], told["seconds"]) == (2, 6, 7, plan.seconds)
    assert told["notes"] == list(study.notes)


def test_of_very_many_variants_the_first_are_printed(study: LoadedStudy, tmp_path: Path) -> None:
    levels = {"setting": "scoring.k", "levels": list(range(1, MOST_ROWS + 51))}
    (tmp_path / "many.yaml").write_text(yaml.safe_dump({**STUDY, "factors": {"k": levels}}, sort_keys=False))
    text = printed(plan_of(load_study(tmp_path / "many.yaml")))
    assert f"k={MOST_ROWS}" in text
    assert f"k={MOST_ROWS + 1}" not in text
    assert "and 50 more variants, which --json lists" in text
    assert "floor" in text


def test_words_for_people() -> None:
    assert [duration(seconds) for seconds in (3, 89, 300, 5399, 7500)] == [
        "3 s",
        "89 s",
        "5 min",
        "1 h 30 min",
        "2 h 05 min",
    ]
    assert [size(count) for count in (12, 34_700, 34_700_000, 2e12)] == ["12 B", "34.7 kB", "34.7 MB", "2 TB"]
    assert describe({"a": ("on", None), "b": (None, "on"), "c": (1.0, 2.5), "d": (True, None)}) == (
        "a off; b on; c 2.5 (was 1); d null (was true)"
    )


def test_what_another_part_brings_and_is_off_is_said_so() -> None:
    fused = with_changes(
        Recipe(), {"beside": {}, "scoring": {"name": "fusion", "loudest": None, "combine": "max"}}, "x"
    )
    assert describe(difference(Recipe(), fused)) == (
        "beside on; scoring.name fusion (was knn); scoring.loudest off; scoring.combine max"
    )
