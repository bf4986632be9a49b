"""Trials of an older schema are read, tabled and packed beside today's; those of a newer one are left alone."""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from raysd.errors import BadInput
from raysd.paper.tables import study_tables
from raysd.recipe import recipe_key
from raysd.results.schema import DUCKDB_LINE, PANDAS_LINE, SCHEMA_VERSION, VERSIONS, schema_markdown
from raysd.results.store import Results
from raysd.study.design import LoadedStudy, load_study, trials_of

OLD = Path(__file__).parent / "data" / "schema_1.parquet"
# schema_1.parquet was made with these; the corpus: synthetic, 2020, 2 machines of 1 section, 4 training and 4 test
# clips each of 1.25 seconds
RECIPE = """
features: { num_bands: 32 }
segments: { train_seconds: 1.0 }
encoder: { name: cnn, width: 0.125 }
train: { epochs: 2, batch_size: 16, precision: fp32 }
"""
STUDY = """
question: "Does it run?"
baseline: recipe.yaml
design: list
variants: { gaussian: { scoring.name: gaussian } }
seeds: [0, 1]
references: []
"""
AS_COLUMNS = ("key", "study", "variant", "seed")


@pytest.fixture
def study(tmp_path: Path) -> LoadedStudy:
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    return load_study(tmp_path / "study.yaml")


@pytest.fixture
def results(tmp_path: Path, study: LoadedStudy) -> Results:
    """The old trial, and one of today's that is a variant of it: the same clips and metrics, with a held-out clip."""
    (old,) = pq.read_table(OLD).to_pylist()
    (tmp_path / "results" / "trials").mkdir(parents=True)
    shutil.copy(OLD, tmp_path / "results" / "trials" / f"{old['key']}.parquet")
    found = Results(tmp_path / "results")
    trial = next(trial for trial in trials_of(study, old["data_fingerprint"]) if trial.variant == "gaussian")
    about = {"key": trial.key, "training_key": trial.training_key, "recipe_key": recipe_key(trial.recipe)}
    record = found.read(old["key"])
    scores = [*record.scores, {**record.scores[0], "split": "perturbed", "label": None}]
    found.write(replace(record, **about, variant=trial.variant, scores=scores, schema_version=SCHEMA_VERSION))
    return found


def flat(results: Results) -> list[dict[str, Any]]:
    """The metrics of all trials, read by raysd."""
    rows = results.rows([*AS_COLUMNS, "metrics"])
    return in_order(metric | {name: row[name] for name in AS_COLUMNS} for row in rows for metric in row["metrics"])


def in_order(rows: Any) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["key"], row["part"], row["machine"], row["section"], row["metric"]))


def test_trials_of_an_older_version_are_read_tabled_and_packed(results: Results, study: LoadedStudy) -> None:
    (old,) = pq.read_table(OLD).to_pylist()
    assert old["schema_version"] == 1

    def seen() -> list[Any]:
        frame = results.frame().set_index("key")
        assert sorted(frame["schema_version"]) == [1, SCHEMA_VERSION]
        assert {name: value for name, value in vars(results.read(old["key"])).items() if name in old} == old
        assert results.rows(list(old), {old["key"]}) == [old]
        assert len(results.scores({old["key"]})) == len(old["scores"])
        assert len(results.scores()) == 2 * len(old["scores"]) + 1
        (table,) = study_tables(study, results)
        assert [(row.variant, row.found) for row in table.rows] == [("baseline", 1), ("gaussian", 1)]
        return [frame.drop(columns=["scores", "metrics", "history"]).to_csv(), flat(results), table.to_csv()]

    before = seen()
    compacted = results.compact()
    assert (compacted.trials, compacted.files_before, compacted.files_after) == (2, 2, 1)
    assert seen() == before


def test_a_newer_trial_is_told_of_and_nothing_is_changed(results: Results, study: LoadedStudy) -> None:
    newer = replace(next(map(results.read, sorted(results.done()))), key="newer", schema_version=SCHEMA_VERSION + 1)
    results.write(newer)
    files = {path: path.read_bytes() for path in Path(results.root).rglob("*.parquet")}
    for read in (results.frame, results.scores, results.compact, lambda: study_tables(study, results)):
        with pytest.raises(BadInput, match=rf"newer\.parquet: written by a newer raysd \(schema {SCHEMA_VERSION + 1};"):
            read()
    assert {path: path.read_bytes() for path in Path(results.root).rglob("*.parquet")} == files


def test_the_documented_line_for_pandas_reads_all_metrics(results: Results) -> None:
    assert PANDAS_LINE in schema_markdown()
    for _ in ("files", "a pack"):
        read = eval(PANDAS_LINE.replace("RESULTS", str(results.root)), {"pd": pd, "pq": pq})
        assert in_order(read.to_dict("records")) == flat(results)
        results.compact()


@pytest.mark.skipif(importlib.util.find_spec("duckdb") is None, reason="DuckDB is not installed: pip install duckdb")
def test_the_documented_line_for_duckdb_reads_all_metrics(results: Results) -> None:
    assert DUCKDB_LINE in schema_markdown()
    line = DUCKDB_LINE.replace("RESULTS", str(results.root))
    code = f"import duckdb, json\nread = {line}\nrows = [dict(zip(read.columns, row)) for row in read.fetchall()]\n"
    code += "print(json.dumps(rows))"
    for _ in ("files", "a pack"):
        # in a process of its own, as DuckDB has much to say at the end of one
        printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert in_order(json.loads(printed)) == flat(results)
        results.compact()


def test_every_version_is_documented() -> None:
    assert list(VERSIONS) == list(range(1, SCHEMA_VERSION + 1))
