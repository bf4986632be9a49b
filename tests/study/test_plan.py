"""What a study still needs and what it will cost."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from raysd.recipe import Recipe, recipe_key
from raysd.results.store import Timing
from raysd.settings import with_changes
from raysd.study.design import LoadedStudy, load_study, trials_of
from raysd.study.plan import describe, duration, make_plan, render, size, summary

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


def timing(recipe: Recipe, train: float, total: float, fingerprint: str = "d0") -> Timing:
    return Timing(recipe_key(recipe), recipe.model_dump_json(), fingerprint, train, total)


def keys(study: LoadedStudy, *names: str) -> list[str]:
    return [trial.key for trial in trials_of(study, "d0") if trial.variant in names]


def test_trainings_and_scorings_are_counted_apart(study: LoadedStudy) -> None:
    plan = make_plan(study, "d0")
    assert [(row.name, row.seeds, row.done) for row in plan.rows] == [
        ("baseline", 2, 0),
        ("without mixup", 2, 0),
        ("k=4", 2, 0),
        ("epochs=30", 2, 0),
        ("floor", 1, 0),
    ]
    assert plan.scorings == 9
    assert plan.trainings == 6  # k shares the baseline's; the floor trains nothing
    assert plan.smallest_p == 0.5
    assert plan.rows[1].changed == {"augment.log_mixup_exp": ("on", None)}


def test_what_is_in_the_results_is_not_done_again(study: LoadedStudy) -> None:
    trained = [trial.training_key for trial in trials_of(study, "d0") if trial.variant == "baseline"]
    plan = make_plan(study, "d0", done=keys(study, "baseline", "floor"), trained=trained)
    assert [row.done for row in plan.rows] == [2, 0, 0, 0, 1]
    assert [row.to_do for row in plan.rows] == [0, 2, 2, 2, 0]
    assert (plan.done, plan.scorings, plan.trainings, plan.reused_trainings) == (3, 6, 4, 2)
    assert make_plan(study, "d1", done=keys(study, "baseline")).done == 0
    finished = make_plan(study, "d0", done=[trial.key for trial in trials_of(study, "d0")])
    assert (finished.scorings, finished.seconds, finished.num_bytes) == (0, 0.0, 0)


def test_time_comes_from_the_recipe_itself_else_from_its_like(study: LoadedStudy) -> None:
    baseline, floor = study.baseline.recipe, study.variants[-1].recipe
    timings = [timing(baseline, 100, 104), timing(baseline, 100, 104), timing(baseline, 140, 150), timing(floor, 0, 3)]
    plan = make_plan(study, "d0", timings=timings)
    seconds = {row.name: row.seconds for row in plan.rows}
    assert seconds["baseline"] == pytest.approx(2 * (100 + 4))
    assert seconds["without mixup"] == pytest.approx(2 * (100 + 4))  # an augmentation costs next to nothing
    assert seconds["k=4"] == pytest.approx(2 * 4)  # the training is the baseline's
    assert seconds["epochs=30"] == pytest.approx(2 * (300 + 4))
    assert seconds["floor"] == pytest.approx(3)
    assert plan.seconds == pytest.approx(208 + 208 + 8 + 608 + 3)
    assert plan.unknown_trials == 0


def test_time_that_cannot_be_known_is_said_to_be_unknown(study: LoadedStudy) -> None:
    baseline = study.baseline.recipe
    other = with_changes(baseline, {"encoder.width": 1.0}, "x")
    timings = [timing(other, 100, 104), timing(baseline, 100, 104, fingerprint="other data")]
    plan = make_plan(study, "d0", timings=timings)
    assert plan.unknown_trials == 9
    assert all(row.seconds is None for row in plan.rows)
    assert any("time: unknown until" in line for line in summary(plan))
    some = make_plan(study, "d0", timings=[timing(baseline, 100, 104)])
    assert some.unknown_trials == 1
    assert any("and 1 trial unlike any finished one" in line for line in summary(some))


def test_a_resumed_trial_gives_no_negative_time(study: LoadedStudy) -> None:
    plan = make_plan(study, "d0", timings=[timing(study.baseline.recipe, 100, 7)])
    assert plan.rows[0].seconds == pytest.approx(2 * 107)


def test_disk_from_measured_sizes_else_from_the_number_of_clips(study: LoadedStudy) -> None:
    checkpoint = make_plan(study, "d0", sizes=(0.0, 0.0)).num_bytes
    assert checkpoint is not None
    assert checkpoint > 0
    assert make_plan(study, "d0", sizes=(1000.0, 50.0)).num_bytes == 9 * 1000 + 6 * 50 + checkpoint
    rough = make_plan(study, "d0", clips=1000).num_bytes
    assert rough is not None
    assert 6 * 1000 * 128 * 4 < rough < 20e6
    assert make_plan(study, "d0").num_bytes is None


def test_without_data_everything_is_to_do_and_that_is_said(study: LoadedStudy) -> None:
    plan = make_plan(study, None, done=keys(study, "baseline"))
    assert plan.done == 0
    assert not plan.data_known
    assert any("give --data-root" in line for line in summary(plan))


@pytest.mark.parametrize(("seeds", "said"), [((0, 1, 2), "p = 0.25; 6 seeds reach 0.031"), (range(6), "p = 0.0312")])
def test_what_the_seeds_can_show(tmp_path: Path, study: LoadedStudy, seeds: Any, said: str) -> None:
    plan = make_plan(load_study(study.path, seeds=tuple(seeds)), "d0")
    line = next(line for line in summary(plan) if "seeds:" in line)
    assert line.endswith(said)


def test_the_printed_plan(study: LoadedStudy) -> None:
    plan = make_plan(study, "d0", keys(study, "baseline"), timings=[timing(study.baseline.recipe, 100, 104)])
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(render(plan))
    text = console.export_text()
    for words in ("s: does it help?", "augment.log_mixup_exp off", "train.epochs 30 (was 10)", "7 of 9 trials to do"):
        assert words in text
    assert "'k=1' is the same recipe as 'baseline'" in text
    row = next(line for line in text.splitlines() if "epochs=30" in line)
    assert row.split()[-5:] == ["2", "0", "2", "10", "min"]


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
