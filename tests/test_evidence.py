"""The committed tables are what the committed trials say, and the README quotes them to the letter."""

import html
import re
import runpy
from pathlib import Path

import pytest

from raysd.initial import Checkpoints
from raysd.paper.sentences import answers
from raysd.paper.tables import study_tables
from raysd.results.store import Results
from raysd.study.design import load_study
from raysd.study.searched import search_tables

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT / "results" / "real"
CORPORA = {"ToyCar": 2020, "valve": 2022}
STUDIES = ("augmentation", "cutoff", "encoder", "loss", "scoring")
ON_ITS_OWN = [
    *("promoted/ToyCar_fusion", "promoted/valve_fusion", "promoted/valve_ingredients"),
    *("selected/valve", "selected/valve_ingredients"),
    *("leads/ToyCar_leads", "leads/valve_leads"),
]
"""Study files that stand beside their tables."""


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("machine", CORPORA)
def test_tables_are_made_from_the_trials(study: str, machine: str) -> None:
    loaded = load_study(study, {"data.year": CORPORA[machine]}, profile="cpu")
    (table,) = study_tables(loaded, Results(REAL))
    assert table.machines == (machine,)
    assert all(row.found == row.wanted for row in table.rows)
    assert (REAL / f"{study}_{machine}.md").read_text(encoding="utf-8") == table.to_markdown()
    assert (REAL / f"{study}_{machine}.csv").read_text(encoding="utf-8") == table.to_csv()


@pytest.mark.parametrize("study", [*STUDIES, "pretraining"])
@pytest.mark.parametrize("machine", CORPORA)
def test_reports_answer_what_the_trials_say(study: str, machine: str) -> None:
    weights = Checkpoints(Results(REAL))
    loaded = load_study(study, {"data.year": CORPORA[machine]}, "cpu", None, weights.pinned)
    (table,) = study_tables(loaded, Results(REAL))
    page = (REAL / "reports" / f"{study}_{machine}.html").read_text(encoding="utf-8")
    shown = " ".join(html.unescape(re.sub("<[^>]+>", "", page)).split())
    (answer,) = answers(table, loaded).values()
    assert answer.sentence in shown
    assert all(line in shown for line in table.caption())
    assert not any(str(place) in page for place in (ROOT, Path.home(), "/tmp/"))


@pytest.mark.parametrize("form", ["latex", "html"])
def test_one_of_them_is_kept_in_other_forms(form: str) -> None:
    (table,) = study_tables(load_study("augmentation", profile="cpu"), Results(REAL))
    kept = (REAL / f"augmentation_ToyCar.{'tex' if form == 'latex' else form}").read_text(encoding="utf-8")
    assert kept == (table.to_latex() if form == "latex" else table.to_html())


def test_the_script_prints_those_of_several_studies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, studies = ROOT / "analysis" / "ablation_table.py", ("augmentation", "no_such_study", "cutoff")
    options = ["--results", str(REAL), "--profile", "cpu", "--format", "markdown"]
    monkeypatch.setattr("sys.argv", [str(script), *(f"--study={study}" for study in studies), *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    kept = [(REAL / f"{study}_ToyCar.md").read_text(encoding="utf-8") for study in ("augmentation", "cutoff")]
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "".join(kept))
    assert err.count("\n") == 1
    assert "no_such_study" in err


@pytest.mark.parametrize("machine", CORPORA)
def test_so_are_those_of_pretraining(machine: str) -> None:
    weights = Checkpoints(Results(REAL))  # what they are is kept, their tensors are not
    loaded = load_study("pretraining", {"data.year": CORPORA[machine]}, "cpu", None, weights.pinned)
    (table,) = study_tables(loaded, Results(REAL))
    lacking = {row.variant for row in table.rows if row.found < row.wanted}
    assert lacking == {"own AudioSet frozen", "own AudioSet fine-tuned"}
    assert (REAL / f"pretraining_{machine}.md").read_text(encoding="utf-8") == table.to_markdown()
    assert (REAL / f"pretraining_{machine}.csv").read_text(encoding="utf-8") == table.to_csv()


@pytest.mark.parametrize("name", ON_ITS_OWN)
def test_so_are_those_of_what_was_chosen(name: str) -> None:
    (table,) = study_tables(load_study(REAL / f"{name}.yaml"), Results(REAL))
    assert all(row.found == row.wanted for row in table.rows)
    assert (REAL / f"{name}.md").read_text(encoding="utf-8") == table.to_markdown()
    assert (REAL / f"{name}.csv").read_text(encoding="utf-8") == table.to_csv()


def test_what_was_chosen_was_run_with_fresh_seeds() -> None:
    """Neither what found it, a search or a study, nor what chose among suggestions had used them."""
    seeds = {name: set(load_study(REAL / f"{name}.yaml").study.seeds) for name in ON_ITS_OWN}
    searched = set(load_study("search_fusion").study.seeds)
    assert not seeds["promoted/ToyCar_fusion"] & searched
    assert not seeds["promoted/valve_fusion"] & (searched | seeds["selected/valve"])
    assert not seeds["promoted/valve_ingredients"] & seeds["selected/valve_ingredients"]
    found_by = {seed for study in ("loss", "cutoff") for seed in load_study(study).study.seeds}
    assert not (seeds["leads/ToyCar_leads"] | seeds["leads/valve_leads"]) & found_by


@pytest.mark.parametrize("machine", CORPORA)
@pytest.mark.parametrize("search", ["search", "search_fusion"])
def test_so_are_those_of_the_searches(search: str, machine: str) -> None:
    loaded = load_study(search, {"data.year": CORPORA[machine]}, profile="cpu")
    (table,) = search_tables(loaded, Results(REAL))
    suggestions = loaded.study.search.suggestions if loaded.study.search else 0
    assert len(table.rows) == suggestions + len(loaded.study.references)
    assert (REAL / f"{search}_{machine}.md").read_text(encoding="utf-8") == table.to_markdown()
    assert (REAL / f"{search}_{machine}.csv").read_text(encoding="utf-8") == table.to_csv()


@pytest.mark.parametrize("machine", CORPORA)
def test_so_are_those_of_the_winner_without_fusion(machine: str) -> None:
    promoted = load_study(REAL / "promoted" / f"{machine}.yaml")
    assert promoted.variants[1].name == "promoted"
    assert not set(promoted.study.seeds) & set(load_study("search").study.seeds)  # fresh ones
    (fresh,) = study_tables(promoted, Results(REAL))
    assert all(row.found == row.wanted for row in fresh.rows)
    assert (REAL / "promoted" / f"{machine}.md").read_text(encoding="utf-8") == fresh.to_markdown()
    assert (REAL / "promoted" / f"{machine}.csv").read_text(encoding="utf-8") == fresh.to_csv()


def test_the_readme_quotes_them() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = ("Pre-trained weights", "A search", "On real recordings")
    sections = [text.split(f"## {name}\n")[1].split("\n## ")[0] for name in names]
    quoted = [line for text in sections for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    printed = {line for path in REAL.rglob("*.md") for line in path.read_text(encoding="utf-8").splitlines()}
    assert len(quoted) > 10
    assert [line for line in quoted if line not in printed] == []


def test_the_readme_names_every_module() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## The tree")[1]
    modules = [path for path in (ROOT / "raysd").rglob("*.py") if path.name != "__init__.py"]
    assert [path.name for path in modules if path.name not in tree] == []
