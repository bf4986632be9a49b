"""The studies that come with raysd: each loads, can be planned, and runs end to end on a tiny corpus."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raysd.data.years import YEARS
from raysd.recipe import Recipe, recipe_key
from raysd.results.store import Results
from raysd.study.design import LoadedStudy, load_study, trials_of
from raysd.study.places import predefined_studies

STUDIES = sorted(predefined_studies())
REAL = Path(__file__).parents[2] / "results" / "real"
RAYSD = str(Path(sys.executable).with_name("raysd"))


def compared(study: LoadedStudy) -> dict[str, Recipe]:
    return {variant.name: variant.recipe for variant in study.variants if variant.role != "reference"}


@pytest.mark.parametrize("name", STUDIES)
def test_each_can_be_planned(name: str, tmp_path: Path, raysd: Callable[..., tuple[int, str, str]]) -> None:
    for profile in ((), ("--profile", "cpu")):
        status, out, err = raysd("plan", name, "--results", tmp_path / "results", *profile)
        assert status == 0, err
        assert load_study(name).study.question in " ".join(out.split())


def test_each_asks_for_itself() -> None:
    asked = {"quickstart", "augmentation", "cutoff", "pretraining", "segments", "encoder", "loss", "scoring"}
    assert {*STUDIES} == asked | {"batch_size", "dcase2020", "dcase2022", "search", "search_fusion"}
    questions = [load_study(name).study.question for name in STUDIES]
    assert len(set(questions)) == len(STUDIES)
    for name, path in predefined_studies().items():
        comment = path.read_text(encoding="utf-8").split("question:")[0]
        assert name == "quickstart" or ("Meng et al." in comment and "# Ours:" in comment), name


@pytest.mark.parametrize("name", ["augmentation", "cutoff"])
def test_committed_evidence_is_still_asked_for(name: str) -> None:
    rows = [row for row in Results(REAL).rows(["recipe_key", "study", "recipe"]) if row["study"] == name]
    held_out = {
        row["recipe_key"] for row in rows if json.loads(row["recipe"])["train"].get("held_out", 0) > 0
    }  # by --set
    recorded = {row["recipe_key"] for row in rows} - held_out
    asked = [load_study(name, {"data.year": year}, profile="cpu") for year in (2020, 2022)]
    assert recorded
    assert recorded <= {recipe_key(variant.recipe) for study in asked for variant in study.variants}


def test_cutoff_crosses_every_form_with_every_cutoff_and_has_none() -> None:
    recipes = compared(load_study("cutoff"))
    assert recipes.pop("without high_frequency").augment.high_frequency is None
    parts = [recipe.augment.high_frequency for recipe in recipes.values()]
    cells = {(part.mode, part.cutoff_hz) for part in parts if part is not None}
    assert len(cells) == len(recipes) == 4 * 7
    assert {cutoff_hz for _, cutoff_hz in cells} == {250, 500, 1000, 2000, 4000, 6000, 7000}


def test_scoring_trains_nothing_but_the_baseline() -> None:
    study = load_study("scoring")
    trials = [trial for trial in trials_of(study, "data") if trial.role != "reference"]
    assert len({trial.training_key for trial in trials}) == len(study.study.seeds)
    assert len(trials) == len(study.study.seeds) * len(compared(study)) > 60


@pytest.mark.parametrize("year", [2020, 2022])
def test_the_full_comparisons_score_dev_and_eval(year: int) -> None:
    study = load_study(f"dcase{year}")
    assert {(recipe.data.year, recipe.data.additional) for recipe in compared(study).values()} == {(year, True)}
    assert study.baseline.recipe.data.machines is None
    assert len(study.study.seeds) == 6  # so that p can reach 2/2^6


def test_the_search_sees_no_label_of_a_test_clip() -> None:
    study = load_study("search").study
    assert study.search is not None
    assert not study.search.oracle
    assert study.pruning is not None


TINY: dict[str, object] = {
    "features.num_bands": 32,
    "encoder.width": 0.125,
    "train.epochs": 1,
    "train.precision": "fp32",
}
SEARCHED = {"search.suggestions": 4, "search.random_first": 2, "train.epochs": 3, "pruning.first_epochs": 1}
OWN: dict[str, dict[str, object]] = {
    "pretraining": {"segments.train_seconds": 0.5, "train.epochs": 1, "train.precision": "fp32"},
    **dict.fromkeys(("search", "search_fusion"), TINY | SEARCHED),
}


@pytest.fixture
def data_root(corpus: Callable[[int], Path], tmp_path: Path) -> Callable[[int], Path]:
    """Year -> a tiny corpus with evaluation data: the development clips again, as the year's other sections."""

    def made(year: int) -> Path:
        root = tmp_path / "data"
        shutil.copytree(corpus(year), root)
        for folder in (root / "dev_data").iterdir():
            for old, new in zip(*YEARS[year].machines[folder.name], strict=False):
                for word in (f"{YEARS[year].section_prefix}_", "attributes_"):
                    for path in folder.rglob(f"*{word}{old}*"):
                        name = path.name.replace(word + old, word + new)
                        copy = root / "eval_data" / path.relative_to(root / "dev_data").with_name(name)
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        content = path.read_bytes()  # the names in attributes_NN.csv change too
                        copy.write_bytes(content.replace(f"section_{old}".encode(), f"section_{new}".encode()))
        return root

    return made


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", STUDIES)
def test_each_runs_end_to_end(
    name: str,
    tmp_path: Path,
    cache_dir: Path,
    data_root: Callable[[int], Path],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = load_study(name, profile="cpu")
    if any(variant.recipe.pretrained.startswith("audioset:") for variant in study.variants):
        monkeypatch.setenv("RAYSD_WEIGHTS", str(request.getfixturevalue("shared_dir") / "weights"))
    root = data_root(study.baseline.recipe.data.year)
    small = [word for item in OWN.get(name, TINY).items() for word in ("--set", "{}={}".format(*item))]
    options = ["--profile", "cpu", "--seeds", "0", "--results", str(tmp_path / "results"), *small]
    place = ["--data-root", str(root), "--cache", str(cache_dir)]
    run = subprocess.run([RAYSD, "run", name, *options, *place], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    table = subprocess.run([RAYSD, "table", name, *options], capture_output=True, text=True)
    assert table.returncode == 0, table.stderr[-3000:]
    assert study.study.question in table.stdout
    waiting = {row.name for row in study.variants if row.recipe.pretrained.startswith("checkpoint:")}
    unfinished = [line.strip() for line in table.stdout.splitlines() if "0/1" in line]
    assert {row.name for row in study.variants if any(line.startswith(row.name) for line in unfinished)} == waiting
    rows = [variant.name for variant in study.variants] if study.study.design != "search" else ["4 suggestions"]
    assert [row for row in rows if row not in table.stdout] == []
    if study.baseline.recipe.data.additional:
        assert "official score, eval" in table.stdout
