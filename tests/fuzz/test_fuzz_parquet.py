"""Whatever stands in a results root in the place of records: nothing is read as another number without a word."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import examples, in_bounded_time, is_one_line
from hypothesis import example, given
from hypothesis import strategies as st

from raysd.errors import BadInput
from raysd.paper.tables import study_tables
from raysd.recipe import recipe_key
from raysd.results.schema import SCHEMA, SCHEMA_VERSION, Record
from raysd.results.store import Results
from raysd.status import study_status
from raysd.study.design import LoadedStudy, load_study, trials_of

STUDY = """
question: "What is lost?"
baseline: recipes/nearest_neighbour.yaml
design: list
variants: { mel: { features.num_bands: 64 }, k: { scoring.k: 2 } }
references: []
seeds: [0, 1]
"""
NOW = datetime(2024, 3, 1, tzinfo=UTC)
PACKED = 2
"""Of the trials below, so many stand in a pack."""


@cache
def whole() -> tuple[Path, LoadedStudy, list[Record]]:
    """A results root with three trials of a study, two of them in a pack, the study and the records."""
    folder = TemporaryDirectory()
    KEPT.append(folder)
    path = Path(folder.name) / "asked.yaml"
    path.write_text(STUDY)
    study, results = load_study(path), Results(Path(folder.name) / "results")
    records = [record_of(trial, number) for number, trial in enumerate(trials_of(study, "data"))]
    for number, record in enumerate(records):
        assert results.write(record)
        if number == PACKED - 1:
            results.compact()
    results.write_failure(replace(records[0], state="failed", failure_kind="code", traceback="x\nValueError: no"))
    return Path(folder.name), study, records


KEPT: list[TemporaryDirectory[str]] = []


def record_of(trial: Any, number: int) -> Record:
    clip = {"machine": "fan", "section": "00", "part": "dev", "domain": None}
    scores = [
        clip | {"path": f"{split}/{i}.wav", "split": split, "label": i % 2 * (split == "test"), "score": number + i / 7}
        for split in ("train", "test")
        for i in range(3)
    ]
    sections = ("00", "arithmetic_mean", "harmonic_mean")
    metrics = [
        {"part": "dev", "machine": "fan", "section": section, "metric": metric, "num_normal": 2, "num_anomaly": 1}
        | {"value": number / 10 + i / 100}
        for section in sections
        for i, metric in enumerate(("auc", "pauc", "official"))
    ]
    epoch = {"epoch": 1, "loss": 2.5, "learning_rate": 0.1, "grad_norm": 1.5, "clips_per_second": 9.0, "seconds": 1.0}
    return Record(
        key=trial.key,
        training_key=trial.training_key,
        recipe_key=recipe_key(trial.recipe),
        numerics=1,
        variant=trial.variant,
        study="asked",
        profile=None,
        seed=trial.seed,
        year=2020,
        data_fingerprint="data",
        recipe=trial.recipe.model_dump_json(),
        started=NOW,
        finished=NOW,
        train_seconds=1.0,
        total_seconds=2.0,
        provenance='{"commit": "c"}',
        history=[epoch | {"contrastive": 1.0, "classification": None}],
        scores=scores,
        metrics=metrics,
    )


DOORS: dict[str, Callable[[LoadedStudy, Results], Any]] = {
    "table": lambda study, results: [table.to_csv() for table in study_tables(study, results)],
    "status": lambda study, results: [status.rows for status in study_status(study, results)],
    "failures": lambda study, results: [repr(status.failures) for status in study_status(study, results)],
    "rows": lambda study, results: results.rows(SCHEMA.names),
    "frame": lambda study, results: results.frame(["key", "seed", "metrics"]).to_dict("records").__repr__(),
    "scores": lambda study, results: results.scores().to_csv(),
    "read": lambda study, results: [results.read(key) for key in sorted(results.done())],
    "found": lambda study, results: [results.find(key[:10]).seed for key in sorted(results.done())],
}


@cache
def expected() -> dict[str, Any]:
    folder, study, _ = whole()
    return {door: ask(study, Results(folder / "results")) for door, ask in DOORS.items()}


def is_told(damage: Callable[[Path], str | None], doors: dict[str, Any] = DOORS) -> dict[str, Any]:
    """What each door gives after some damage: what it gave before, or one line that names the file. Else it fails."""
    folder, study, _ = whole()
    found: dict[str, Any] = {}
    with TemporaryDirectory() as other, in_bounded_time():
        root = Path(other) / "results"
        shutil.copytree(folder / "results", root)
        damaged = damage(root)
        if damaged is None:
            return found
        for door, ask in doors.items():
            try:
                found[door] = ask(study, Results(root))
            except BadInput as error:
                found[door] = error
            if isinstance(found[door], BadInput):
                assert is_one_line(found[door])
                assert damaged in str(found[door])
            else:
                assert found[door] == expected()[door]
    return found


def files(root: Path) -> list[Path]:
    return sorted([*root.glob("trials/*.parquet"), *root.glob("failures/*.parquet")])


@examples(4)
@given(
    st.integers(0, 100),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([None, None, None, "insert", "delete"]),
)
def test_flipped_bytes(number: int, flips: list[tuple[int, int]], at_end: bool, shift: str | None) -> None:
    def damage(root: Path) -> str:
        path = files(root)[number % len(files(root))]
        content = bytearray(path.read_bytes())
        for where, value in flips:
            at = where % len(content)
            if at_end:  # where the schema and the places of the columns stand
                at = len(content) - 1 - where % min(len(content), 9000)
            if shift == "insert":
                content.insert(at, value)
            elif shift == "delete":
                del content[at]
            else:
                content[at] ^= 1 << value % 8
        path.write_bytes(content)
        return path.name

    is_told(damage)


@examples(3)
@given(st.integers(0, 100), st.integers(0, 10**6) | st.just(0), st.binary(max_size=60) | st.just(b"PAR1"))
@example(0, 0, b"")
@example(3, 4, b"PAR1")
def test_truncated_and_foreign_files(number: int, length: int, tail: bytes) -> None:
    def damage(root: Path) -> str:
        path = files(root)[number % len(files(root))]
        content = path.read_bytes()
        path.write_bytes(content[: length % len(content)] + tail)
        return path.name

    is_told(damage)


# --- whole files that say something else ------------------------------------------------------------------------------


def renamed(table: pa.Table, old: str, new: str) -> pa.Table:
    return table.rename_columns([new if name == old else name for name in table.column_names])


def with_column(table: pa.Table, name: str, values: Any, kind: pa.DataType | None = None) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values, kind))


def without_entry(table: pa.Table, name: str, part: str, instead: str) -> pa.Table:
    def other(entry: dict[str, Any]) -> dict[str, Any]:
        return {instead if key == part else key: value for key, value in entry.items()}

    return with_column(table, name, [[other(entry) for entry in row] for row in table[name].to_pylist()])


def of_long_strings(table: pa.Table) -> pa.Table:
    texts = [column.with_type(pa.large_string()) if column.type == pa.string() else column for column in table.schema]
    return table.cast(pa.schema(texts))


ODD_TABLES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "a column renamed": lambda table: renamed(table, "seed", "Seed"),
    "a column gone": lambda table: table.drop_columns("metrics"),
    "a column that may be null gone": lambda table: table.drop_columns("traceback"),
    "a column more": lambda table: table.append_column("more", pa.array([1] * len(table))),
    "another type": lambda table: with_column(table, "seed", [str(it) for it in table["seed"].to_pylist()]),
    "smaller numbers": lambda table: with_column(table, "seed", table["seed"].to_pylist(), pa.int8()),
    "no key": lambda table: with_column(table, "key", [None] * len(table), pa.string()),
    "another key": lambda table: with_column(table, "key", [f"x{i}" for i in range(len(table))], pa.string()),
    "no seed": lambda table: with_column(table, "seed", [None] * len(table), pa.int64()),
    "no metrics": lambda table: with_column(table, "metrics", [None] * len(table), SCHEMA.field("metrics").type),
    "no version": lambda table: with_column(table, "schema_version", [None] * len(table), pa.int32()),
    "version 0": lambda table: with_column(table, "schema_version", [0] * len(table), pa.int32()),
    "a newer version": lambda table: with_column(
        table, "schema_version", [SCHEMA_VERSION + 1] * len(table), pa.int32()
    ),
    "an entry's value renamed": lambda table: without_entry(table, "metrics", "value", "Value"),
    "an entry's label renamed": lambda table: without_entry(table, "scores", "label", "labels"),
    "a trial doubled": lambda table: pa.concat_tables([table, table.slice(0, 1)]),
    "no trial": lambda table: table.slice(0, 0),
    "no column": lambda table: pa.table({}),
    "other strings": of_long_strings,
}


@examples(6)
@given(st.integers(0, 1), st.sampled_from(sorted(ODD_TABLES)))
@example(1, "a trial doubled")
@example(1, "an entry's label renamed")
def test_tables_that_are_no_records(number: int, what: str) -> None:
    if what == "another key":
        number = 0  # the second file is a pack, and with other keys it is one of other trials, as whole as before

    def damage(root: Path) -> str:
        path = sorted(root.glob("trials/*.parquet"))[number]
        content = io.BytesIO()
        pq.write_table(ODD_TABLES[what](pq.ParquetFile(path).read()), content)
        path.write_bytes(content.getvalue())
        return path.name

    found = is_told(damage)
    assert any(isinstance(found[door], BadInput) for door in ("rows", "read"))


def other_trial(root: Path) -> Path:
    return next(path for path in root.glob("trials/*.parquet") if not path.name.startswith("pack-"))


def swapped(root: Path) -> str:
    """A failure in the place of a trial."""
    shutil.copy(next(root.glob("failures/*.parquet")), other_trial(root))
    return other_trial(root).name


def copied(root: Path) -> str:
    """A trial under the name of another, which is not there."""
    other_trial(root).rename(root / "trials" / "0123456789abcdef.parquet")
    return "0123456789abcdef"


def in_a_folder(root: Path) -> str:
    """A folder that has the name of a file, with files in it, as other tools write tables."""
    path = other_trial(root)
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / "part-0.parquet").write_bytes(content)
    return path.name


def mixed(root: Path) -> str:
    """Half of one file and half of another."""
    path, pack = other_trial(root), next(root.glob("trials/pack-*.parquet"))
    path.write_bytes(pack.read_bytes()[:5000] + path.read_bytes()[5000:])
    return path.name


@pytest.mark.parametrize("damage", [swapped, copied, in_a_folder, mixed])
def test_files_in_the_place_of_others(damage: Callable[[Path], str]) -> None:
    found = is_told(damage, {door: DOORS[door] for door in ("table", "rows", "read")})
    assert all(isinstance(outcome, BadInput) for outcome in found.values())


def test_what_is_lost_is_told_by_every_command(raysd: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    folder, _, _ = whole()
    shutil.copytree(folder / "results", tmp_path / "results")
    words = (folder / "asked.yaml", "--results", tmp_path / "results")
    path = other_trial(tmp_path / "results")
    path.write_bytes(path.read_bytes()[:-20])
    for command in ("table", "status"):
        status, out, err = raysd(command, *words)
        assert (status, out) == (2, "")
        assert path.name in err
        assert err.count("\n") == 1
    path.unlink()
    assert "2 of 3 trials done, 0 begun, 0 failed, 1 missing" in raysd("status", *words)[1]
    assert "0/1" in raysd("table", *words)[1]


def test_embeddings_of_another_training_are_refused(tmp_path: Path) -> None:
    results = Results(tmp_path)
    clip = {name: ["x"] for name in ("path", "machine", "section", "part", "split", "domain", "label")}
    for key in ("a", "b"):
        results.write_embeddings(key, pa.table(clip | {"z": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))}))
    path, whole_b = tmp_path / "embeddings" / "b.parquet", results.read_embeddings("b")
    content, refused = path.read_bytes(), 0
    for at in range(4, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            found = results.read_embeddings("b")
        except BadInput as error:
            refused += "b.parquet: cannot be read as results" in str(error)
        else:
            assert found is not None
            assert whole_b is not None
            assert found.to_pylist() == whole_b.to_pylist()
    assert refused > 10
    shutil.copy(tmp_path / "embeddings" / "a.parquet", path)
    with pytest.raises(BadInput, match=r"b\.parquet: .* not hold the embeddings of this training"):
        results.read_embeddings("b")
