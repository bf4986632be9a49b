"""The winner of a search becomes a recipe file that says where it comes from, and is run with fresh seeds."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raysd.paper.tables import ORACLE
from raysd.recipe import Recipe, recipe_key
from raysd.results.searches import SearchLog
from raysd.results.store import Results
from raysd.settings import with_changes
from raysd.study.design import load_study
from raysd.study.files import load_recipe
from raysd.study.promote import as_yaml, changes_between
from raysd.study.search import search_name
from raysd.study.searched import Searched, searched

sys.path.append(str(Path(__file__).parents[1] / "paper"))
from made_search import STUDY, run_search, study_at  # pyright: ignore[reportMissingImports]

Run = Callable[..., tuple[int, str, str]]
CHANGES: list[dict[str, Any]] = [
    {"features.num_bands": 64},
    {"segments.two_crops": False},
    {"augment.high_frequency": {"mode": "mix", "strength": [0.1, 0.3]}},
    {"augment.high_frequency": None},
    {"augment.random_resize_crop": {}},
    {"encoder": {"name": "cnn", "width": 0.25}},
    {"encoder": {"name": "mobilefacenet", "embedding_dim": 64, "spectrum": {"pooling": ["gwrp"]}}},
    {"loss.contrastive": None, "loss.classification": {"name": "subcluster_adacos"}},
    {"loss.contrastive": {"name": "nt_xent", "temperature": 1e-5}},
    {"data.machines": ["fan", "1e5", "on"]},
    {"train": {"ema": 0.99, "clip_grad_norm": None}},
    {"scoring": {"name": "gaussian"}},
    {"scoring": {"name": "knn", "k": 3}},
]


@given(st.lists(st.sampled_from(CHANGES)), st.lists(st.sampled_from(CHANGES)))
def test_the_changes_between_two_recipes_make_one_from_the_other(
    tmp_path_factory: pytest.TempPathFactory, before: list[dict], after: list[dict]
) -> None:
    old, new = Recipe(), Recipe()
    for changes in before:
        old = with_changes(old, changes, "before")
    for changes in after:
        new = with_changes(new, changes, "after")
    assert recipe_key(with_changes(old, changes_between(old, new), "changes")) == recipe_key(new)
    assert changes_between(new, new) == {}
    file = tmp_path_factory.getbasetemp() / "recipe.yaml"
    file.write_text(as_yaml({"description": "", **changes_between(Recipe(), new)}), encoding="utf-8")
    assert recipe_key(load_recipe(file).recipe) == recipe_key(new)


def search_at(folder: Path, **changes: Any) -> tuple[Results, Searched]:
    study, results = study_at(folder, **changes), Results(folder / "results")
    run_search(study, results)
    return results, searched(study, results)[0]


def test_the_winner_is_run_with_fresh_seeds_against_its_baseline(raysd: Run, tmp_path: Path) -> None:
    results, found = search_at(tmp_path, scale={"cpus_per_worker": 2}, metric="auc")
    winner = found.finished[0]
    words = [tmp_path / "find.yaml", "--as", tmp_path / "recipes" / "best.yaml", "--results", results.root]
    status, _, err = raysd("promote", *words, "--study", tmp_path / "next.yaml")
    assert status == 0
    assert f"raysd run {tmp_path / 'next.yaml'} --results {results.root}" in err

    promoted = load_recipe(tmp_path / "recipes" / "best.yaml")
    tried = Recipe.model_validate_json(found.trials[winner.key]["recipe"])
    assert tried.train.held_out == 0.25
    assert recipe_key(promoted.recipe) == recipe_key(with_changes(tried, {"train.held_out": 0.0}, ""))
    assert promoted.chosen is not None
    assert promoted.chosen.model_dump() == {
        "search": "find",
        "suggestion": winner.number,
        "seeds": (3,),
        "objective": "proxy_perturbed",
        "value": winner.value,
        "oracle": False,
        "data_fingerprint": "d0",
    }
    head = (tmp_path / "recipes" / "best.yaml").read_text(encoding="utf-8").split("\ndescription")[0]
    assert f"suggestion {winner.number} of 14, number 1 of 11 finished by proxy_perturbed {winner.value:.4f}" in head
    assert str(tmp_path) not in head  # the file is passed on, folders are not

    study = load_study(tmp_path / "next.yaml")
    baseline, variant, floor = study.variants
    assert (variant.name, floor.name) == ("promoted", "floor")
    assert recipe_key(variant.recipe) == recipe_key(promoted.recipe)
    plain = with_changes(found.study.baseline.recipe, {"train.held_out": 0.0}, "")
    assert recipe_key(baseline.recipe) == recipe_key(plain)
    assert study.study.seeds == (0, 1, 2, 4, 5, 6)
    assert (study.study.metric, study.study.scale) == ("auc", found.study.study.scale)
    assert study.notes == ()
    assert any("seed 3 is no fresh evidence" in note for note in load_study(study.path, seeds=(2, 3)).notes)


def test_what_is_there_is_not_replaced(raysd: Run, tmp_path: Path) -> None:
    results, found = search_at(tmp_path)
    words = ["promote", tmp_path / "find.yaml", "--results", results.root, "--as"]
    second = found.finished[1].number
    status, _, err = raysd(*words, tmp_path / "b.yaml", "--suggestion", second)
    assert status == 0
    assert yaml.safe_load((tmp_path / "b.yaml").read_text(encoding="utf-8"))["chosen"]["suggestion"] == second
    assert "seeds: [0, 1, 2, 4, 5, 6]" in err  # of the study that is to follow
    before = (tmp_path / "b.yaml").read_bytes()
    for more, said in (
        ([tmp_path / "b.yaml"], "b.yaml: is there already"),
        ([tmp_path / "c.yaml", "--study", tmp_path / "find.yaml"], "find.yaml: is there already"),
        ([tmp_path / "c.yaml", "--study", tmp_path / "c.yaml"], "needs another file than its recipe"),
        ([tmp_path / "c.txt"], "ends in .yaml"),
        ([tmp_path / "c.yaml", "--suggestion", 5], "--suggestion 5: it is failed, not done; finished are"),
        ([tmp_path / "c.yaml", "--suggestion", 77], "--suggestion 77: it was not made"),
    ):
        status, _, err = raysd(*words, *more)
        assert (status, err.count("\n")) == (2, 1)
        assert said in err
    assert (tmp_path / "b.yaml").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.yaml", "find.yaml", "recipes", "results"]


def test_of_equal_ones_the_first_wins(raysd: Run, tmp_path: Path) -> None:
    results, found = search_at(tmp_path, search=STUDY["search"] | {"oracle": True})
    log = SearchLog(results, search_name(found.study, "d0"))
    for number in (4, 2):
        log.write(replace(found.suggestions[number], value=0.99))
    raysd("promote", tmp_path / "find.yaml", "--results", results.root, "--as", tmp_path / "b.yaml")
    promoted = load_recipe(tmp_path / "b.yaml")
    assert promoted.chosen is not None
    assert (promoted.chosen.suggestion, promoted.chosen.oracle) == (2, True)
    assert (tmp_path / "b.yaml").read_text(encoding="utf-8").startswith(f"# {ORACLE}\n")


def test_there_may_be_nothing_to_promote(raysd: Run, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    study = study_at(tmp_path)
    words = ["promote", tmp_path / "find.yaml", "--results", results.root, "--as", tmp_path / "b.yaml"]
    status, _, err = raysd(*words)
    assert (status, "search find: nothing is there yet" in err) == (2, True)
    run_search(study, results, baseline=0.95)
    status, _, err = raysd(*words)
    assert (status, "search find: the baseline itself is the best of 11 finished: nothing" in err) == (1, True)
    assert raysd(*words, "--suggestion", 0)[0] == 1
    run_search(study, results, "d1")
    status, _, err = raysd(*words)
    assert (status, "search find: on several corpora; give --data-root" in err) == (2, True)
    assert not (tmp_path / "b.yaml").exists()
    (tmp_path / "plain.yaml").write_text("question: q\nbaseline: recipes/base.yaml\ndesign: list\nvariants: {a: {}}\n")
    status, _, err = raysd("promote", tmp_path / "plain.yaml", "--as", tmp_path / "b.yaml")
    assert (status, "its design is list; only a search has a winner" in err) == (2, True)
