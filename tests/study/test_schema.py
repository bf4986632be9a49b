"""The schemas for editors, and the reference made from them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from raysd.detect.scoring import SCORERS
from raysd.errors import BadInput
from raysd.model.augment import AUGMENTATIONS
from raysd.model.encoders import ENCODERS
from raysd.model.losses import CLASSIFICATION, CONTRASTIVE
from raysd.recipe import Recipe
from raysd.settings import flatten, with_changes
from raysd.study.design import load_study
from raysd.study.files import load_recipe
from raysd.study.places import predefined_folder, predefined_pretrainings
from raysd.study.pretrainings import load_pretraining
from raysd.study.reference import EXAMPLE, study_file_markdown
from raysd.study.schema import SCHEMAS, as_text, pretraining_schema, recipe_schema, study_schema
from raysd.yaml_values import read_yaml

DOCS = Path(__file__).parents[2] / "docs"
STUDY = Draft202012Validator(study_schema())
RECIPE = Draft202012Validator(recipe_schema())
PRETRAINING = Draft202012Validator(pretraining_schema())

PLAIN: dict[str, Any] = {
    "question": "does it help?",
    "baseline": "recipes/spectrum_contrastive.yaml",
    "factors": {"cutoff": {"setting": "augment.high_frequency.cutoff_hz", "levels": [500, 1000]}},
    "design": "one_at_a_time",
}
SPACE = {"rate": {"setting": "train.learning_rate", "range": {"low": 1e-4, "high": 1e-2, "log": True}}}


def factor(**changes: Any) -> dict[str, Any]:
    return {"factors": {"cutoff": {**PLAIN["factors"]["cutoff"], **changes}}}


def wrong(validator: Draft202012Validator, content: Any) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(content)]


def test_predefined_files_are_valid() -> None:
    for path in sorted(predefined_folder().rglob("*.yaml")):
        kind = "recipe" if path.parent.name == "recipes" else "study"
        kind = "pretraining" if path.stem in predefined_pretrainings() else kind
        assert wrong(Draft202012Validator(SCHEMAS[kind]()), read_yaml(path)) == [], path.name
        first = path.read_text(encoding="utf-8").splitlines()[0]
        named = re.fullmatch(r"# yaml-language-server: \$schema=(.+)", first)
        assert named, f"{path.name}: an editor finds the schema by the first line"
        schema = predefined_folder() / f"{kind}.schema.json"
        assert (path.parent / named[1]).resolve() == schema, path.name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"changes": {"train.epochs": 3, "augment": {"high_frequency": {}, "log_mixup_exp": None}}},
        {"changes": {"encoder": {"width": 0.5, "pooling": {"time": "max"}}, "scoring": {"k": 3}}},
        {"changes": {"augment": {"high_frequency.cutoff_hz": 300}}},
        {"design": ["factorial", "one_at_a_time"], "seeds": [0, 1], "scale": {"workers": 2}, "budget": {"hours": 2}},
        {"factors": {"loss": {"setting": "loss.contrastive", "levels": [{"name": "byol"}, None]}}},
        {"factors": {"loss": {"levels": {"off": {"loss.contrastive": None}, "b": {"loss": {"classes": "section"}}}}}},
        {"factors": {"mixup": {"setting": "augment.log_mixup_exp"}}, "design": "leave_one_out"},
        factor(when={"augment.high_frequency": "on", "augment.high_frequency.mode": ["noise", "mask"]}),
        {"design": "list", "variants": {"a": {"train.epochs": 3}, "b": "recipes/classical.yaml"}, "factors": {}},
        {"design": "search", "factors": SPACE, "search": {"suggestions": 9}, "pruning": {}},
    ],
)
def test_what_loads_is_valid(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(PLAIN | changes, sort_keys=False))
    load_study(path)
    assert wrong(STUDY, read_yaml(path)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": [1]},
        {"question": ""},
        {"design": "factorials"},
        {"design": []},
        {"seeds": [-1]},
        {"metric": "auroc"},
        {"scale": {"worker": 2}},
        {"changes": {"train.epoch": 3}},
        {"changes": {"train": {"epochs": "many"}}},
        {"changes": {"train": {"epochs": True}}},
        {"changes": {"augment": {"high_frequency.cutof_hz": 300}}},
        {"changes": {"encoder": {"name": "resnet"}}},
        {"changes": {"encoder": {"name": "cnn", "activation": "relu"}}},
        {"changes": {"augment": {"high_frequency": "off"}}},
        {"changes": {"train.epochs": None}},
        factor(setting="augment.high_frequency.cutoff"),
        factor(levels=["low", "high"]),
        factor(level=[1]),
        factor(when={"augment.high_frequency.mood": "noise"}),
        factor(when={"augment.high_frequency": "off"}),
        {"factors": {"cutoff": {"levels": {"low": {"augment.high_frequency.cutof_hz": 500}}}}},
        {"factors": {"cutoff": {}}},
        {"factors": {"cutoff": None}},
        {"variants": {"a": {"train": {"epoch": 3}}}, "design": "list", "factors": {}},
        {"design": "search", "factors": SPACE, "search": {"suggestions": 1}},
        {"design": "search", "factors": {"rate": {**SPACE["rate"], "range": {"low": 1e-4}}}},
        {"budget": {"days": 1}},
    ],
)
def test_mistakes_are_neither_valid_nor_loaded(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(PLAIN | changes, sort_keys=False))
    assert wrong(STUDY, read_yaml(path))
    with pytest.raises(BadInput):
        load_study(path)


def test_a_study_that_extends_another_says_only_what_differs() -> None:
    assert wrong(STUDY, {"extends": "augmentation", "seeds": [5], "factors": {"segments": None}, "budget": None}) == []
    assert wrong(STUDY, {"extends": "augmentation", "factors": {"segments": {"setting": "train.epoch"}}})
    assert wrong(STUDY, {"seeds": [5]})


def test_every_setting_of_every_entry_is_known() -> None:
    """Dotted as `flatten` names it, and as a level of a factor."""
    entries = {"encoder": ENCODERS, "loss.contrastive": CONTRASTIVE, "loss.classification": CLASSIFICATION}
    recipes = [
        with_changes(
            Recipe(), {part: {"name": name}, "beside": {}} | {f"augment.{kind}": {} for kind in AUGMENTATIONS}, ""
        )
        for part, table in (entries | {"scoring": SCORERS}).items()
        for name in table
    ]
    for recipe in recipes:
        assert wrong(RECIPE, recipe.model_dump(mode="json")) == []
        settings = {path: value for path, value in flatten(recipe, defaults=True).items() if value != "on"}
        assert wrong(STUDY, PLAIN | {"changes": settings}) == []
        assert wrong(RECIPE, settings) == []
        factors = {path: {"setting": path, "levels": [value]} for path, value in settings.items()}
        assert wrong(STUDY, PLAIN | {"factors": factors}) == []


def test_a_recipe_file_is_checked(tmp_path: Path) -> None:
    good = {"description": "d", "train": {"epochs": 3}, "profiles": {"cpu": {"train.epochs": 2}}}
    chosen = {"search": "s", "suggestion": 3, "seeds": [0], "objective": "perturbed", "value": 0.5}
    promoted = good | {"chosen": {**chosen, "data_fingerprint": "f"}}
    path = tmp_path / "r.yaml"
    for content in (good, promoted):
        path.write_text(yaml.safe_dump(content))
        load_recipe(path)
        assert wrong(RECIPE, content) == []
    for mistake in ({"trian": {}}, {"train": {"epoch": 3}}, {"chosen": chosen}):
        path.write_text(yaml.safe_dump(good | mistake))
        assert wrong(RECIPE, good | mistake)
        with pytest.raises(BadInput):
            load_recipe(path)
    assert wrong(RECIPE, good | {"profiles": {"cpu": {"train.epoch": 2}}})  # seen by the loader when it is asked for


def test_a_mistake_in_a_pretraining_is_found_like_when_it_is_loaded(tmp_path: Path) -> None:
    loss = {"contrastive": {"name": "byol"}, "classification": None}
    good = {"corpus": {"name": "folder"}, "loss": loss, "train.epochs": 3, "seed": 1}
    path = tmp_path / "pretraining.yaml"
    path.write_text(yaml.safe_dump(good))
    load_pretraining(path)
    assert wrong(PRETRAINING, good) == []
    for mistake in ({"data": {"year": 2022}}, {"corpus": {"name": "foldr"}}, {"sead": 1}, {"train.epoch": 3}):
        path.write_text(yaml.safe_dump(good | mistake))
        assert wrong(PRETRAINING, good | mistake), mistake
        with pytest.raises(BadInput):
            load_pretraining(path)


def test_the_command_prints_them(raysd: Callable[..., tuple[int, str, str]]) -> None:
    assert json.loads(raysd("schema")[1]) == study_schema()
    assert json.loads(raysd("schema", "recipe")[1]) == recipe_schema()
    assert json.loads(raysd("schema", "pretraining")[1]) == pretraining_schema()
    assert raysd("schema", "table")[0] == 2


def test_the_documents_are_made_from_the_code() -> None:
    for name, make in SCHEMAS.items():
        schema = make()
        Draft202012Validator.check_schema(schema)
        committed = (predefined_folder() / f"{name}.schema.json").read_text(encoding="utf-8")
        assert committed == as_text(schema) + "\n", f"make it anew: raysd schema {name} > studies/{name}.schema.json"
    committed = (DOCS / "study-file.md").read_text(encoding="utf-8")
    assert committed == study_file_markdown(), "make it anew: python -m raysd.study.reference > docs/study-file.md"


def test_the_reference_names_every_setting_and_shows_what_loads(tmp_path: Path) -> None:
    text = study_file_markdown()
    for path in {path for path in study_schema()["$defs"]["Setting"]["enum"] if not path.endswith("name")}:
        assert f"| `{path}` |" in text or f"### `{path}`" in text, path
    path = tmp_path / "example.yaml"
    path.write_text(EXAMPLE)
    names = [variant.name for variant in load_study(path).variants]
    assert len(names) == 8
    factors = next(block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "wide margin" in block)
    path.write_text(factors)
    content = PLAIN | read_yaml(path)
    assert wrong(STUDY, content) == []
    searched = content["factors"].pop("learning_rate")
    for own in (content, content | {"factors": {"rate": searched}, "design": "search"}):
        path.write_text(yaml.safe_dump(own, sort_keys=False))
        load_study(path)
