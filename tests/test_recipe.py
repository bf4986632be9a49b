"""The recipe: one frozen tree, and the keys made from it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysd import recipe as recipe_module
from raysd.errors import BadInput
from raysd.recipe import Recipe, recipe_key, training_key, trial_key
from raysd.settings import difference, flatten, parse, with_changes
from raysd.yaml_values import parse_assignments

CHANGES: list[dict[str, Any]] = [
    {"data.year": 2022},
    {"data.machines": ["ToyCar"]},
    {"features.num_bands": 64},
    {"segments.two_crops": False},
    {"augment.high_frequency": {}},
    {"augment.high_frequency.cutoff_hz": 500},
    {"augment.log_mixup_exp.alpha": 0.2},
    {"encoder.name": "audiontt2020"},
    {"encoder.name": "spectral_mean"},
    {"loss.contrastive": None},
    {"loss.contrastive.name": "nt_xent"},
    {"loss.classification.margin": 0.5},
    {"train.epochs": 3},
    {"train.learning_rate": 0.01},
    {"scoring.name": "gaussian"},
    {"scoring.k": 3},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: next(iter(changes)))
def test_every_change_makes_another_trial_and_survives_json(changes: dict[str, Any]) -> None:
    changed = with_changes(Recipe(), changes, "x")
    assert recipe_key(changed) != recipe_key(Recipe())
    assert trial_key(changed, 0, "data") != trial_key(Recipe(), 0, "data")
    again = parse(Recipe, json.loads(changed.model_dump_json()), "json")
    assert again == changed
    assert recipe_key(again) == recipe_key(changed)
    assert set(difference(Recipe(), changed)) == {next(iter(changes))} or "augment" in next(iter(changes))


def test_a_trial_is_named_by_recipe_seed_data_and_numerics(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {trial_key(Recipe(), seed, data) for seed in (0, 1) for data in ("a", "b")}
    assert len(keys) == 4
    assert all(len(key) == 20 for key in keys)
    monkeypatch.setattr(recipe_module, "NUMERICS", recipe_module.NUMERICS + 1)
    assert trial_key(Recipe(), 0, "a") not in keys


def test_a_value_written_otherwise_is_the_same_recipe() -> None:
    written = parse_assignments(["train.learning_rate=1e-3", "train.epochs=50", "augment.high_frequency=null"])
    assert recipe_key(with_changes(Recipe(), written, "x")) == recipe_key(Recipe())


def test_the_scoring_alone_needs_no_other_training() -> None:
    scored = with_changes(Recipe(), {"scoring": {"name": "gaussian", "shrinkage": 0.5}}, "x")
    assert training_key(scored, 0, "data") == training_key(Recipe(), 0, "data")
    assert trial_key(scored, 0, "data") != trial_key(Recipe(), 0, "data")
    trained = with_changes(Recipe(), {"train.epochs": 3}, "x")
    assert training_key(trained, 0, "data") != training_key(Recipe(), 0, "data")


def test_only_names_and_parts_of_the_default_recipe_are_in_its_key() -> None:
    flat = flatten(Recipe())
    assert all(path.endswith(".name") or value == "on" for path, value in flat.items())
    assert {"encoder.name", "scoring.name"} <= flat.keys()


def test_a_plausible_slip_gets_the_right_hint() -> None:
    with pytest.raises(BadInput, match=r"did you mean 'loss\.contrastive\.temperature'"):
        with_changes(Recipe(), {"loss.temperature": 0.1}, "--set")
    with pytest.raises(BadInput, match=r"augment: unknown setting 'high_freq'; did you mean 'high_frequency'"):
        with_changes(Recipe(), {"augment.high_freq.cutoff_hz": 1}, "--set")
    with pytest.raises(BadInput, match=r"encoder\.name: unknown name 'mobilfacenet'; did you mean 'mobilefacenet'"):
        with_changes(Recipe(), {"encoder.name": "mobilfacenet"}, "--set")


@given(st.lists(st.sampled_from([changes for changes in CHANGES if "scoring.k" not in changes]), max_size=4))
def test_recipes_differ_exactly_where_their_keys_do(several: list[dict[str, Any]]) -> None:
    changed = Recipe()
    for changes in several:
        changed = with_changes(changed, changes, "x")
    assert (difference(Recipe(), changed) == {}) == (recipe_key(changed) == recipe_key(Recipe()))
    assert (difference(changed, Recipe()) == {}) == (changed == Recipe())
