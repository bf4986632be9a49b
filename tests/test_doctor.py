"""`raysd doctor` on one machine: its data, its folders, and what a user is told."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from raysd import cli, doctor, machine
from raysd.data.store import Data, open_store
from raysd.doctor import Ask, read_corpus
from raysd.machine import GIB, Finding, State

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `raysd doctor`; gives its exit status and what it printed."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAYSD_DATA_ROOT", raising=False)

    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raysd", "doctor", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return command


def disk_of(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free, total=free))


def data_finding(root: Path | None, year: int | None = None) -> Finding:
    return doctor.data(read_corpus(Ask(Path("results"), Path("cache"), root, year)))


def store_finding(root: Path, cache: Path) -> Finding:
    return doctor.store(read_corpus(Ask(Path("results"), cache, root, 2020)), cache)


def test_a_whole_machine_as_json(run: Run, corpus: Callable[[int], Path], tmp_path: Path) -> None:
    options = ("--data-root", corpus(2022), "--results", tmp_path / "a" / "results", "--cache", tmp_path / "cache")
    status, out, _ = run(*options, "--json")
    told = json.loads(out)
    found = {one["check"]: one for one in told["findings"]}
    assert list(found) == [
        *("python", "raysd", "torch", "torchaudio", "ray", "packages", "cores", "memory", "GPUs", "C++ compiler"),
        *("/dev/shm", "open files", "clock", "data", "store", "cache", "weights", "results"),
    ]
    assert {one["place"] for one in told["findings"]} == {told["about"]} == {"this machine"}
    for check in ("python", "raysd", "torch", "torchaudio", "ray", "packages", "clock", "data", "store"):
        assert found[check]["state"] == "ok", found[check]
    assert "56 clips" in found["data"]["found"]
    assert "2022" in found["data"]["found"]
    assert told["works"] == (status == 0) == all(one["state"] != "will not work" for one in told["findings"])
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_what_will_not_work_is_told_with_the_fix(run: Run, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    status, out, _ = run("--data-root", tmp_path / "nowhere", "--results", taken / "results", "--cache", tmp_path)
    assert status == 1
    lines = out.splitlines()
    assert lines[-1].startswith("not all will work: ")
    assert "2 will not work" in lines[-1]
    assert "1 not checked" in lines[-1]
    for check, word in (("data", "no such folder"), ("store", "not checked"), ("results", "will not work")):
        assert any(check in line and word in line for line in lines), out


def test_a_wrong_option_is_one_line(run: Run) -> None:
    status, out, err = run("--year", "1999")
    assert (status, out) == (2, "")
    assert "--year 1999" in err
    assert "2020" in err


def test_a_check_that_breaks_is_not_ok_and_stops_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> Finding:
        raise PermissionError(13, "Permission denied", "/proc/meminfo")

    monkeypatch.setattr(machine, "memory", broken)
    report = doctor.examine_here(Ask(tmp_path, tmp_path))
    (found,) = [one for one in report.findings["this machine"] if one.check == "memory"]
    assert found.state == State.unknown
    assert "Permission denied" in found.found
    assert len(report.findings["this machine"]) == 18
    assert report.works


def test_data_that_is_not_there_or_of_another_layout(corpus: Callable[[int], Path], tmp_path: Path) -> None:
    assert data_finding(None).state == State.unknown
    assert data_finding(corpus(2020)).state == State.ok
    assert data_finding(corpus(2020), 2020).state == State.ok
    for found, word in (
        (data_finding(tmp_path / "nowhere"), "no such folder"),
        (data_finding(tmp_path), "not a data root"),
        (data_finding(corpus(2020), 2022), "it fits 2020"),
    ):
        assert found.state == State.fails
        assert word in found.found
        assert found.fix


def test_data_that_cannot_be_decoded(corpus: Callable[[int], Path], tmp_path: Path) -> None:
    root = shutil.copytree(corpus(2020), tmp_path / "data")
    first = min(path for path in root.rglob("*.wav"))
    first.write_bytes(b"")
    found = data_finding(root)
    assert found.state == State.fails
    assert found.found == f"{first}: empty file"


def test_the_listing_is_named_by_what_is_there(corpus: Callable[[int], Path], tmp_path: Path) -> None:
    def digest(root: Path) -> str:
        found = read_corpus(Ask(Path("results"), Path("cache"), root))
        assert isinstance(found, doctor.Corpus)
        return found.digest

    copy = shutil.copytree(corpus(2020), tmp_path / "copy", copy_function=shutil.copyfile)  # with other times
    assert digest(copy) == digest(corpus(2020))
    with next(copy.rglob("*.wav")).open("ab") as file:
        file.write(b"more")
    assert digest(copy) != digest(corpus(2020))


def test_the_store(corpus: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = corpus(2020), tmp_path / "cache"
    found = store_finding(root, cache)
    assert found.state == State.ok
    assert "not built" in found.found
    with monkeypatch.context() as patch:
        disk_of(patch, free=1000)
        found = store_finding(root, cache)
        assert found.state == State.fails
        assert "--cache" in found.fix

    fingerprint = open_store(root, Data(), cache).fingerprint
    found = store_finding(root, cache)
    assert (found.state, found.found) == (
        State.ok,
        f"built, all samples as decoded; the data's fingerprint is {fingerprint}",
    )

    (samples,) = cache.glob("*/samples.bin")
    whole = samples.read_bytes()
    samples.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    found = store_finding(root, cache)
    assert found.state == State.fails
    assert "another checksum" in found.found
    samples.write_bytes(whole[:-2])
    found = store_finding(root, cache)
    assert found.state == State.fails
    assert "delete the folder" in found.found


@pytest.mark.parametrize("check", [doctor.cache, doctor.results])
def test_folders_that_cannot_be_written_or_are_full(
    check: Callable[[Path], Finding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file", encoding="utf-8")
    for folder in (taken, taken / "below"):
        found = check(folder)
        assert found.state == State.fails
        assert str(taken) in found.found
        assert found.fix
    for free, state in ((GIB // 8, State.fails), (2 * GIB, State.warning), (20 * GIB, State.ok)):
        disk_of(monkeypatch, free)
        found = check(tmp_path / "new" / "folder")
        assert (found.state, bool(found.fix)) == (state, state != State.ok)
    assert list(tmp_path.iterdir()) == [taken]


@pytest.mark.parametrize(
    ("root", "word"),
    [
        ("ftp://server/results", "s3://BUCKET/FOLDER"),
        ("s3://me:tr0ub4dor@bucket/x?endpoint_override=http://127.0.0.1:1", "did not answer"),
    ],
)
def test_object_storage_that_is_none_or_does_not_answer(root: str, word: str) -> None:
    found = doctor.results(root)
    assert found.state == State.fails
    assert word in found.found
    assert "tr0ub4dor" not in found.found + found.fix
