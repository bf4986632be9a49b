"""What trials take, from the records of earlier ones."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from raysd.parallel import Scale
from raysd.recipe import Recipe, recipe_key
from raysd.settings import with_changes
from raysd.study.cost import (
    MOST_READ,
    Clips,
    Hardware,
    Speeds,
    cost,
    paid_seconds,
    sample,
    training_shape,
    wall_seconds,
)
from raysd.study.design import Trial

CPU = {"device": "cpu", "device_model": None, "threads": 1, "scale": Scale().model_dump(mode="json")}
GPU = {"device": "cuda:0", "device_model": "A100", "threads": 1, "scale": {"gpus_per_worker": 1.0}}
BASE = with_changes(Recipe(), {"train.epochs": 10, "segments.train_count": 2}, "test")
HERE, THERE = Clips(train=100, all=150), Clips(train=1000, all=1400)
KNOWN = {"here": HERE, "there": THERE}


def record(
    recipe: Recipe = BASE,
    rate: float = 50.0,
    beyond: float = 3.0,
    corpus: str = "here",
    on: dict[str, Any] = CPU,
    training: str = "",
    minute: int = 0,
    **other: Any,
) -> dict[str, Any]:
    """A finished trial: its training at `rate` items a second, then `beyond` seconds."""
    train = recipe.train.epochs * KNOWN[corpus].items(recipe) / rate
    return {
        "training_key": training or f"{recipe_key(recipe)} {corpus} {minute}",
        "recipe_key": recipe_key(recipe),
        "recipe": recipe.model_dump_json(),
        "data_fingerprint": corpus,
        "finished": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute),
        "train_seconds": train,
        "total_seconds": train + beyond,
        "clips_per_second": rate,
        "provenance": json.dumps(on),
        **other,
    }


def speeds(*rows: dict[str, Any], scale: Scale = Scale(), model: str | None = None) -> Speeds:
    return Speeds(rows, KNOWN, Hardware.planned(scale, model))


def test_train_seconds_are_items_by_epochs_by_the_rate_on_any_corpus_and_for_any_epochs() -> None:
    found = cost(BASE, "here", HERE, speeds(record()))
    assert found.training == pytest.approx(100 * 2 * 10 / 50)
    assert found.embedding == pytest.approx(3.0)
    assert found.seconds(trains=True) == pytest.approx(43.0)
    longer = with_changes(BASE, {"train.epochs": 40, "loss.contrastive.temperature": 0.2}, "test")
    elsewhere = cost(longer, "there", THERE, speeds(record()))
    assert elsewhere.training == pytest.approx(1000 * 2 * 40 / 50)
    assert elsewhere.embedding == pytest.approx(3.0 * 1400 / 150)
    held_out = with_changes(BASE, {"train.held_out": 0.2}, "test")
    assert cost(held_out, "here", HERE, speeds(record())).training == pytest.approx(80 * 2 * 10 / 50)


def test_the_likest_measurement_serves_and_of_several_the_median() -> None:
    other = with_changes(BASE, {"loss.contrastive.temperature": 0.2}, "test")
    rows = [record(rate=rate, minute=i) for i, rate in enumerate([40.0, 50.0, 90.0])]
    like = record(other, rate=70.0, minute=7)
    far = record(other, rate=10.0, corpus="there", minute=8)
    assert speeds(*rows, like, far).training(BASE, "here") == 50.0
    assert speeds(like, far).training(BASE, "here") == 70.0
    assert speeds(far).training(BASE, "here") == 10.0


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": {"name": "cnn"}},
        {"features.num_bands": 64},
        {"segments.train_seconds": 1.0},
        {"train.batch_size": 32},
        {"train.precision": "fp32"},
        {"loss.classification": None},
    ],
)
def test_another_shape_tells_nothing(change: dict[str, Any]) -> None:
    other = with_changes(BASE, change, "test")
    assert training_shape(other) != training_shape(BASE)
    assert cost(other, "here", HERE, speeds(record())).training is None


def test_only_the_same_kind_of_hardware_and_scale_counts() -> None:
    on_gpu = Scale(gpus_per_worker=1)
    assert speeds(record(), scale=on_gpu).training(BASE, "here") is None
    assert speeds(record(), scale=on_gpu).measured_elsewhere == ["1 CPU thread"]
    assert speeds(record(on=GPU)).training(BASE, "here") is None
    assert speeds(record(on=GPU)).measured_elsewhere == ["A100"]
    assert speeds(record(), scale=Scale(cpus_per_worker=2)).training(BASE, "here") is None
    assert speeds(record(), scale=Scale(workers=2)).training(BASE, "here") is None
    assert speeds(record(on=CPU | {"scale": None})).training(BASE, "here") == 50.0  # before the scale was recorded
    both = (record(on=GPU), record(on=GPU | {"device_model": "T4"}, rate=5.0, minute=1))
    assert speeds(*both, scale=on_gpu, model="A100").training(BASE, "here") == 50.0
    latest = speeds(*both, scale=on_gpu)  # which one it will be is not known
    assert (latest.training(BASE, "here"), latest.measured_on) == (5.0, "T4")
    assert speeds(*both, scale=on_gpu, model="H200").training(BASE, "here") is None


def test_what_only_scored_tells_of_scoring_alone() -> None:
    first, again = record(training="t"), record(training="t", minute=5, total_seconds=0.5)
    found = cost(BASE, "here", HERE, speeds(first, again))
    assert (found.training, found.embedding) == (pytest.approx(40.0), pytest.approx(3.0))
    assert found.scoring == pytest.approx(0.5)
    assert cost(BASE, "here", HERE, speeds(first)).scoring == pytest.approx(3.0)  # the most it can be


def test_an_interrupted_training_tells_its_rate_but_not_the_time_beyond() -> None:
    found = cost(BASE, "here", HERE, speeds(record(total_seconds=7.0)))
    assert (found.training, found.embedding) == (pytest.approx(40.0), None)


def test_what_is_not_trained_has_no_training() -> None:
    floor = with_changes(Recipe(), {"encoder": {"name": "spectral_mean"}}, "test")
    row = record(floor, beyond=2.0) | {"train_seconds": 0.0, "total_seconds": 2.0, "clips_per_second": None}
    found = cost(floor, "here", HERE, speeds(row))
    assert (found.training, found.embedding) == (0.0, pytest.approx(2.0))


def test_a_shared_training_was_paid_once() -> None:
    rows = [record(training="t"), record(training="t", minute=5, total_seconds=0.5), record(total_seconds=7.0)]
    assert paid_seconds(rows) == pytest.approx(43.0 + 0.5 + 40.0)


def test_clips_are_counted_without_the_stand_ins_of_a_search() -> None:
    splits = ["train"] * 8 + ["held_out"] * 2 + ["perturbed"] * 6 + ["other_section"] * 2 + ["test"] * 5
    assert Clips.counted(splits) == Clips(train=10, all=15)


def test_of_very_many_records_some_are_read_of_a_variant_all_or_none() -> None:
    def trial(variant: int, seed: int) -> Trial:
        recipe = with_changes(BASE, {"train.learning_rate": (variant + 1) / 1e4}, "test")
        return Trial("baseline" if variant == 0 else f"v{variant}", "variant", recipe, seed, "here")

    own = [trial(variant, seed) for seed in range(3) for variant in range(MOST_READ)]
    others = [f"other {i}" for i in range(2 * MOST_READ)]
    keys = sample(own, others)
    assert MOST_READ / 2 < len(keys) <= MOST_READ
    kept = [t for t in own if t.key in keys]
    seeds = {t.variant: sum(other.variant == t.variant for other in kept) for t in kept}
    assert set(seeds.values()) == {3}
    assert "baseline" in seeds
    assert sample(own[:2], others[:2]) == {own[0].key, own[1].key, *others[:2]}


@pytest.mark.parametrize(
    ("seconds", "at_once", "wall"),
    [([], 2, 0.0), ([5, 3, 3], 1, 11.0), ([5, 3, 3], 2, 6.0), ([5, 3, 3], 9, 5.0), ([1, 1, 8], 2, 9.0)],
)
def test_the_time_by_the_clock(seconds: list[float], at_once: int, wall: float) -> None:
    assert wall_seconds(seconds, at_once) == wall
