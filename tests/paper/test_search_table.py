"""The table of a search, on a search whose numbers are known."""

import csv
import io
from pathlib import Path

import pytest
from made_search import STUDY, record, run_search, study_at
from rich.console import Console

from raysd.errors import BadInput
from raysd.paper.search_table import SearchTable
from raysd.paper.tables import ORACLE
from raysd.results.store import Results
from raysd.study.design import trials_of
from raysd.study.searched import search_tables


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


def terminal(table: SearchTable) -> str:
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(table.to_rich())
    return console.export_text()


def test_the_best_stand_first_beside_metrics_the_search_never_saw(tmp_path: Path, results: Results) -> None:
    study = study_at(tmp_path)
    run_search(study, results, official=-1.0)  # the better for the search, the worse by the official metric
    (floor,) = [trial for trial in trials_of(study, "d0") if trial.role == "reference"]
    results.write(record(floor, {}, 0.55))
    (table,) = search_tables(study, results)

    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [line["state"] for line in lines] == ["done"] * 11 + ["pruned", "asked", "failed", "done"]
    done = [float(line["objective"]) for line in lines[:11]]
    assert done == sorted(done, reverse=True)
    official = [float(line["official_dev"]) for line in lines[:11]]
    assert official == pytest.approx([0.6 - (value - 0.7) for value in done])
    assert all(results.has(line["key"]) for line in lines[:11])
    (baseline,) = [line for line in lines if line["role"] == "baseline"]
    assert (baseline["number"], baseline["objective"], baseline["choice_rate"]) == ("0", "0.7", "0.001")
    assert [line["choice_alpha"] == "" for line in lines[:11]] == [line["choice_mixup"] == "off" for line in lines[:11]]
    assert (lines[11]["epochs"], lines[0]["epochs"], lines[12]["epochs"]) == ("2", "9", "")
    assert (lines[-1]["variant"], lines[-1]["objective"], lines[-1]["official_dev"]) == ("floor", "", "0.55")

    for text in (table.to_markdown(), terminal(table)):
        assert "DCASE 2020, fan, pump (fingerprint d0)" in text
        assert "profile: cpu; trained on: dev; checkpoint: last epoch; seed 3" in text
        assert "14 suggestions: 11 done, 1 pruned, 1 asked, 1 failed" in text
        assert "the first row is the best of 11, with one seed: its values are optimistic" in text
        assert "raysd promote find --as FILE" in text
        assert ORACLE not in text
        assert text.index("0 (baseline)") < text.index("pruned", text.index("0 (baseline)")) < text.index("floor")
    assert f"| 0 (baseline) | done | 70.00 | {100 * float(baseline['official_dev']):.2f} |" in table.to_markdown()


def test_an_oracle_is_stamped_in_every_form(tmp_path: Path, results: Results) -> None:
    study = study_at(tmp_path, search=STUDY["search"] | {"oracle": True, "suggestions": 3}, pruning=None)
    run_search(study, results)
    (table,) = search_tables(study, results)
    for text in (table.to_markdown(), table.to_csv(), terminal(table)):
        assert text.splitlines()[0].strip() == ORACLE
    assert "objective: official score, on test clips" in table.to_markdown()
    lines = list(csv.DictReader(table.to_csv().splitlines()[1:]))
    assert {line["oracle"] for line in lines} == {"True"}


def test_each_corpus_has_its_own_table(tmp_path: Path, results: Results) -> None:
    study = study_at(tmp_path, search=STUDY["search"] | {"suggestions": 3})
    with pytest.raises(BadInput, match="nothing of the search find; first: raysd run find"):
        search_tables(study, results)
    for corpus in ("d0", "d1"):
        run_search(study, results, corpus)
    assert [table.fingerprint for table in search_tables(study, results)] == ["d0", "d1"]
    assert [table.fingerprint for table in search_tables(study, results, "d1")] == ["d1"]
