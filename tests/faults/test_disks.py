"""Disks that are full or read-only: one line, nothing half-written, and afterwards the same command goes on."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from places import RAYSD, finished, read_only, remount, small_disk
from workplace import STUDY, Workplace, until

from raysd.data.store import Data, open_store
from raysd.errors import BadInput
from raysd.results.storage import StorageError
from raysd.session import Session
from raysd.trial import failure_kind, run_trial

Run = Callable[..., tuple[int, str, str]]
Opened = Callable[[str | Path], Session]
FULL = "results cannot be kept there: No space left on device; choose another folder"


def run_all(session: Session) -> None:
    for trial in session.missing():
        run_trial(trial, session.place())


def whole(root: Path) -> list[str]:
    """The files below a results root but locks and notes; each can be read to its end, and none is left hidden."""
    found = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    for path in found:
        assert not path.name.startswith("."), path
        if path.suffix == ".parquet":
            pq.read_table(path)
    return [path.name for path in found]


@pytest.mark.parametrize("kibibytes", [4, pytest.param(56, marks=pytest.mark.slow), 80])
def test_results_fill_up_in_the_middle_of_a_trial(opened: Opened, tmp_path: Path, kibibytes: int) -> None:
    """A disk without room for the first checkpoint, for the embeddings, for the record."""
    with small_disk(tmp_path / "disk", kibibytes) as disk:
        session = opened(disk)
        baseline = session.missing()[0]
        with pytest.raises(StorageError, match=FULL):
            run_all(session)
        assert failure_kind(StorageError("")) == "infrastructure"
        there = whole(disk)
        remount(disk, "size=4m")
        run_all(session)
        assert set(there) - {"all.pt"} <= set(whole(disk))
        assert session.missing() == []
        finished = session.results.read(baseline.key)
        elsewhere = opened(tmp_path / "undisturbed")
        assert list(finished.scores) == list(run_trial(baseline, elsewhere.place()).scores)


def test_the_cache_has_too_little_room(corpus: Callable[[int], Path], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        with pytest.raises(BadInput, match=r"disk: 0 MB are free there, but .* take 2 MB more; make room"):
            open_store(corpus(2020), Data(), disk)
        assert not [path for path in disk.iterdir() if not path.name.startswith(".") and path.suffix != ".lock"]
        remount(disk, "size=16m")
        assert len(open_store(corpus(2020), Data(), disk).clips) == 56


def test_results_that_are_read_only_are_read_and_no_more(opened: Opened, tmp_path: Path, raysd: Run) -> None:
    session = opened(tmp_path / "results")
    trials = session.missing()
    run_all(session)
    with read_only(tmp_path / "results") as disk:
        study = tmp_path / "study.yaml"
        found = [path.read_bytes() for path in sorted(disk.rglob("*.parquet"))]
        for words in ("table", study), ("status", study), ("studies",), ("show", trials[0].key), ("gc",):
            assert raysd(*words, "--results", disk)[0] == 0, words
        refused = opened(disk)
        with pytest.raises(StorageError, match=r"cannot be kept there: (Read-only file system|Permission denied)"):
            run_trial(replace(trials[0], seed=5), refused.place())
        run = ("run", study, "--data-root", refused.data_root, "--cache", refused.cache, "--seeds", "5")
        for words in run, ("compact",), ("rescore", study, "--set", "scoring.k=3"):
            status, _, err = raysd(*words, "--results", disk)
            assert status == 2, err
            assert "results cannot be kept there: " in err.splitlines()[-1]
        assert [path.read_bytes() for path in sorted(disk.rglob("*.parquet"))] == found


def test_what_a_command_writes_finds_the_disk_full(opened: Opened, tmp_path: Path, raysd: Run) -> None:
    session = opened(tmp_path / "results")
    key = run_trial(session.missing()[0], session.place()).key
    with small_disk(tmp_path / "disk", 8) as disk:
        folder = disk / "scores"
        status, _, err = raysd("export-dcase", key, folder, "--results", tmp_path / "results")
        assert (status, err.count("\n")) == (2, 1), err
        assert re.fullmatch(r"raysd: .*: No space left on device\n", err)
        assert list(disk.iterdir()) == []
        remount(disk, "size=4m")
        assert raysd("export-dcase", key, folder, "--results", tmp_path / "results")[0] == 0


@pytest.mark.slow
def test_a_table_is_sent_into_a_file_on_a_full_disk(opened: Opened, tmp_path: Path) -> None:
    session = opened(tmp_path / "results")
    run_all(session)
    words = [RAYSD, "table", str(tmp_path / "study.yaml"), "--results", str(tmp_path / "results")]
    with Path("/dev/full").open("w") as full:
        said = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert said.returncode == 2
    assert said.stderr == "raysd: standard output, or a file: No space left on device\n"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("full", ["at once", "after some trials"])
def test_a_study_whose_results_fill_up_is_continued(
    workplace: Callable[[str], Workplace], tmp_path: Path, full: str
) -> None:
    """At once there is not even room for the note of a failure."""
    place = workplace(STUDY)
    with small_disk(tmp_path / "results", 24) as disk:
        if full == "after some trials":
            remount(disk, "size=8m")
            assert finished(place.start("run", "--seeds", "0"))[0] == 0
            remount(disk, f"size={shutil.disk_usage(disk).used // 1024 + 64}k")
        done = place.records()
        status, _, err = finished(place.start("run", "--set", "scale.retries=0"))
        assert status == 2, err
        assert "Traceback" not in err
        assert FULL in err
        assert err.splitlines()[-1].startswith("raysd: ")
        assert place.records() == done
        whole(disk)
        remount(disk, "size=8m")
        status, out, err = finished(place.start())
        assert status == 0, err
        assert f"{7 - len(done)} of 7 trials to do" in err
        assert len(place.records()) == 7
        assert {key: place.records()[key] for key in done} == done
        assert "2/2" in out


@pytest.mark.slow
def test_the_folder_for_temporary_files_cannot_be_used(workplace: Callable[[str], Workplace], tmp_path: Path) -> None:
    place = workplace(STUDY)
    study = place.start(env={"RAY_TMPDIR": "/proc/absent"})
    _, err = study.communicate(timeout=240)
    assert study.returncode == 2
    said = "raysd: /proc/absent: the temporary files of a run cannot be kept there: No such file or directory; "
    assert err.splitlines()[-1].startswith(said)
    assert not place.records()
    until(lambda: study.poll() is not None, "its end")
