"""What may be deleted of a results root, and what never is."""

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raysd.results.cleanup import delete, find_dispensable, usage
from raysd.results.launches import Launch, LaunchedTrial, write_launch
from raysd.results.schema import Record
from raysd.results.storage import open_storage
from raysd.results.store import Results

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=8)
WEEK = timedelta(days=7)


def record(key: str, training_key: str, **changes: Any) -> Record:
    names: dict[str, Any] = {"key": key, "training_key": training_key, "recipe_key": "r", "data_fingerprint": "d"}
    values: dict[str, Any] = {"numerics": 1, "profile": None, "study": "s", "seed": 0, "year": 2020, "recipe": "{}"}
    times = {"started": NOW, "finished": NOW, "train_seconds": 1.0, "total_seconds": 1.0}
    values |= names | times | {"variant": "v", "provenance": "{}"} | changes
    return Record(**values)


@pytest.fixture
def results(root: str | Path) -> Results:
    """Three trainings that are done (of one, a trial is still to come), one whose scoring is to come, one half done."""
    results = Results(root)
    for training_key in ("done", "shared", "old", "unscored"):
        results.write_embeddings(training_key, pa.table({"path": [training_key]}))
        results.checkpoint(training_key, "all").write(b"weights")
    for training_key in ("done", "shared", "old"):
        results.write(record(f"k-{training_key}", training_key))
    results.checkpoint("half", "fan").write(b"x" * 10)
    results.checkpoint("half", "valve").write(b"x" * 20)
    results.write_failure(record("k-half", "half", state="failed", failure_kind="oom", traceback="x"))
    trials = [("k-shared", "shared"), ("k-shared-again", "shared"), ("k-half", "half"), ("k-done", "done")]
    launched = tuple(LaunchedTrial(key, training_key, "v", 0) for key, training_key in trials)
    write_launch(results, Launch("s", None, "?", 2020, "d", NOW, launched))
    return results


def names(results: Results, **options: Any) -> set[str]:
    return {one.name for one in find_dispensable(results, **options).found}


def test_what_may_go_by_which_rule(results: Results) -> None:
    checkpoints = {f"work/{key}" for key in ("done", "shared", "old", "unscored")}
    before = open_storage(results.root).names("", "")
    assert names(results) == names(results, now=LATER) == names(results, older_than=WEEK) == checkpoints
    assert names(results, older_than=WEEK, now=LATER) == checkpoints | {"work/half"}
    embeddings = {f"embeddings/{key}.parquet" for key in ("done", "old")}
    assert names(results, embeddings=True) == checkpoints | embeddings
    assert names(results, embeddings=True, older_than=WEEK) == checkpoints
    assert names(results, embeddings=True, older_than=WEEK, now=LATER) == checkpoints | embeddings | {"work/half"}
    found = find_dispensable(results, embeddings=True)
    assert {why: kept.files for why, kept in found.kept.items()} == {
        "checkpoints of unfinished trainings, which go on from them": 2,
        "embeddings without a finished trial": 1,
        "embeddings of which trials are still to come": 1,
    }
    assert open_storage(results.root).names("", "") == before


def test_all_that_may_go_is_deleted_and_no_score_ever(results: Results) -> None:
    before = usage(results)
    found = find_dispensable(results, older_than=WEEK, embeddings=True, now=LATER)
    assert delete(results, found) == []
    after = usage(results)
    for kind in ("trials", "failures", "launches", "searches"):
        assert after[kind] == before[kind]
    assert after["work"].files == 0
    assert before["embeddings"].files - after["embeddings"].files == 2
    gone = sum(before[kind].num_bytes - after[kind].num_bytes for kind in before)
    assert gone == found.num_bytes
    assert results.done() == {"k-done", "k-shared", "k-old"}
    assert results.trained() == {"shared", "unscored"}
    assert find_dispensable(results, older_than=WEEK, embeddings=True, now=LATER).found == ()


def test_left_overs_of_killed_writers_go_after_an_hour(root: str | Path) -> None:
    results, storage = Results(root), open_storage(root)
    results.write(record("k0", "t0"))
    hidden = ["trials/.k1.0123.tmp", "work/t1/.all.0123.tmp", ".0123.probe"]
    for name in hidden:
        storage.replace(name, b"half")
    assert names(results, now=NOW + timedelta(minutes=30)) == set()
    found = find_dispensable(results, now=NOW + timedelta(minutes=90))
    assert {one.name for one in found.found} == set(hidden)
    assert usage(results)["left-overs"].files == 3
    assert delete(results, found) == []
    assert storage.left_overs() == {}
    assert results.done() == {"k0"}


def _hold(root: Path, held: Any, let_go: Any) -> None:
    with Results(root).lock("done"):
        held.set()
        let_go.wait(60)


def test_nothing_goes_of_a_training_that_is_in_use(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write_embeddings("done", pa.table({"path": ["a"]}))
    results.write(record("k-done", "done"))
    results.checkpoint("done", "all").write(b"weights")
    free = find_dispensable(results, embeddings=True)
    assert len(free.found) == 2
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, held, let_go), daemon=True)
    holder.start()
    assert held.wait(120)
    assert names(results, embeddings=True) == set()
    assert delete(results, free) == list(free.found)  # taken since it was found
    assert results.trained() == {"done"}
    holder.kill()
    holder.join()
    assert delete(results, free) == []
    assert results.trained() == set()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_lock_that_guards_nothing_goes_too(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write_embeddings("done", pa.table({"path": ["a"]}))
    for key in ("done", "waiting"):
        with results.lock(key):
            pass
    found = find_dispensable(results)
    assert [one.name for one in found.found] == ["work/done.lock"]
    assert delete(results, found) == []
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["waiting.lock"]
