"""A study that grows, shrinks or is followed by another: only what is missing is run, and nothing is deleted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.session import Session
from raysd.study.design import load_study
from raysd.trial import run_trial

STUDY = {
    "question": "Does it help?",
    "baseline": "tiny.yaml",
    "factors": {
        "high_frequency": {"setting": "augment.high_frequency"},
        "epochs": {"setting": "train.epochs", "levels": [1]},
    },
    "design": "one_at_a_time",
    "seeds": [0, 1],
    "references": [],
}
FACTORS = STUDY["factors"]
SCORING = {"scoring": {"setting": "scoring", "levels": [{"name": "gaussian"}]}}


class Place:
    """A folder with a study, its corpus and its results."""

    def __init__(self, folder: Path, corpus: Path, cache: Path, raysd: Callable[..., tuple[int, str, str]]) -> None:
        self.folder, self.corpus, self.cache, self._raysd = folder, corpus, cache, raysd
        self.results = Results(folder / "results")

    def write(self, name: str = "study", **changes: Any) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False), encoding="utf-8")
        return path

    def run_missing(self, path: Path) -> None:
        session = Session(load_study(path), self.results, self.corpus, self.cache)
        session.decode()
        for trial in session.missing():
            run_trial(trial, session.place())

    def raysd(self, command: str, path: Path, *words: object) -> str:
        data = ("--data-root", self.corpus, "--cache", self.cache)
        status, out, err = self._raysd(command, path, "--results", self.results.root, *data, *words)
        assert status == 0, err
        return out

    def missing(self, path: Path, *words: object) -> set[tuple[str, int]]:
        """Variant and seed of every trial that `raysd plan` would run."""
        plan = json.loads(self.raysd("plan", path, "--json", *words))
        return {(trial["variant"], trial["seed"]) for trial in plan["missing"]}

    def files(self) -> dict[Path, tuple[int, bytes]]:
        """Everything in the results root: when it was written, and its bytes."""
        files = (path for path in Path(self.results.root).rglob("*") if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe, corpus: Callable[[int], Path], cache_dir: Path
) -> Path:
    """The folder of a finished study."""
    folder = tmp_path_factory.mktemp("extension")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
    place = Place(folder, corpus(2020), cache_dir, lambda *_: (0, "", ""))
    place.run_missing(place.write())
    return folder


@pytest.fixture
def place(finished: Path, corpus: Callable[[int], Path], cache_dir: Path, raysd) -> Place:
    return Place(finished, corpus(2020), cache_dir, raysd)


def test_only_what_is_new_is_missing(place: Place) -> None:
    before = place.files()
    rows = ("baseline", "without high_frequency", "epochs=1")
    assert place.missing(place.write()) == set()
    assert place.missing(place.write(seeds=[0, 1, 2])) == {(row, 2) for row in rows}
    assert place.missing(place.write(), "--seeds", "5") == {(row, 5) for row in rows}
    levels = {"epochs": {"setting": "train.epochs", "levels": [1, 3]}}
    assert place.missing(place.write(factors=FACTORS | levels)) == {("epochs=3", seed) for seed in (0, 1)}
    grown = place.write(factors=FACTORS | SCORING)
    assert place.missing(grown) == {("scoring=gaussian", seed) for seed in (0, 1)}
    plan = json.loads(place.raysd("plan", grown, "--json"))
    assert (plan["trainings"], plan["scorings"]) == (0, 2)  # another scorer needs no other training
    crossed = place.write(design=["one_at_a_time", "factorial"])
    assert place.missing(crossed) == {("high_frequency=off, epochs=1", seed) for seed in (0, 1)}
    assert place.missing(place.write(metric="auc", question="Another?", scale={"workers": 2})) == set()
    assert place.files() == before


def test_what_is_left_out_is_not_deleted(place: Place) -> None:
    before = place.files()
    smaller = place.write(seeds=[1], factors={"epochs": FACTORS["epochs"]})
    assert place.missing(smaller) == set()
    table = place.raysd("table", smaller, "--format", "markdown")
    assert "| baseline | 1/1 |" in table
    assert "without high_frequency" not in table
    assert place.files() == before
    assert place.missing(place.write()) == set()


def test_studies_share_their_trials(place: Place) -> None:
    bands = {"bands": {"setting": "features.num_bands", "levels": [16]}}
    other = place.write("other", question="Do fewer bands do?", factors=bands)
    assert place.missing(other) == {("bands=16", 0), ("bands=16", 1)}
    listed = {"short": {"train.epochs": 1}, "without": {"augment": {"high_frequency": None}}}
    named = place.write("named", factors={}, design="list", variants=listed)
    assert place.missing(named) == set()  # under other names
    extending = place.folder / "extending.yaml"
    extending.write_text("extends: study.yaml\nseeds: [0, 4]", encoding="utf-8")
    place.write()
    assert {seed for _, seed in place.missing(extending)} == {4}


@pytest.mark.slow
def test_a_grown_study_runs_only_what_is_new(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.folder, tmp_path / "copy")
    place.folder, place.results = tmp_path / "copy", Results(tmp_path / "copy/results")
    before = place.files()
    levels = {"epochs": {"setting": "train.epochs", "levels": [1, 3]}}
    grown = place.write(factors=FACTORS | levels, seeds=[0, 1, 2])
    new = {("epochs=3", 0), ("epochs=3", 1), *((row, 2) for row in ("baseline", "without high_frequency", "epochs=1"))}
    assert place.missing(grown) == new | {("epochs=3", 2)}
    table = place.raysd("run", grown)
    assert "epochs=3" in table
    after = place.files()
    trials = {path for path in after if "trials" in path.parts}
    assert len(trials - before.keys()) == len(new) + 1
    assert {path: after.get(path) for path in before if "trials" in path.parts} == {
        path: kept for path, kept in before.items() if "trials" in path.parts
    }
    assert place.missing(grown) == set()
