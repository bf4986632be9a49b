"""Trials in packs: the same trials, each once, for whoever reads, writes or compacts at the same time."""

import multiprocessing
import os
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysd.errors import BadInput
from raysd.results import packs
from raysd.results.schema import SCHEMA_VERSION, Record
from raysd.results.storage import Storage, open_storage
from raysd.results.store import Results

NOW = datetime(2024, 3, 1, tzinfo=UTC)
CLIP = {"machine": "fan", "section": "00", "part": "dev", "split": "test", "domain": None, "label": 1}
METRIC = {"part": "dev", "machine": "fan", "section": "00", "metric": "auc", "num_normal": 1, "num_anomaly": 1}


def record(number: int, variant: str = "baseline", **changes: Any) -> Record:
    key = f"{number:04d}"
    names: dict[str, Any] = {
        "key": key,
        "training_key": f"t{key}",
        "recipe_key": "r",
        "data_fingerprint": "d",
        "recipe": "{}",
    }
    values: dict[str, Any] = {"numerics": 1, "profile": None, "study": "s", "seed": number, "year": 2020}
    times = {"started": NOW, "finished": NOW + timedelta(seconds=number), "train_seconds": 1.0, "total_seconds": 2.0}
    scores = [CLIP | {"path": f"{key} {i}", "score": number + i / 7} for i in range(number % 5)]
    rest: dict[str, Any] = {"variant": variant, "provenance": "{}", "scores": scores}
    values |= names | times | rest | {"metrics": [METRIC | {"value": number / 3}]} | changes
    return Record(**values)


def fill(root: str | Path, numbers: range) -> Results:
    results = Results(root)
    for number in numbers:
        assert results.write(record(number))
    return results


def keys(numbers: range | list[int]) -> list[str]:
    return [f"{number:04d}" for number in numbers]


def files(root: str | Path) -> list[str]:
    return [name.removeprefix("trials/") for name in open_storage(root).names("trials", "")]


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of about 20 of these trials."""
    monkeypatch.setattr(packs, "PACK_BYTES", 40_000)
    monkeypatch.setattr(packs, "GROUP_ROWS", 3)
    monkeypatch.setattr(packs, "AT_ONCE", 8)


def seen(results: Results, numbers: range) -> list[Any]:
    """All that is read of these trials, in a form that compares."""
    wanted = set(keys(numbers))
    assert results.done() >= wanted
    frame, clips = results.frame(), results.scores(wanted)
    return [
        frame[frame["key"].isin(sorted(wanted))].drop(columns=["scores", "metrics", "history"]).to_csv(),
        clips.to_csv(),
        results.failures(["key", "failure_kind"]).to_csv(),
        results.rows(["seed", "metrics", "scores"], wanted),
        results.find("0013"),
    ]


def test_any_trials_asked_for_are_those_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "GROUP_ROWS", 1)  # so that few trials lie in many row groups
    results = fill(tmp_path, range(40))
    results.compact()
    fill(tmp_path, range(40, 44))
    assert [row["seed"] for row in results.rows(["seed"], keys([2, 10, 11, 15]))] == [2, 10, 11, 15]
    choose = random.Random(0)
    for _ in range(50):
        wanted = sorted(choose.sample(range(44), choose.randint(1, 12)))
        rows = results.rows(["key", "seed", "metrics"], keys(wanted))
        assert [row["key"] for row in rows] == keys(wanted)
        assert [row["metrics"][0]["value"] for row in rows] == [number / 3 for number in wanted]


def test_what_is_read_of_packs_is_what_was_written(root: str | Path, small_packs: None) -> None:
    results, first = fill(root, range(14)), range(14)
    results.write_failure(record(3, state="failed", failure_kind="oom", traceback="x"))
    before = seen(results, first)
    compacted = results.compact()
    assert (compacted.trials, compacted.files_before) == (14, 14)
    assert compacted.files_after == len(files(root)) < 5
    for other in (results, Results(root)):
        assert seen(other, first) == before
        assert (other.has("0011"), other.has("0099")) == (True, False)
        assert not other.write(record(11, "second"))
        assert other.read("0011") == record(11)
        assert other.sizes()[0] == compacted.bytes_after / 14
    fill(root, range(14, 16))  # some packed, some not
    assert seen(results, first) == before
    assert results.rows(["seed"], {"0015", "0007", "0009", "0099"}) == [{"seed": 7}, {"seed": 9}, {"seed": 15}]
    (folder,), filesystem = open_storage(root).for_arrow(["trials"])
    assert sorted(pd.read_parquet(folder, filesystem=filesystem)["key"]) == keys(range(16))  # without raysd


def test_small_packs_grow_and_a_second_compaction_changes_nothing(tmp_path: Path, small_packs: None) -> None:
    results, before = Results(tmp_path), set[str]()
    for number in range(0, 54, 9):
        fill(tmp_path, range(number, number + 9))
        results.compact()
        now = files(tmp_path)
        results.compact()
        assert files(tmp_path) == now
        full = {name for name in now if (tmp_path / "trials" / name).stat().st_size >= packs.PACK_BYTES}
        assert len(now) - len(full) <= 1
        assert before <= full  # those are left alone
        before = full
    assert len(before) > 1
    assert results.done() == set(keys(range(54)))
    assert os.listdir(tmp_path / "work") == []


def test_a_clip_is_a_row(root: str | Path) -> None:
    results = fill(root, range(4))
    found = results.scores()
    assert list(found.columns[:6]) == ["key", "variant", "seed", "study", "path", "machine"]
    assert found["path"].tolist() == [f"{key} {i}" for key in keys(range(4)) for i in range(int(key))]
    assert found.loc[5, "score"] == 3 + 2 / 7
    assert found.loc[5, "seed"] == 3
    assert len(results.scores(["0002"])) == 2
    empty = Results(root if isinstance(root, str) else root / "none").scores([])
    assert list(empty.columns) == list(found.columns)


def test_records_of_another_version(tmp_path: Path, small_packs: None) -> None:
    results = Results(tmp_path)
    for number in range(4):
        results.write(record(number, schema_version=1))
    fill(tmp_path, range(4, 6))
    results.compact()
    assert [row["schema_version"] for row in results.rows(["schema_version"])] == [
        1,
        1,
        1,
        1,
        SCHEMA_VERSION,
        SCHEMA_VERSION,
    ]
    results.write(record(8, schema_version=SCHEMA_VERSION + 1))
    before = files(tmp_path)
    with pytest.raises(BadInput, match="newer raysd"):
        results.compact()  # it may have columns that this one would drop
    assert files(tmp_path) == before


def test_a_file_that_cannot_be_read_is_named_and_nothing_is_lost(root: str | Path, small_packs: None) -> None:
    results = fill(root, range(10))
    open_storage(root).replace("trials/0006.parquet", b"no trial")
    with pytest.raises(BadInput, match=r"0006\.parquet: cannot be read as results"):
        results.compact()
    assert results.done() == set(keys(range(10)))
    open_storage(root).delete("trials/0006.parquet")
    results.compact()
    assert len(results.frame()) == 9
    name = files(root)[0]
    open_storage(root).replace(f"trials/{name}", b"no pack")
    packs._known.cache_clear()
    with pytest.raises(BadInput, match=rf"{name}: cannot be read as results"):
        Results(root).done()


def test_a_listing_that_a_compaction_overtakes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = fill(tmp_path, range(9))
    names, overtaken = type(results.storage).names, []

    def slow(storage: Storage, folder: str, suffix: str) -> list[str]:
        """The pack comes after the listing has passed its place, and single files go before it reaches theirs."""
        found = names(storage, folder, suffix)
        if storage is results.storage and not overtaken:
            overtaken.append(True)
            Results(tmp_path).compact()
            found = [name for name in found if name < "trials/0005"]
        return found

    monkeypatch.setattr(type(results.storage), "names", slow)
    assert results.done() == set(keys(range(9)))
    assert overtaken


def test_a_trial_that_moves_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, read_rows, moved = fill(tmp_path, range(9)), packs.read_rows, []

    def late(*arguments: Any) -> Any:
        if not moved:
            moved.append(True)
            Results(tmp_path).compact()
        return read_rows(*arguments)

    for read in (lambda: results.read("0004"), lambda: results.rows(["key"], {"0004"}), results.frame):
        moved.clear()
        fill(tmp_path, range(100 + 10 * len(results.done()), 103 + 10 * len(results.done())))
        with monkeypatch.context() as patch:
            patch.setattr(packs, "read_rows", late)
            found = read()
        assert moved
        assert found == record(4) if isinstance(found, Record) else len(found) in (1, len(results.done()))


class Killed(BaseException):
    """What no handler of errors sees, as a kill."""


def _killed_at(step: int, patch: pytest.MonkeyPatch, results: Results) -> None:
    """Lets its process be killed at one of its changes of files."""
    left = iter(range(step))
    for name in ("write_new", "replace", "delete"):
        whole = getattr(results.storage, name)

        def change(*arguments: Any, whole: Any = whole) -> Any:
            if next(left, None) is None:
                raise Killed
            return whole(*arguments)

        patch.setattr(results.storage, name, change)
    patch.setattr(results.storage, "delete_folder", lambda name: None)


def test_what_was_read_before_another_process_compacted(tmp_path: Path) -> None:
    results = fill(tmp_path, range(4))
    assert results.done() == set(keys(range(4)))
    packs._known.cache_clear()  # as another process, which this one hears nothing of
    Results(tmp_path).compact()
    assert files(tmp_path)[0].startswith("pack-")
    assert results.has("0002")
    assert not results.write(record(2, "second"))
    assert results.read("0002") == record(2)


def test_full_packs_with_the_same_trials_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two compactions at once leave them in object storage."""
    monkeypatch.setattr(packs, "PACK_BYTES", 1)
    for root, numbers in ((tmp_path, range(6)), (tmp_path / "other", range(3, 9))):
        fill(root, numbers).compact()
    (other,) = files(tmp_path / "other")
    open_storage(tmp_path).replace(f"trials/{other}", (tmp_path / "other" / "trials" / other).read_bytes())
    results = Results(tmp_path)
    assert results.rows(["key"]) == [{"key": key} for key in keys(range(9))]
    results.compact()
    assert sorted(pd.read_parquet(tmp_path / "trials")["key"]) == keys(range(9))
    assert results.rows(["key"]) == [{"key": key} for key in keys(range(9))]


def test_a_compaction_of_several_packs_killed_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_BYTES", 1)
    monkeypatch.setattr(packs, "AT_ONCE", 2)
    for step in range(100):
        victim = fill(tmp_path / str(step), range(6))
        with monkeypatch.context() as kill:
            _killed_at(step, kill, victim)
            try:
                victim.compact()
                break
            except Killed:
                pass
        packs._known.cache_clear()
        assert Results(tmp_path / str(step)).rows(["key"]) == [{"key": key} for key in keys(range(6))]
    assert step == 3 * (1 + 1 + 2)  # each pack is written, noted, and its two trials are deleted


STEPS = st.one_of(st.tuples(st.just("write"), st.integers(1, 9)), st.tuples(st.just("kill"), st.integers(0, 24)))


@settings(max_examples=8, deadline=None)
@given(st.lists(STEPS, max_size=8))
def test_compactions_that_are_killed_anywhere_lose_and_double_nothing(steps: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "PACK_BYTES", 20_000)
        patch.setattr(packs, "AT_ONCE", 4)
        written = 0
        for step, number in [*steps, ("end", 0)]:
            if step == "write":
                fill(folder, range(written, written + number))
                written += number
            elif step == "kill":
                with pytest.MonkeyPatch.context() as kill:
                    victim = Results(folder)
                    _killed_at(number, kill, victim)
                    with suppress(Killed):
                        victim.compact()
            else:
                Results(folder).compact()
            packs._known.cache_clear()
            results = Results(folder)
            assert [row["key"] for row in results.rows(["key"])] == keys(range(written))
            assert results.done() == set(keys(range(written)))
            assert not any(results.write(record(number, "second")) for number in range(written))
        if written:
            assert sorted(pd.read_parquet(Path(folder) / "trials")["key"]) == keys(range(written))
        assert len(files(folder)) <= 1 + written // 3


def _write(root: str | Path, numbers: range, written: Any) -> None:
    results = Results(root)
    for number in numbers:
        results.write(record(number))
        written.value = number + 1


def _compact(root: str | Path, stop: Any) -> None:
    packs.PACK_BYTES, packs.AT_ONCE = 15_000, 4
    while not stop.is_set():
        Results(root).compact()


@pytest.mark.slow
def test_beside_writers_and_compactions_a_reader_sees_every_trial_once(root: str | Path) -> None:
    """Two processes compact all the time, one writes, one reads."""
    context = multiprocessing.get_context("spawn")
    total = 150 if isinstance(root, Path) else 50
    written, stop = context.Value("i", 0), context.Event()
    writer = context.Process(target=_write, args=(root, range(total), written), daemon=True)
    compactors = [context.Process(target=_compact, args=(root, stop), daemon=True) for _ in range(2)]
    for process in (writer, *compactors):
        process.start()
    results, looks = Results(root), 0
    try:
        while writer.is_alive():
            there = keys(range(written.value))
            rows = results.rows(["key", "seed", "variant"])
            assert [row["key"] for row in rows] == keys(range(len(rows)))
            assert len(rows) >= len(there)
            assert results.done().issuperset(there)
            for key in there[-1:] + there[:: max(1, len(there) // 3)]:
                assert results.has(key)
                assert results.read(key) == record(int(key))
            looks += 1
    finally:
        stop.set()
        for process in (writer, *compactors):
            process.join(60)
    assert [process.exitcode for process in (writer, *compactors)] == [0, 0, 0]
    assert looks > 2
    results.compact()
    (folder,), filesystem = open_storage(root).for_arrow(["trials"])
    assert sorted(pd.read_parquet(folder, filesystem=filesystem)["key"]) == keys(range(total))
    assert results.rows(["key"]) == [{"key": key} for key in keys(range(total))]


def test_a_file_that_is_listed_but_never_there_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = fill(tmp_path, range(2))
    monkeypatch.setattr(packs.time, "sleep", lambda seconds: None)
    for name in ("k", "pack-k"):
        link = tmp_path / "trials" / f"{name}.parquet"
        link.symlink_to(tmp_path / "nothing")
        with pytest.raises(BadInput, match="files that are listed there are not found"):
            results.rows(["key"])
        link.unlink()
