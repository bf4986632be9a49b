"""The data sets of DCASE, downloaded from a small server in place of Zenodo and GitHub."""

import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partialmethod
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from rich.console import Console
from served import Served

from raysd.data import records
from raysd.data.download import carry_out, plan_download
from raysd.data.layouts import scan
from raysd.data.records import DOWNLOADS, RECORDS, remotes
from raysd.data.years import YEARS
from raysd.transfers import TransferProgress

Run = Callable[..., tuple[int, str, str]]


def recording() -> bytes:
    file = io.BytesIO()
    sf.write(file, 0.1 * np.random.default_rng(0).standard_normal(1600), 16000, format="WAV", subtype="PCM_16")
    return file.getvalue()


WAV = recording()


def archive(*names: str, around: str = "") -> bytes:
    """A zip archive with recordings of these names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name in names:
            opened.writestr(around + name, WAV if name.endswith(".wav") else "file_name,d1p,d1v\n")
    return file.getvalue()


def published(year: int, around: str = "") -> dict[str, bytes]:
    """All files of a year under the addresses that they have, with one or two clips in each folder."""
    files: dict[str, bytes] = {}
    row = YEARS[year]
    for remote in remotes(year, DOWNLOADS):
        path = "/" + remote.path.partition("?")[0]
        machine = remote.machine
        if machine is None:
            files[path] = truth_list(year, remote.name)
            continue
        section = row.machines[machine][0 if remote.part == "dev" else 1][0]
        names = []
        if year == 2020:
            if remote.part != "eval":
                names = [f"train/normal_id_{section}_{i:08d}.wav" for i in range(2)]
            if remote.part == "dev":
                names += [f"test/{label}_id_{section}_00000000.wav" for label in ("normal", "anomaly")]
            if remote.part == "eval":
                names = [f"test/id_{section}_{i:08d}.wav" for i in range(2)]
        else:
            if remote.part != "eval":
                names = [f"train/section_{section}_{domain}_train_normal_0000.wav" for domain in ("source", "target")]
                names.append(f"attributes_{section}.csv")
            if remote.part == "dev":
                names += [
                    f"{test}/section_{section}_{domain}_test_{label}_0000.wav"
                    for domain in ("source", "target")
                    for label in ("normal", "anomaly")
                    for test in [f"{domain}_test" if year == 2021 else "test"]
                ]
            if remote.part == "eval" and year == 2021:
                names = [f"{domain}_test/section_{section}_{domain}_test_0000.wav" for domain in ("source", "target")]
            elif remote.part == "eval":
                names = [f"test/section_{section}_{i:04d}.wav" for i in range(2)]
        files[path] = archive(*(f"{machine}/{name}" for name in names), around=around)
    return files


def truth_list(year: int, name: str) -> bytes:
    if year == 2020:
        lines = []
        for machine, (_, sections) in YEARS[year].machines.items():
            lines.append(machine)
            lines += [
                f"id_{sections[0]}_{i:08d}.wav,{label}_id_{sections[0]}_{i:08d}.wav,{i}"
                for i, label in enumerate(["normal", "anomaly"])
            ]
        return "\n".join(lines).encode()
    found = re.search(r"section_(\d\d)(_source|_target)?", name)
    assert found
    section, domain = found.groups()
    names = [f"section_{section}{domain}_test_0000"] if domain else [f"section_{section}_{i:04d}" for i in range(2)]
    return "\n".join(f"{clip}.wav,{i}" for i, clip in enumerate(names)).encode()


@pytest.fixture
def zenodo(web: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The server in place of both sites; the official MD5s, which are of other archives, are not known to it."""
    monkeypatch.setenv("RAYSD_ZENODO", web.url)
    monkeypatch.setenv("RAYSD_GITHUB", web.url)
    monkeypatch.setattr(records, "MD5", {})
    return web


def seen(root: Path) -> set[str]:
    """All files of a data root but those of raysd's own."""
    paths = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {path for path in paths if not path.startswith(".")}


TOP = {"dev_data", "eval_data", "ground_truth_data", "ground_truth_domain"}


@pytest.mark.parametrize("year", sorted(RECORDS))
def test_every_year_comes_in_the_official_layout(zenodo: Served, raysd: Run, tmp_path: Path, year: int) -> None:
    zenodo.files = published(year, around="" if year % 2 else "some_folder/")
    root = tmp_path / "data"
    status, _, err = raysd("data", "download", f"dcase{year}", "--to", root)
    assert status == 0, err
    clips = scan(root, year, additional=True)
    tests = [clip for clip in clips if clip.split == "test"]
    assert {clip.machine for clip in clips} == set(YEARS[year].machines)
    assert {clip.label for clip in tests} == {0, 1}  # also of eval: its truth lists are there
    assert {clip.part for clip in tests} == {"dev", "eval"}
    assert all(
        path.startswith(("dev_data/", "eval_data/", "ground_truth_", "eval_data_list.csv")) for path in seen(root)
    )
    kept = {path.suffix for path in (root / ".downloads").rglob("*") if path.is_file()}
    assert kept == {".json", ".lock"}  # no archive
    asked = len(zenodo.asked)
    assert raysd("data", "download", f"dcase{year}", "--to", root) == (0, "", f"{root}: all of it is there\n")
    assert len(zenodo.asked) == asked


def fetched(zenodo: Served) -> set[str]:
    return {path.rpartition("/")[2] for method, path, _ in zenodo.asked if method == "GET" and "/files/" in path}


def test_only_what_was_asked_for_and_the_rest_later(zenodo: Served, raysd: Run, tmp_path: Path) -> None:
    zenodo.files = published(2022)
    words = ("data", "download", "dcase2022", "--to", tmp_path, "--machines", "fan,valve")
    status, _, err = raysd(*words, "--parts", "eval")
    assert status == 0
    assert fetched(zenodo) == {"eval_data_fan_test.zip", "eval_data_valve_test.zip"}
    assert "2 archives and 12 truth lists to download" in err
    assert f"eval_data_fan_test.zip: 2 clips in {tmp_path}/eval_data/fan/test; expected 600" in err
    (tmp_path / "eval_data" / "fan" / "attributes_03.csv").write_text("file_name\n", encoding="utf-8")
    status, _, err = raysd(*words, "--parts", "additional, eval")
    assert status == 0
    assert "14 files are there" in err
    assert {path.name for path in (tmp_path / "eval_data" / "fan").iterdir()} == {"test", "train", "attributes_03.csv"}
    assert "d1v" in (tmp_path / "eval_data" / "fan" / "attributes_03.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dcase2019"], "raysd: data set dcase2019: did you mean 'dcase2021'? allowed: dcase2020, "),
        (["dcase2022", "--machines", "fan,vale"], "raysd: --machines vale: did you mean 'valve'? "),
        (["dcase2023", "--machines", "fan", "--parts", "eval"], "raysd: dcase2023 has nothing of fan in eval; "),
        (["dcase2022", "--parts", "test"], "raysd: --parts test: allowed: additional, dev, eval"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(raysd: Run, tmp_path: Path, words: list, said: str) -> None:
    status, _, err = raysd("data", "download", *words, "--to", tmp_path / "data")
    assert (status, err.startswith(said)) == (2, True), err
    assert not (tmp_path / "data").exists()


FAN = "/records/6355122/files/dev_fan.zip"
ONE = ("data", "download", "dcase2022", "--machines", "fan", "--parts", "dev", "--to")


def test_a_known_checksum_is_compared(
    zenodo: Served, raysd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zenodo.files, zenodo.has_api = published(2022), False
    found, wrong = md5(zenodo.files[FAN]).hexdigest(), 32 * "0"
    monkeypatch.setitem(records.MD5, 2022, {"dev_fan.zip": wrong})
    status, _, err = raysd(*ONE, tmp_path)
    assert status == 2
    assert f"{zenodo.url}{FAN}?download=1: wrong checksum: expected md5:{wrong}, found md5:{found}" in err
    assert err.endswith("raysd: 1 of 1 files were not brought; the same command tries again\n")
    assert seen(tmp_path) == set()
    assert not list(tmp_path.rglob("*.zip*.part"))
    zenodo.has_api, before = True, len(zenodo.gets(FAN))
    assert "record 6355122 says md5:" in raysd(*ONE, tmp_path)[2]
    assert len(zenodo.gets(FAN)) == before  # the record's own word spares the download
    monkeypatch.setitem(records.MD5, 2022, {"dev_fan.zip": found})
    assert raysd(*ONE, tmp_path)[0] == 0


def test_an_unknown_checksum_is_kept_and_compared_from_then_on(zenodo: Served, raysd: Run, tmp_path: Path) -> None:
    zenodo.files, zenodo.has_api = published(2022), False
    status, _, err = raysd(*ONE, tmp_path)
    assert status == 0
    assert "no checksum is known: the one found is kept" in err
    note = json.loads((tmp_path / ".downloads" / "dcase2022" / "dev_fan.zip.json").read_text(encoding="utf-8"))
    assert note["checksum"] == f"md5:{md5(zenodo.files[FAN]).hexdigest()}"
    assert note["clips"] == 6
    (tmp_path / "dev_data" / "fan" / "train" / "section_00_source_train_normal_0000.wav").unlink()
    status, _, err = raysd(*ONE, tmp_path)
    assert (status, "1 of 6 clips of dev_fan.zip are gone; delete train and test" in err) == (2, True), err
    shutil.rmtree(tmp_path / "dev_data" / "fan")
    zenodo.files[FAN] = archive("fan/train/other.wav")
    status, _, err = raysd(*ONE, tmp_path)
    assert (status, f"expected {note['checksum']}, found md5:" in err) == (2, True), err
    assert seen(tmp_path) == set()


def bad_archive(fault: str) -> bytes:
    content = archive("fan/train/section_00_source_train_normal_0000.wav", "fan/train/more.wav")
    if fault == "no archive":
        return b"<html>Please log in</html>"
    if fault == "cut off":
        return content[: len(content) // 2]
    if fault == "damaged":
        return content[:100] + bytes(byte ^ 255 for byte in content[100:300]) + content[300:]
    if fault == "nothing in it":
        return archive("pump/train/section_00_source_train_normal_0000.wav")
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as opened:
        if fault == "a bomb":
            opened.writestr("fan/train/large.wav", bytes(5_000_000))
        elif fault == "a link":
            entry = zipfile.ZipInfo("fan/train/passwd.wav")
            entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            opened.writestr(entry, "/etc/passwd")
        else:
            opened.writestr(fault, WAV)
    return file.getvalue()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no archive", "cannot be read as a zip archive"),
        ("cut off", "cannot be read as a zip archive"),
        ("damaged", "cannot be read as a zip archive"),
        ("nothing in it", "no clips in fan/train or test"),
        ("a bomb", "not unpacked: 5.0 MB in so small an archive are no recordings"),
        ("a link", "its entry 'fan/train/passwd.wav' is a link or a special file"),
        ("../../../fan/train/out.wav", "leads out of its folder"),
        ("fan/train/../../../../out.wav", "leads out of its folder"),
        ("/tmp/fan/train/out.wav", "has an absolute or foreign name"),
        ("fan\\train\\..\\out.wav", "has an absolute or foreign name"),
        ("C:/fan/train/out.wav", "has an absolute or foreign name"),
    ],
)
def test_a_bad_archive_leaves_nothing_behind(zenodo: Served, raysd: Run, tmp_path: Path, fault: str, said: str) -> None:
    zenodo.files, zenodo.has_api, root = published(2022), False, tmp_path / "some" / "data"
    zenodo.files[FAN] = bad_archive(fault)
    status, _, err = raysd("data", "download", "dcase2022", "--machines", "fan,valve", "--parts", "dev", "--to", root)
    assert status == 2
    (line,) = (line for line in err.splitlines() if said in line)
    assert line.startswith(f"{root}/.downloads/dcase2022/dev_fan.zip: ")
    assert not (root / "dev_data" / "fan").exists()
    assert len(list((root / "dev_data" / "valve").rglob("*.wav"))) == 6  # the others are brought
    assert {path.parent.name for path in tmp_path.rglob("*.wav") if "valve" not in str(path)} <= {"train"}
    assert not list(tmp_path.rglob("out.wav"))
    zenodo.files = published(2022)
    assert raysd(*ONE, root)[0] == 0
    assert len(list((root / "dev_data" / "fan").rglob("*.wav"))) == 6


def test_a_page_in_place_of_a_truth_list_is_refused(zenodo: Served, raysd: Run, tmp_path: Path) -> None:
    zenodo.files = published(2020)
    zenodo.files["/records/3951620/files/eval_data_list.csv"] = b"<html>\nname.wav,0</html>"
    words = ("data", "download", "dcase2020", "--to", tmp_path, "--machines", "fan", "--parts", "eval")
    status, _, err = raysd(*words)
    assert (status, "no truth list was downloaded" in err) == (2, True), err
    assert not (tmp_path / "eval_data_list.csv").exists()
    zenodo.files = published(2020)
    assert raysd(*words)[0] == 0
    assert (tmp_path / "eval_data_list.csv").exists()


def test_a_disk_that_is_too_small_is_said_first(
    zenodo: Served, raysd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zenodo.files = published(2022)
    real = shutil.disk_usage(tmp_path)
    size = len(zenodo.files[FAN])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=2 * size))
    status, _, err = raysd(*ONE, tmp_path / "data")
    assert status == 2
    assert err.startswith(f"raysd: {tmp_path}/data: the disk is too small: about ")
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=3 * size))
    assert raysd(*ONE, tmp_path / "data")[0] == 0


def test_what_others_put_there_is_respected(zenodo: Served, raysd: Run, tmp_path: Path) -> None:
    zenodo.files = published(2022)
    own = tmp_path / "dev_data" / "fan" / "train" / "section_00_source_train_normal_0007.wav"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"own")
    status, _, err = raysd(*ONE, tmp_path)
    assert (status, "dev_fan.zip: left out, as " in err) == (0, True), err
    assert seen(tmp_path) == {own.relative_to(tmp_path).as_posix()}
    by_hand = tmp_path / ".downloads" / "dcase2022" / "dev_valve.zip"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(zenodo.files[FAN.replace("fan", "valve")])
    zenodo.files, before = {}, len(zenodo.asked)
    assert raysd("data", "download", "dcase2022", "--machines", "valve", "--parts", "dev", "--to", tmp_path)[0] == 0
    assert len(list((tmp_path / "dev_data" / "valve").rglob("*.wav"))) == 6
    assert len(zenodo.asked) == before  # no network
    status, _, err = raysd("data", "download", "dcase2023", "--to", tmp_path)
    assert (status, err) == (2, f"raysd: {tmp_path}: it holds dcase2022; give each year a folder of its own\n")
    zenodo.has_api = False
    status, _, err = raysd("data", "download", "dcase2022", "--to", tmp_path / "new")
    assert (status, "the server answers 404" in err) == (2, True), err


class Killed(BaseException):
    """As if the process had ended here."""


def test_killed_at_any_rename_nothing_half_is_seen_and_it_goes_on(
    zenodo: Served, raysd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(records.TRUTH, 2021, records.TruthLists("github", "", ()))
    zenodo.files = published(2021)
    real = {name: getattr(Path, name) for name in ("rename", "replace")}
    left_renames = 0

    def rename(name: str, source: Path, target: Path) -> Path:
        nonlocal left_renames
        if not left_renames:
            raise Killed
        left_renames -= 1
        return real[name](source, target)

    deaths, died = 0, True
    while died:
        root, left_renames, died = tmp_path / str(deaths), deaths, False
        words = ("data", "download", "dcase2021", "--machines", "fan", "--jobs", "1", "--to", root)
        with monkeypatch.context() as patched:
            for name in real:
                patched.setattr(Path, name, partialmethod(lambda self, to, name: rename(name, self, to), name=name))
            try:
                assert raysd(*words)[0] == 0
            except Killed:
                deaths, died = deaths + 1, True
        dev = seen(root / "dev_data")
        assert len(dev) in (0, 7)
        for folder, count in {"train": 2, "source_test": 1, "target_test": 1}.items():
            assert len(seen(root / "eval_data" / "fan" / folder)) in (0, count)
        assert raysd(*words)[0] == 0
        assert len(scan(root, 2021, additional=True)) == 2 + 4 + 2 + 2
        assert not [*root.rglob("*.zip"), *root.rglob("*.unpack*"), *root.rglob("*.part")]
    assert deaths > 10


def test_two_commands_at_once_bring_each_file_once(zenodo: Served, tmp_path: Path) -> None:
    zenodo.files, zenodo.pause_seconds = published(2022), 0.01
    plans = [plan_download(tmp_path, 2022, ("additional", "eval"), ("fan",)) for _ in range(2)]
    log = io.StringIO()
    with TransferProgress(Console(file=log, width=160), 0) as progress, ThreadPoolExecutor() as pool:
        assert list(pool.map(lambda plan: carry_out(plan, progress, 2), plans)) == [[], []]
    assert {len(zenodo.gets(path)) for path in zenodo.files} == {0, 1}
    assert len(log.getvalue().splitlines()) == 2
    assert {clip.parent.name for clip in (tmp_path / "eval_data" / "fan").rglob("*.wav")} == {"train", "test"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_command_goes_on_where_it_was(
    zenodo: Served, raysd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    zenodo.files = published(2022)
    noise = io.BytesIO()
    with zipfile.ZipFile(noise, "w") as opened:
        opened.writestr("fan/train/section_00_source_train_normal_0000.wav", os.urandom(3_000_000))
    zenodo.files[FAN] = noise.getvalue()
    zenodo.pause_seconds = 0.01
    environment = os.environ | {"RAYSD_ZENODO": zenodo.url}
    command = [sys.executable, "-m", "raysd", *ONE, str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    part = tmp_path / ".downloads" / "dcase2022" / "dev_fan.zip.part"
    end = time.monotonic() + 60
    while not part.is_file() or part.stat().st_size < 200_000:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted: the same command goes on where it was" in err
    assert seen(tmp_path) == set()
    zenodo.pause_seconds = 0.0
    status, _, err = raysd(*ONE, tmp_path)
    assert status == 0
    assert "of it here" in err
    first, second = zenodo.gets(FAN)
    assert first == ""
    assert int(second.removeprefix("bytes=").rstrip("-")) >= 200_000
    assert len(list((tmp_path / "dev_data" / "fan" / "train").iterdir())) == 1
