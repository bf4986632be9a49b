"""The notebook's words: what they say is what the commands print, and the guide's snippets run."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import raysd as package
from raysd.detect.metrics import COLUMNS as METRICS
from raysd.detect.metrics import summarise
from raysd.errors import BadInput
from raysd.notebook import Results, Study
from raysd.paper.search_table import SearchRow, SearchTable
from raysd.paper.tables import ORACLE
from raysd.recipe import Recipe
from raysd.study.design import trials_of
from raysd.trial import run_trial

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "notebooks.md"
STUDY = {
    "question": "Does it <help>?",
    "baseline": "tiny.yaml",
    "factors": {"high_frequency": {"setting": "augment.high_frequency"}},
    "design": "leave_one_out",
    "seeds": [0, 1],
    "references": [],
}


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe, corpus: Callable[[int], Path], cache_dir: Path
) -> Path:
    """A study file, its data and its results: both seeds of the baseline, one of the variant."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    (folder / "DATA").symlink_to(corpus(2020))
    session = load(folder, cache_dir).session
    session.decode()
    for trial in session.missing()[:3]:
        run_trial(trial, session.place())
    return folder


def load(folder: Path, cache_dir: Path, data: bool = True, **options: Any) -> Study:
    root = folder / "DATA" if data else None
    return Study.load(folder / "study.yaml", root, folder / "results", cache=cache_dir, **options)


@pytest.fixture
def study(folder: Path, cache_dir: Path) -> Study:
    return load(folder, cache_dir)


def test_the_package_has_the_words() -> None:
    assert package.Study is Study
    assert package.Results is Results
    with pytest.raises(AttributeError, match="module 'raysd' has no attribute 'Studies'"):
        package.Studies  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, raysd; print({'torch', 'pandas', 'pydantic', 'typer'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_study_is_what_the_options_make_it(folder: Path, cache_dir: Path) -> None:
    loaded = load(folder, cache_dir, set={"train.epochs": 1, "metric": "auc"}, seeds=[5])
    assert loaded.session.study.baseline.recipe.train.epochs == 1
    assert (loaded.name, loaded.session.study.study.metric) == ("study", "auc")
    assert loaded.variants["variant"].tolist() == ["baseline", "without high_frequency"]
    assert loaded.variants["seeds"].tolist() == [1, 1]
    assert loaded.trials()[["seed", "done"]].to_numpy().tolist() == [[5, False], [5, False]]
    assert "Does it &lt;help&gt;?" in loaded._repr_html_()
    with pytest.raises(BadInput, match="epochs"):
        load(folder, cache_dir, set={"train.epoch": 1})


def test_the_plan_shows_itself_as_the_command_prints_it(
    study: Study, folder: Path, cache_dir: Path, raysd: Callable[..., tuple[int, str, str]]
) -> None:
    plan = study.plan()
    frame = plan.frame().set_index("name")
    assert (plan.scorings, frame["done"].tolist()) == (1, [2, 1])
    assert "augment.high_frequency off" in frame.loc["without high_frequency", "changed"]
    options = ("--results", folder / "results", "--data-root", folder / "DATA", "--cache", cache_dir)
    printed = raysd("plan", folder / "study.yaml", *options)[1]
    assert repr(plan).split() == printed.split()
    assert "without high_frequency" in plan._repr_html_()


def test_trials_and_what_is_missing(study: Study, folder: Path, cache_dir: Path) -> None:
    trials, missing = study.trials(), study.missing()
    assert trials[["variant", "seed", "done"]].to_numpy().tolist() == [
        ["baseline", 0, True],
        ["without high_frequency", 0, True],
        ["baseline", 1, True],
        ["without high_frequency", 1, False],
    ]
    assert missing["key"].tolist() == trials.loc[~trials["done"], "key"].tolist()
    assert study.status().frame().set_index("name").loc["without high_frequency", "missing"] == [1]
    assert "3 of 4 trials done" in repr(study.status())
    for asked in (load(folder, cache_dir, data=False).trials, load(folder, cache_dir, data=False).run):
        with pytest.raises(BadInput, match=r"give Study\.load a data_root"):
            asked()


def test_tables_and_scores_are_frames(study: Study, folder: Path, cache_dir: Path) -> None:
    table = load(folder, cache_dir, data=False).table()
    assert (table.frame()["keys"].str.split().map(len) == table.frame()["n"]).all()
    assert "baseline" in table._repr_html_()
    assert "2/2" in repr(table)
    assert study.results.table(folder / "study.yaml").to_csv() == table.to_csv()

    results = Results(folder / "results")
    assert repr(results) == f"<Results {folder / 'results'}: 3 trials>"
    scores, metrics = results.scores(), results.metrics()
    assert len(scores) == 3 * 2 * 2 * (8 + 6)  # trials x machines x sections x clips
    assert results.trials()["key"].tolist() == sorted(study.results.store.done())
    for key in results.store.done():
        own = scores.query(f"key == '{key}' and split == 'test'").reset_index(drop=True)
        kept = metrics.query(f"key == '{key}'").reset_index(drop=True)
        pd.testing.assert_frame_equal(kept.filter(METRICS), summarise(own, 2020), check_dtype=False)
        assert set(kept["seed"]) == set(own["seed"])


def test_a_study_has_its_own_trials_under_its_own_names(folder: Path, cache_dir: Path) -> None:
    path = folder / "other.yaml"
    variants = {"quiet": {"augment.high_frequency": None}}
    path.write_text(yaml.safe_dump({**STUDY, "factors": {}, "design": "list", "variants": variants, "seeds": [0]}))
    other = Study.load(path, folder / "DATA", folder / "results", cache=cache_dir)
    for frame in (other.results.trials(other), other.results.scores(other), other.results.metrics(other)):
        assert set(frame["variant"]) == {"baseline", "quiet"}
        assert set(frame["study"]) == {"other"}
        assert set(frame["seed"]) == {0}


def test_several_corpora_are_not_thrown_together(folder: Path, tmp_path: Path, cache_dir: Path) -> None:
    import dataclasses

    loaded = Study.load(folder / "study.yaml", results=tmp_path, cache=cache_dir)
    done = load(folder, cache_dir).results.store
    record = done.read(sorted(done.done())[0])
    for corpus in ("d0", "d1"):
        (key, *_) = (trial.key for trial in trials_of(loaded.session.study, corpus))
        loaded.session.results.write(dataclasses.replace(record, key=key, data_fingerprint=corpus))
    assert len(loaded.tables()) == 2
    with pytest.raises(BadInput, match="study study was run on 2 corpora; give a data_root"):
        loaded.table()


def test_the_table_of_a_search_that_saw_test_labels_says_so(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"study": "s", "question": "q", "profile": None, "year": 2020, "fingerprint": "1", "train_sets": "dev"}
    search = {"objective": "official", "held_out": 0.2, "oracle": True, "seed": 0, "machines": ("fan",)}
    row = SearchRow("baseline", "baseline", "done", "123", 0, 0.5, 2, {("dev", "official"): 0.5}, {})
    found = SearchTable(**shared, **search, columns=(("dev", "official"),), factors=(), rows=(row,))
    monkeypatch.setattr("raysd.session.Session.tables", lambda session: [found])
    table = study.table()
    assert ORACLE in repr(table)
    assert table.frame()[["variant", "oracle", "key", "official_dev"]].to_numpy().tolist() == [
        ["baseline", True, "123", 0.5]
    ]


def test_the_guides_snippets_run(folder: Path, study: Study, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for trial in study.session.missing():  # so that there is nothing to run under Ray
        run_trial(trial, study.session.place())
    monkeypatch.chdir(folder)
    monkeypatch.setattr("raysd.notebook.DEFAULT_CACHE", cache_dir)
    snippets = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 5
    names: dict[str, Any] = {}
    for snippet in snippets:
        for statement in ast.parse(snippet).body:
            if isinstance(statement, ast.Expr):  # what a notebook would show
                shown = eval(compile(ast.Expression(statement.value), str(GUIDE), "eval"), names)
                assert repr(shown)
            else:
                exec(compile(ast.Module([statement], []), str(GUIDE), "exec"), names)
    assert names["plan"].scorings == 0
    assert set(names["scores"]["variant"]) == {"baseline", "without high_frequency"}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_study_runs_from_python(folder: Path, tmp_path: Path, cache_dir: Path) -> None:
    code = f"""
import raysd
study = raysd.Study.load({str(folder / "study.yaml")!r}, {str(folder / "DATA")!r}, {str(tmp_path)!r}, seeds=[0],
                         cache={str(cache_dir)!r})
table = study.run()
print(table.frame()["n"].unique().tolist(), study.missing().empty)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[1] True"
    assert "2 of 2 trials to do" in ended.stdout
    provenance = Results(tmp_path).store.rows(["provenance"])[0]["provenance"]
    assert "raysd.Study.run" in provenance
