"""Studies that extend others, and recipes that a search has chosen."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from raysd.errors import BadInput
from raysd.recipe import Recipe
from raysd.study.design import LoadedStudy, load_study
from raysd.study.files import load_recipe

BASE = {
    "question": "does it help?",
    "baseline": "own.yaml",
    "profile": "cpu",
    "changes": {"train": {"batch_size": 16, "epochs": 3}, "features.num_bands": 32},
    "factors": {
        "mixup": {"setting": "augment.log_mixup_exp"},
        "epochs": {"setting": "train.epochs", "levels": [1, 2]},
    },
    "design": "one_at_a_time",
    "seeds": [0, 1],
    "scale": {"workers": 2, "micro_batch": 4},
    "references": ["floor.yaml"],
}
RECIPE = {
    "augment": {"log_mixup_exp": {}},
    "profiles": {"cpu": {"encoder": {"name": "cnn"}}},
}
FLOOR = {"encoder": {"name": "spectral_mean"}, "scoring": {"name": "gaussian"}}
CHOSEN = {
    "search": "space",
    "suggestion": 7,
    "seeds": [0],
    "objective": "perturbed",
    "value": 0.8,
    "data_fingerprint": "data",
}


def write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`first/base.yaml` with its recipes; `second/` is for what extends it."""
    write(tmp_path / "first/base.yaml", BASE)
    write(tmp_path / "first/own.yaml", RECIPE)
    write(tmp_path / "first/floor.yaml", FLOOR)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def extending(folder: Path, **content: Any) -> LoadedStudy:
    return load_study(write(folder / "second/more.yaml", {"extends": "../first/base.yaml"} | content))


def names(study: LoadedStudy) -> list[str]:
    return [variant.name for variant in study.variants]


def test_what_is_not_said_is_said_in_the_other_study(folder: Path) -> None:
    study, base = extending(folder), load_study(folder / "first/base.yaml")
    assert study.name == "more"
    assert study.variants == base.variants
    assert study.study.model_copy(update={"extends": None}) == base.study
    assert names(study) == ["baseline", "without mixup", "epochs=1", "epochs=2", "floor"]
    assert study.baseline.recipe.encoder.name == "cnn"


def test_entries_are_merged_and_null_leaves_one_out(folder: Path) -> None:
    factors = {
        "epochs": {"setting": "train.epochs", "levels": [9]},
        "mixup": None,
        "bands": {"setting": "features.num_bands", "levels": [64]},
    }
    study = extending(folder, factors=factors, seeds=[5], scale={"workers": None}, references=None)
    assert names(study) == ["baseline", "epochs=9", "bands=64", "classical"]
    assert study.study.seeds == (5,)
    assert (study.study.scale.workers, study.study.scale.micro_batch) == (1, 4)
    changes = {"train.epochs": 7, "augment.log_mixup_exp": None}
    recipe = extending(folder, changes=changes, factors={"mixup": None}).baseline.recipe
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.features.num_bands) == (7, 16, 32)
    assert recipe.augment.log_mixup_exp is None
    whole = extending(folder, changes={"train": {"epochs": 7}}).baseline.recipe
    assert (whole.train.epochs, whole.train.batch_size) == (7, Recipe().train.batch_size)
    listed = extending(folder, factors=None, design="list", variants={"x": {"train.epochs": 1}})
    assert names(listed) == ["baseline", "x", "floor"]


def test_recipe_files_are_looked_for_beside_the_study_that_names_them(folder: Path) -> None:
    write(folder / "second/floor.yaml", FLOOR | {"features": {"num_bands": 40}})
    inherited = extending(folder).variants[-1]
    own = extending(folder, references=["floor.yaml"]).variants[-1]
    assert (inherited.recipe.features.num_bands, own.recipe.features.num_bands) == (Recipe().features.num_bands, 40)


def test_chains_and_predefined_studies(folder: Path) -> None:
    extending(folder, factors={"mixup": None})
    third = write(folder / "third.yaml", {"extends": "second/more.yaml", "seeds": [9]})
    assert names(load_study(third)) == ["baseline", "epochs=1", "epochs=2", "floor"]
    assert [source.path for source in load_study(third).file.extended] == [
        folder / "second/more.yaml",
        folder / "second/../first/base.yaml",
    ]
    mine = load_study(write(folder / "augmentation.yaml", {"extends": "augmentation", "seeds": [0, 1, 2, 3]}))
    assert mine.variants == load_study("augmentation").variants
    assert mine.name == "augmentation"
    assert len(mine.study.seeds) == 4


def test_the_command_line_counts_most(folder: Path) -> None:
    path = write(folder / "second/more.yaml", {"extends": "../first/base.yaml"})
    overrides = {"factors.epochs.levels": [4], "scale.workers": 3, "train.batch_size": 8}
    study = load_study(path, overrides, seeds=(8,))
    assert names(study) == ["baseline", "without mixup", "epochs=4", "floor"]
    assert (study.study.scale.workers, study.study.seeds, study.baseline.recipe.train.batch_size) == (3, (8,), 8)
    with pytest.raises(BadInput, match="--set extends: only a study file"):
        load_study(path, {"extends": "cutoff"})


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ({"desing": 1}, {}, "first/base.yaml: unknown setting 'desing'; did you mean 'design'?"),
        ({"seeds": [0, -1]}, {}, "first/base.yaml: seeds[1]: input should be"),
        ({"factors": {"x": {"seting": 1}}}, {}, "first/base.yaml: factors.x: unknown setting 'seting'"),
        (
            {"factors": {"x": {"setting": "train.epochs", "levels": [-1]}}},
            {"factors": {"y": {"setting": "train.epochs", "levels": [1]}}},
            "first/base.yaml: factors.x.levels[0]: train.epochs: ",
        ),
        ({"baseline": "owm.yaml"}, {}, "first/base.yaml: baseline: no file owm.yaml"),
        ({"metric": "auc_source"}, {}, "first/base.yaml: metric: 'auc_source' is no metric of 2020"),
        ({"changes": {"train.epoch": 1}}, {"changes": {"train.batch_size": 2}}, "first/base.yaml: changes: train: unk"),
        ({}, {"changes": {"train.epoch": 1}}, "second/more.yaml: changes: train: unknown setting 'epoch'"),
        ({}, {"desing": 1}, "second/more.yaml: unknown setting 'desing'"),
        ({}, {"factors": {"x": None}}, "second/more.yaml: factors.x: expected settings as 'name: value' (given: null)"),
        ({}, {"question": None}, "second/more.yaml: question: field required"),
        ({}, {"factors": 3}, "second/more.yaml: factors: expected settings"),
        ({}, {"extends": "../first/bse.yaml"}, "second/more.yaml: extends: ../first/bse.yaml: no such file beside it"),
        ({}, {"extends": "cutof"}, "second/more.yaml: extends: cutof: no such file beside it, and no study of that na"),
        ({}, {"extends": 3}, "second/more.yaml: extends: expected the file or the name of another study"),
        ({}, {"extends": "x" * 5000}, "second/more.yaml: extends: "),
        (
            {},
            {"extends": "more.yaml"},
            "second/more.yaml: extends: the files extend each other in a circle: ",
        ),
        (
            {"extends": "../second/more.yaml"},
            {},
            "first/base.yaml: extends: the files extend each other in a circle: ",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_its_file(
    folder: Path, there: dict[str, Any], here: dict[str, Any], message: str
) -> None:
    write(folder / "first/base.yaml", BASE | there)
    with pytest.raises(BadInput) as error:
        extending(folder, **here)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# --- recipes that a search has chosen ---------------------------------------------------------------------------------


def listing(folder: Path, seeds: list[int], **more: Any) -> LoadedStudy:
    content = {"question": "?", "baseline": "own.yaml", "design": "list", "variants": {"promoted": "best.yaml"}}
    return load_study(write(folder / "first/list.yaml", content | {"seeds": seeds, "references": []} | more))


def test_a_recipe_file_may_be_a_variant(folder: Path) -> None:
    write(folder / "first/best.yaml", {"train": {"epochs": 4}, "data": {"year": 2022}, "chosen": CHOSEN})
    study = listing(folder, [1, 2], changes={"data.machines": ["fan"], "train.batch_size": 2})
    (_, promoted) = study.variants
    assert (promoted.name, promoted.role) == ("promoted", "variant")
    assert promoted.recipe.train.epochs == 4
    assert promoted.recipe.train.batch_size == Recipe().train.batch_size
    assert promoted.recipe.data == study.baseline.recipe.data
    assert load_recipe(folder / "first/best.yaml").recipe.data.year == 2022
    assert study.notes == ()
    assert not study.oracle


def test_seeds_with_which_a_recipe_was_chosen_are_said(folder: Path) -> None:
    write(folder / "first/best.yaml", {"train": {"epochs": 4}, "chosen": CHOSEN})
    said = "recipe best was chosen by search space with seed 0: seed 0 is no fresh evidence; run other seeds"
    assert listing(folder, [1, 0]).notes == (said,)
    assert listing(folder, [0], variants={"x": {"train.epochs": 3}}, baseline="best.yaml").notes == (said,)
    assert listing(folder, [0], variants={"x": {"train.epochs": 3}}, references=["best.yaml"]).notes == (said,)


def test_a_recipe_that_an_oracle_chose_is_said(folder: Path) -> None:
    write(folder / "first/best.yaml", {"train": {"epochs": 4}, "chosen": CHOSEN | {"oracle": True}})
    study = listing(folder, [1])
    assert study.oracle
    assert study.notes == ("recipe best was chosen on test labels (oracle) by search space",)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (3, "list.yaml: variants.promoted: expected changes as 'path: value' lines, or a recipe file"),
        (None, "list.yaml: variants.promoted: expected changes as 'path: value' lines, or a recipe file"),
        ("bets.yaml", "list.yaml: variants.promoted: no file bets.yaml, neither beside the study nor in"),
        ("y" * 5000, "list.yaml: variants.promoted: no file y"),
        ({"train.epoch": 1}, "list.yaml: variants.promoted: train: unknown setting 'epoch'"),
        ("best.yaml", "best.yaml: chosen.seeds: tuple should have at least 1 item"),
    ],
)
def test_a_variant_that_is_none_is_one_line(folder: Path, variant: Any, message: str) -> None:
    write(folder / "first/best.yaml", {"chosen": CHOSEN | {"seeds": []}})
    with pytest.raises(BadInput) as error:
        listing(folder, [0], variants={"promoted": variant})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
