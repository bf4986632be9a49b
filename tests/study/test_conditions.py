"""Factors that mean something only beside some levels of others: `when`, and parts that are off or of another kind."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raysd.errors import BadInput
from raysd.recipe import Recipe, recipe_key
from raysd.settings import with_changes
from raysd.study.design import LoadedStudy, load_study, trials_of
from raysd.study.files import Factor
from raysd.study.levels import has_meaning

RECIPE = {"augment": {"high_frequency": {"cutoff_hz": 1000}}, "encoder": {"name": "cnn"}, "train": {"epochs": 5}}
ENCODER = {"setting": "encoder", "levels": [{"name": "cnn"}, {"name": "mobilefacenet"}, {"name": "spectral_mean"}]}
DECAY = {"setting": "encoder.gwrp_decay", "levels": [0.25, 0.75]}
WIDTH = {"setting": "encoder.width", "levels": [0.25, 0.5]}
HIGH = {"setting": "augment.high_frequency"}
CUTOFF = {"setting": "augment.high_frequency.cutoff_hz", "levels": [500, 2000]}
MODE = {"setting": "augment.high_frequency.mode", "levels": ["gain", "mask"]}
EPOCHS = {"setting": "train.epochs", "levels": [1, 2]}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LoadedStudy]:
    folder = tmp_path_factory.mktemp("conditions")

    def loaded(factors: dict[str, Any], design: Any = "factorial", **more: Any) -> LoadedStudy:
        content = {"question": "?", "baseline": "base.yaml", "factors": factors, "design": design, "references": []}
        (folder / "base.yaml").write_text(yaml.safe_dump(RECIPE))
        (folder / "s.yaml").write_text(yaml.safe_dump(content | more, sort_keys=False))
        return load_study(folder / "s.yaml")

    return loaded


def names(study: LoadedStudy) -> list[str]:
    return [variant.name for variant in study.variants]


def test_a_factor_is_crossed_only_where_its_condition_holds(load) -> None:
    study = load({"encoder": ENCODER, "width": WIDTH | {"when": {"encoder.name": ["cnn"]}}, "epochs": EPOCHS})
    assert names(study) == [
        "baseline",
        *(f"encoder=cnn, width={width}, epochs={epochs}" for width in (0.25, 0.5) for epochs in (1, 2)),
        *(f"encoder={name}, epochs={epochs}" for name in ("mobilefacenet", "spectral_mean") for epochs in (1, 2)),
    ]
    assert study.notes == ()
    nested = load({"high": HIGH, "epochs": EPOCHS | {"when": {"augment": {"high_frequency": None}}}})
    assert names(nested) == ["baseline", "high=off, epochs=1", "high=off, epochs=2"]
    assert nested.notes == ("'high=on' is the same recipe as 'baseline'",)


def test_a_condition_sees_all_factors_above_it_and_only_those(load) -> None:
    factors = {
        "high": HIGH,
        "mode": MODE | {"when": {"augment.high_frequency": "on"}},
        "epochs": EPOCHS | {"when": {"augment.high_frequency.mode": "mask"}},
    }
    wanted = ["high=on, mode=gain", "high=on, mode=mask, epochs=1", "high=on, mode=mask, epochs=2", "high=off"]
    assert names(load(factors))[1:] == wanted
    with pytest.raises(BadInput) as error:
        load({"mode": factors["mode"], "high": HIGH})
    assert "s.yaml: factors.mode.when: augment.high_frequency is set by the factor 'high' below it" in str(error.value)


@pytest.mark.parametrize("order", [1, -1])
def test_what_lies_in_a_part_that_is_off_or_of_another_kind_is_not_crossed(load, order: int) -> None:
    study = load(dict([("high", HIGH), ("cutoff", CUTOFF)][::order]))
    assert {frozenset(name.split(", ")) for name in names(study)[1:]} == {
        frozenset({"high=on", "cutoff=500"}),
        frozenset({"high=on", "cutoff=2000"}),
        frozenset({"high=off"}),
    }
    assert study.notes == ()
    study = load(dict([("encoder", ENCODER), ("decay", DECAY)][::order]))
    assert {frozenset(name.split(", ")) for name in names(study)[1:]} == {
        frozenset({"encoder=spectral_mean", "decay=0.25"}),
        frozenset({"encoder=spectral_mean", "decay=0.75"}),
        frozenset({"encoder=mobilefacenet"}),
    }
    assert all(note.endswith("the same recipe as 'baseline'") for note in study.notes)


def test_off_stays_off_where_both_a_part_and_a_setting_in_it_are_switched_off(load) -> None:
    edge = {"setting": "augment.high_frequency.edge_octaves", "off": 0}
    study = load({"edge": edge, "high": HIGH}, ["leave_one_out", "only_one"])
    assert names(study) == ["baseline", "without edge", "without high"]
    assert study.variants[2].recipe.augment.high_frequency is None
    assert [note.split(" is ")[0] for note in study.notes] == ["'none'", "'only edge'", "'only high'"]


def test_a_bundle_keeps_what_means_something(load) -> None:
    bundle = {"levels": {"short": {"augment.high_frequency.cutoff_hz": 500, "train.epochs": 2}, "as it is": {}}}
    study = load({"high": HIGH, "bundle": bundle})
    assert names(study)[1:] == ["high=on, bundle=short", "high=off, bundle=short", "high=off, bundle=as it is"]
    assert study.variants[2].recipe.augment.high_frequency is None
    assert study.variants[2].recipe.train.epochs == 2


def test_designs_without_crossing_leave_out_what_means_nothing_in_the_baseline(load) -> None:
    decay = DECAY | {"when": {"encoder.name": "spectral_mean"}}
    study = load({"encoder": ENCODER, "decay": decay}, ["one_at_a_time", "factorial"])
    assert study.notes[0] == (
        "design one_at_a_time leaves the factor 'decay' out: its `when` does not hold in the baseline"
    )
    assert names(study)[:3] == ["baseline", "encoder=mobilefacenet", "encoder=spectral_mean"]
    assert "encoder=spectral_mean, decay=0.75" in names(study)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (
            {"width": WIDTH | {"when": {"encodr.name": "cnn"}}},
            "factors.width.when: unknown setting 'encodr'; did you mean 'encoder'?",
        ),
        (
            {"width": WIDTH | {"when": {"train.epochs.x": 1}}},
            "factors.width.when: train.epochs is a single value, and has no 'x' in it",
        ),
        (
            {"encoder": ENCODER, "width": WIDTH | {"when": {"encoder.name": "resnet"}}},
            "factors.width.when: encoder.name is never resnet; in the baseline and with the factors above it is cnn, ",
        ),
        (
            {"width": WIDTH | {"when": {"augment.high_frequency": "off"}}},
            "factors.width.when: augment.high_frequency is never off; in the baseline and with the factors above it ",
        ),
        (
            {
                "high": HIGH,
                "encoder": ENCODER,
                "width": WIDTH
                | {
                    "when": {
                        "augment.high_frequency": None,
                        "encoder.name": "cnn",
                        "augment.high_frequency.mode": "gain",
                    }
                },
            },
            "factors.width.when: augment.high_frequency.mode is never gain",
        ),
        ({"width": WIDTH | {"when": 3}}, "factors.width.when: expected settings as 'name: value' (given: 3)"),
        (
            {"high": HIGH, "cutoff": CUTOFF | {"levels": [500, -1]}},
            "factors.cutoff.levels[1]: augment.high_frequency.cutoff_hz: input should be greater than 0",
        ),
        (
            {"encoder": ENCODER, "x": {"setting": "encoder.widht", "levels": [1]}},
            "factors.x.levels[0]: encoder: unknown setting 'widht'; did you mean 'width'?",
        ),
        (
            {"encoder": ENCODER | {"levels": [{"name": "cnn"}, {"name": "mobilefacenet"}]}, "decay": DECAY},
            "factors.decay: means nothing beside any level of the other factors; leave it out",
        ),
    ],
)
def test_a_condition_that_cannot_be_meant_is_one_line(load, factors: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        load(factors)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# --- search -----------------------------------------------------------------------------------------------------------


def test_a_search_makes_only_its_baseline(load) -> None:
    factors = {
        "encoder": ENCODER,
        "width": {"setting": "encoder.width", "range": {"low": 0.125, "high": 1.0, "log": True}},
        "decay": DECAY | {"when": {"encoder.name": "spectral_mean"}},
        "high": HIGH,
        "cutoff": {"setting": "augment.high_frequency.cutoff_hz", "range": {"low": 100, "high": 7000}},
    }
    study = load(factors, "search", references=["recipes/classical.yaml"])
    assert names(study) == ["baseline", "classical"]
    assert [choice.name for choice in study.choices] == list(factors)
    assert [level.changes for level in study.choices[4].levels] == [{CUTOFF["setting"]: 100}, {CUTOFF["setting"]: 7000}]
    assert not study.oracle
    oracle = load({"high": HIGH}, "search", search={"oracle": True})
    assert oracle.oracle
    assert oracle.notes == ("the search chooses on test labels (oracle)",)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"a": EPOCHS | {"levels": [1, -1]}}, "s.yaml: factors.a.levels[1]: train.epochs: input should be greater"),
        (
            {"a": {"setting": "train.learning_rate", "range": {"low": 0, "high": 1}}},
            "s.yaml: factors.a.range.low: train.learning_rate: input should be greater than 0",
        ),
        (
            {"a": {"setting": "train.ema", "range": {"low": 0.5, "high": 2}}},
            "s.yaml: factors.a.range.high: train.ema: input should be less than 1",
        ),
        (
            {"encoder": ENCODER, "a": DECAY | {"levels": [7], "when": {"encoder.name": "spectral_mean"}}},
            "s.yaml: factors.a.levels[0]: encoder.gwrp_decay: input should be less than or equal to 1",
        ),
        ({"a": {"setting": "encoder.widht", "range": {"low": 1, "high": 2}}}, "unknown setting 'widht'; did you mean"),
        (
            {"a": {"setting": "augment.log_mixup_exp.alpha", "range": {"low": 0.1, "high": 0.2}}},
            "s.yaml: factors.a: it lies in a part that is off in the baseline; switch it on there",
        ),
        (
            {"a": EPOCHS | {"when": {"encoder.name": "mobilefacenet"}}},
            "s.yaml: factors.a.when: encoder.name is never mob",
        ),
    ],
)
def test_mistakes_in_a_space_show_when_it_is_loaded(load, factors: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        load(factors, "search")
    assert message in str(error.value)


def test_a_factor_has_a_meaning_where_it_could_change_something() -> None:
    recipe = with_changes(Recipe(), RECIPE, "test")
    off = with_changes(recipe, {"augment.high_frequency": None}, "test")
    other = with_changes(recipe, {"encoder.name": "spectral_mean"}, "test")
    assert has_meaning(Factor.model_validate(CUTOFF), recipe)
    assert not has_meaning(Factor.model_validate(CUTOFF), off)
    assert has_meaning(Factor.model_validate(HIGH), off)
    assert has_meaning(Factor.model_validate(WIDTH), recipe)
    assert not has_meaning(Factor.model_validate(WIDTH), other)
    when = EPOCHS | {"when": {"augment.high_frequency.cutoff_hz": [1000, 3000]}}
    assert has_meaning(Factor.model_validate(when), recipe)
    assert not has_meaning(Factor.model_validate(when), off)


# --- properties -------------------------------------------------------------------------------------------------------

CONDITIONS = [
    {},
    {"encoder.name": "cnn"},
    {"encoder.name": ["cnn", "mobilefacenet"]},
    {"augment.high_frequency": "on"},
    {"augment.high_frequency": "on", "encoder.name": "cnn"},
]


@st.composite
def crossings(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Factors in any order, some with a condition on those above them."""
    known = {"encoder": ENCODER, "width": WIDTH, "high": HIGH, "cutoff": CUTOFF, "epochs": EPOCHS, "decay": DECAY}
    order = draw(st.lists(st.sampled_from(list(known)), min_size=1, max_size=5, unique=True))
    if "encoder" not in order and "decay" in order:  # the baseline's encoder has no such setting
        order.append("encoder")
    factors = {name: dict(known[name]) for name in order}
    for place, name in enumerate(order):
        if name not in ("encoder", "high") and not {"encoder", "high"} & set(order[place + 1 :]):
            conditions = [when for when in CONDITIONS if name != "decay" or "encoder.name" not in when]
            factors[name]["when"] = draw(st.sampled_from(conditions))
    return factors


def recipes_by_definition(factors: dict[str, dict[str, Any]]) -> set[tuple]:
    """Every cell of all levels as the values that count in it: of a factor left out the baseline's, of a part that is
    off or another encoder's nothing."""
    baseline = {"encoder": {"name": "cnn"}, "high": "on", "width": 1.0, "cutoff": 1000, "epochs": 5, "decay": 0.99}
    found: set[tuple] = {("cnn", 1.0, None, 1000, 5)}
    for cell in product(*(factor.get("levels", ["on", "off"]) for factor in factors.values())):
        picked = baseline | dict(zip(factors, cell, strict=True))
        encoder, high = picked["encoder"]["name"], picked["high"]
        for name, factor in factors.items():
            when = factor.get("when", {})
            holds = encoder in when.get("encoder.name", encoder) and high == when.get("augment.high_frequency", high)
            picked[name] = picked[name] if holds else baseline[name]
        width = picked["width"] if encoder != "spectral_mean" else None
        decay = picked["decay"] if encoder == "spectral_mean" else None
        found.add((encoder, width, decay, picked["cutoff"] if high == "on" else None, picked["epochs"]))
    return found


@settings(max_examples=60, deadline=None)
@given(crossings(), st.integers(1, 3))
def test_a_crossing_has_as_many_trials_as_its_definition(load, factors: dict[str, Any], seeds: int) -> None:
    study = load(factors, seeds=list(range(seeds)))
    wanted = recipes_by_definition(factors)
    assert len(study.variants) == len({recipe_key(variant.recipe) for variant in study.variants}) == len(wanted)
    depends = [cell for cell in wanted if cell[0] != "spectral_mean"]  # the others need no second seed
    assert len(trials_of(study, "data")) == len(wanted) + (seeds - 1) * len(depends)
    assert len(set(names(study))) == len(study.variants)
