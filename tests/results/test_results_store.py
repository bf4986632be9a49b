"""Records of trials: whole or not at all, once, readable by anyone; in a folder and in object storage."""

import io
import multiprocessing
import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysd.errors import BadInput
from raysd.results.schema import SCHEMA, SCHEMA_VERSION, Record, schema_markdown
from raysd.results.storage import open_storage
from raysd.results.store import Results

START = datetime(2024, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CLIP = {"path": "dev_data/fan/test/a.wav", "machine": "fan", "section": "00", "part": "dev", "split": "test"}


def record(key: str = "k0", seed: int = 0, **changes) -> Record:
    values = {
        "key": key,
        "training_key": "t" + key,
        "recipe_key": "r0",
        "numerics": 1,
        "variant": "baseline",
        "study": "s",
        "profile": None,
        "seed": seed,
        "year": 2020,
        "data_fingerprint": "d0",
        "recipe": "{}",
        "started": START,
        "finished": START + timedelta(seconds=5),
        "train_seconds": 4.0,
        "total_seconds": 5.0,
        "provenance": "{}",
        "clips_per_second": 12.5,
        "history": [
            {"epoch": 1, "loss": 0.5, "contrastive": 0.5, "classification": None, "learning_rate": 1e-3}
            | {"grad_norm": 1.0, "clips_per_second": 12.5, "seconds": 4.0}
        ],
        "scores": [CLIP | {"domain": None, "label": 1, "score": 0.1 + 0.2}],
        "metrics": [
            {"part": "dev", "machine": "fan", "section": "00", "metric": "auc", "value": 2 / 3}
            | {"num_normal": 1, "num_anomaly": 1}
        ],
    }
    return Record(**values | changes)


def parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def test_what_was_written_is_read(root: str | Path) -> None:
    results = Results(root)
    assert results.done() == set()
    assert results.write(record())
    assert results.read("k0") == record()
    assert results.done() == {"k0"}
    assert results.has("k0")
    assert not results.has("k1")


def test_frames_are_taken_as_entries(root: str | Path) -> None:
    clips = pd.DataFrame([record().scores[0], CLIP | {"domain": np.nan, "label": pd.NA, "score": 1.0}])
    clips["label"] = clips["label"].astype("Int8")
    Results(root).write(record(scores=clips.assign(extra=1)))
    read = Results(root).read("k0").scores
    assert list(read) == [record().scores[0], CLIP | {"domain": None, "label": None, "score": 1.0}]


def test_the_first_one_wins(root: str | Path) -> None:
    results = Results(root)
    assert results.write(record(variant="first"))
    before = open_storage(root).read("trials/k0.parquet")
    assert not results.write(record(variant="second"))
    assert open_storage(root).read("trials/k0.parquet") == before


def test_of_many_writers_at_once_one_wins(tmp_path: Path) -> None:
    results, wins, barrier = Results(tmp_path), [], threading.Barrier(8)

    def write(i: int) -> None:
        barrier.wait()
        wins.append((results.write(record(variant=f"v{i}")), f"v{i}"))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [name for won, name in wins if won]
    assert winners == [results.read("k0").variant]
    assert os.listdir(tmp_path / "trials") == ["k0.parquet"]


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert Results(tmp_path).write(record())
    assert not Results(tmp_path).write(record(variant="second"))
    assert os.listdir(tmp_path / "trials") == ["k0.parquet"]


def test_a_writer_that_fails_or_is_killed_leaves_nothing_that_is_read(tmp_path: Path, monkeypatch) -> None:
    results = Results(tmp_path)
    results.write(record())
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            results.write(record("k1"))
    assert os.listdir(tmp_path / "trials") == ["k0.parquet"]
    seen: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", lambda hidden, path: seen.append(Path(hidden).name) or os.rename(hidden, path))
        results.write(record("k1"))
    (tmp_path / "trials" / seen[0]).write_bytes(b"half a record")  # what a kill before the last step leaves
    assert results.done() == {"k0", "k1"}
    assert len(results.frame()) == 2
    assert len(pd.read_parquet(tmp_path / "trials")) == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    results = Results(tmp_path / "file")
    keep, hold = results.checkpoint("t0", "all").write, results.lock("t0").__enter__
    for use in (lambda: results.write(record()), lambda: keep(b"x"), hold, results.writable):
        with pytest.raises(
            BadInput, match=r"file.*: results cannot be kept there: (Not a directory|File exists); choose"
        ):
            use()
    assert results.done() == set()


def test_only_finished_trials_are_trials(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not done"):
        Results(tmp_path).write(record(state="failed", failure_kind="oom", traceback="x"))
    with pytest.raises(ValueError, match="failed"):
        Results(tmp_path).write_failure(record())
    with pytest.raises(ValueError, match="failed"):
        Results(tmp_path).write_failure(record(state="failed", failure_kind="bad luck"))


def test_every_failure_is_kept_and_none_counts_as_done(root: str | Path) -> None:
    results = Results(root)
    failed = record(state="failed", failure_kind="non_finite", traceback="Traceback ...", scores=[], metrics=[])
    first = results.write_failure(failed)
    second = results.write_failure(replace(failed, finished=START + timedelta(seconds=9), failure_kind="oom"))
    assert first != second
    assert first == f"{results}/failures/k0-20240301T120005.123456Z.parquet"
    assert results.done() == set()
    frame = results.failures(["key", "failure_kind", "traceback"])
    assert frame["failure_kind"].tolist() == ["non_finite", "oom"]
    assert frame["traceback"].tolist() == ["Traceback ..."] * 2


def test_all_trials_are_one_frame(root: str | Path) -> None:
    results = Results(root)
    assert list(results.frame().columns) == SCHEMA.names
    for i in (2, 0, 1):
        results.write(record(f"k{i}", seed=i))
    frame = results.frame()
    assert frame["key"].tolist() == ["k0", "k1", "k2"]
    assert frame["seed"].tolist() == [0, 1, 2]
    assert [clips[0]["score"] for clips in frame["scores"]] == [0.1 + 0.2] * 3
    assert set(frame["started"]) == {pd.Timestamp(START)}
    assert list(results.frame(["seed"]).columns) == ["seed"]
    assert results.rows(["seed"], {"k2"}) == [{"seed": 2}]


def test_pandas_reads_the_trials_without_raysd(tmp_path: Path) -> None:
    for i in range(3):
        Results(tmp_path).write(record(f"k{i}", seed=i, profile=None if i else "cpu"))
    code = (
        "import sys, pandas; frame = pandas.read_parquet(sys.argv[1]);"
        "clips = pandas.DataFrame(list(frame.scores.explode()));"
        "assert not any(name.startswith('raysd') for name in sys.modules);"
        "print(sorted(frame.seed), sorted(frame.columns) == sorted(sys.argv[2].split()), clips.score.sum())"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "trials"), " ".join(SCHEMA.names)]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == f"[0, 1, 2] True {sum([0.1 + 0.2] * 3)}"


def test_a_corrupt_file_names_itself(root: str | Path) -> None:
    results, storage = Results(root), open_storage(root)
    for key in ("k0", "k1", "k2"):
        results.write(record(key))
    whole = storage.read("trials/k1.parquet") or b""
    for broken in (b"", b"not parquet at all", whole[: len(whole) // 2], b"PAR1" + whole[4:-30] + b"x" * 30):
        storage.replace("trials/k1.parquet", broken)
        for read in (results.frame, lambda: results.read("k1"), lambda: results.rows(["seed"])):
            with pytest.raises(BadInput, match=r"k1\.parquet: cannot be read as results .*delete it") as error:
                read()
            assert "\n" not in str(error.value)
    for foreign in (pa.table({"a": [1]}), SCHEMA.empty_table()):
        storage.replace("trials/k1.parquet", parquet(foreign))
        with pytest.raises(BadInput, match=r"k1\.parquet: cannot be read as results"):
            results.read("k1")
    storage.replace("trials/k1.parquet", parquet(pa.table({"a": [1]})))
    with pytest.raises(BadInput, match=r"k1\.parquet: cannot be read as results"):
        results.frame()


def test_results_of_a_newer_raysd_are_refused(root: str | Path) -> None:
    results, storage = Results(root), open_storage(root)
    results.write(record("k0"))
    results.write(record("k1", schema_version=SCHEMA_VERSION + 1))
    with pytest.raises(BadInput, match=r"k1\.parquet: written by a newer raysd \(schema 3; this one reads up to 2\)"):
        results.frame(["seed"])
    with pytest.raises(BadInput, match="newer raysd"):
        results.read("k1")
    newer = pa.schema([field if field.name != "seed" else pa.field("seed", pa.string()) for field in SCHEMA])
    row = pq.read_table(pa.BufferReader(storage.read("trials/k0.parquet"))).to_pylist()[0]
    row |= {"seed": "a", "schema_version": 3}
    table = pa.Table.from_pylist([row], schema=newer.with_metadata({"raysd_schema_version": "3"}))
    storage.replace("trials/k1.parquet", parquet(table))
    with pytest.raises(BadInput, match="newer raysd"):
        results.frame(["seed"])


def test_a_trial_that_is_not_there(root: str | Path) -> None:
    with pytest.raises(BadInput, match="no trial k9"):
        Results(root).read("k9")


def test_a_trial_is_found_by_the_beginning_of_its_key(root: str | Path) -> None:
    results = Results(root)
    for key in ("ab1", "ab2", "c"):
        results.write(record(key))
    assert results.find("ab2").key == "ab2"
    assert results.find("c").key == "c"
    for wrong, message in (("ab", "2 trials with a key"), ("x", "no trial with a key")):
        with pytest.raises(BadInput, match=message):
            results.find(wrong)


def test_embeddings(root: str | Path) -> None:
    results = Results(root)
    z_ND = np.arange(6, dtype=np.float32).reshape(2, 3)
    z = pa.FixedSizeListArray.from_arrays(pa.array(z_ND.ravel()), 3)
    clips = {name: ["a", "b"] for name in ("path", "machine", "section", "part", "split", "domain", "label")}
    table = pa.table({**clips, "z": z, "class_score": pa.array([0.5, None], pa.float32())})
    table = table.replace_schema_metadata({"training": "kept"})
    assert results.read_embeddings("t0") is None
    assert results.write_embeddings("t0", table)
    assert not results.write_embeddings("t0", table.slice(0, 1))
    read = results.read_embeddings("t0")
    assert read is not None
    assert read.equals(table)
    assert (read.schema.metadata or {})[b"training"] == b"kept"
    np.testing.assert_array_equal(np.stack(read["z"].to_numpy()), z_ND)
    assert results.trained() == {"t0"}
    open_storage(root).replace("embeddings/t0.parquet", b"x")
    with pytest.raises(BadInput, match=r"t0\.parquet: cannot be read"):
        results.read_embeddings("t0")


def test_checkpoints_come_and_go_while_they_are_locked(root: str | Path) -> None:
    results, began = Results(root), datetime.now(UTC) - timedelta(seconds=2)  # object storage counts whole seconds
    one, other = results.checkpoint("t0", "fan"), results.checkpoint("t0", "valve")
    assert one.read() is None
    assert results.checkpoints() == {}
    with results.lock("t0"):
        for content in (b"first", b"second, longer", b""):
            one.write(content)
            assert one.read() == content
        other.write(b"x")
        results.checkpoint("t1", "fan").write(b"y")
        assert results.checkpoints().keys() == {"t0", "t1"}
        assert all(began <= last <= datetime.now(UTC) for last in results.checkpoints().values())
        results.clear_work("t0")
        assert one.read() is other.read() is None
        assert results.checkpoints().keys() == {"t1"}
    results.clear_work("t0")
    assert results.checkpoint("t1", "fan").read() == b"y"


def test_a_finished_training_leaves_no_lock(tmp_path: Path) -> None:
    results = Results(tmp_path)
    with results.lock("t0"):
        results.checkpoint("t0", "all").write(b"x")
        results.clear_work("t0")
    assert os.listdir(tmp_path / "work") == []


def test_the_probe_of_a_place_that_works_leaves_nothing(root: str | Path) -> None:
    Results(root).writable()
    assert open_storage(root).names("", "") == []


def _hold(root: Path, held, let_go) -> None:
    with Results(root).lock("t0"):
        held.set()
        let_go.wait(30)


def test_a_lock_waits_for_its_holder_and_outlives_no_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, held, let_go))
    holder.start()
    assert held.wait(60)
    taken = threading.Event()

    def take() -> None:
        with Results(tmp_path).lock("t0"):
            taken.set()

    waiter = threading.Thread(target=take)
    waiter.start()
    assert not taken.wait(0.3)
    with Results(tmp_path).lock("t1"):
        pass  # another training is free
    holder.kill()
    assert taken.wait(10)
    waiter.join()
    holder.join()


def test_sizes(root: str | Path) -> None:
    results, storage = Results(root), open_storage(root)
    assert results.sizes() == (None, None)
    results.write(record())
    results.write_embeddings("t0", pa.table({"path": ["a"]}))
    assert results.sizes() == tuple(
        len(storage.read(name) or b"") for name in ("trials/k0.parquet", "embeddings/t0.parquet")
    )


def test_the_document_describes_this_schema() -> None:
    document = Path(__file__).parents[2] / "docs" / "parquet-schema.md"
    assert document.read_text(encoding="utf-8") == schema_markdown(), "make it anew: python -m raysd.results.schema"
    nested = [field.type.value_type for field in SCHEMA if pa.types.is_list(field.type)]
    for column in [*SCHEMA, *(inner for kind in nested for inner in kind)]:
        assert f"| `{column.name}` |" in schema_markdown()
    assert SCHEMA.metadata == {b"raysd_schema_version": str(SCHEMA_VERSION).encode()}
