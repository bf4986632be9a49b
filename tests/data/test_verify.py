"""A data root compared with what its year has published: nothing wrong, and each thing that can be."""

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from raysd.data.counts import expected
from raysd.data.verify import Report, recognise, verify
from raysd.data.years import YEARS, Part
from raysd.errors import BadInput

Raysd = Callable[..., tuple[int, str, str]]


def sound(seed: int, samples: int = 160, rate_hz: int = 16_000, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    noise = 0.1 * np.random.default_rng(seed).standard_normal((samples, channels))
    sf.write(buffer, noise, rate_hz, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All clips of one machine of the evaluation data of 2023, as published, but very short; with its truth list."""
    root = tmp_path_factory.mktemp("published")
    machine = root / "eval_data/bandsaw"
    header, rng = sound(0)[:44], np.random.default_rng(0)
    names = [f"section_00_source_train_normal_{number:04d}_vel_13" for number in range(990)]
    names += [f"section_00_target_train_normal_{number:04d}_vel_12" for number in range(10)]
    (machine / "train").mkdir(parents=True)
    (machine / "test").mkdir()
    for name in names:
        (machine / f"train/{name}.wav").write_bytes(header + rng.bytes(2 * 160))
    lines = [f"bandsaw/train/{name}.wav,vel,{name[-2:]}" for name in names]
    (machine / "attributes_00.csv").write_text("\n".join(["file_name,d1p,d1v", *lines]))
    truth = []
    for number in range(200):
        (machine / f"test/section_00_{number:04d}.wav").write_bytes(header + rng.bytes(2 * 160))
        kind = f"{('source', 'target')[number % 2]}_test_{('normal', 'anomaly')[number // 100]}"
        truth.append(f"section_00_{number:04d}.wav,section_00_{kind}_{number:04d}_vel_12.wav")
    (root / "eval_data_list_2023.csv").write_text("\n".join(["bandsaw", *truth]))
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt: its files may be removed and replaced, not written to."""
    return shutil.copytree(published, tmp_path / "root", copy_function=os.link)


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def found(report: Report, kind: str) -> tuple[bool, str, list[str]]:
    """Whether it is a problem, its text and its files, of the one finding of a kind."""
    (finding,) = [finding for finding in report.findings if finding.kind == kind]
    return finding.problem, finding.text, sorted(Path(path).name for path, _ in finding.files)


def test_nothing_is_wrong_with_what_was_published(published: Path, raysd: Raysd) -> None:
    status, printed, _ = raysd("data", "verify", published, "--machines", "bandsaw")
    assert status == 0
    assert "1,200 clips; all is as it should be" in printed
    (row,) = [line.split() for line in printed.splitlines() if line.strip().startswith("bandsaw")]
    assert row == ["bandsaw", "00", "990", "10", "50", "50", "50", "50", "ok"]
    status, printed, _ = raysd("data", "verify", published, "--machines", "bandsaw", "--deep", "--json")
    report = json.loads(printed)
    assert (status, report["year"], report["ok"], report["findings"]) == (0, 2023, True, [])
    assert report["sections"][0]["train"] == {"source": 990, "target": 10}


TRAIN, TEST = "eval_data/bandsaw/train", "eval_data/bandsaw/test"
CLIP = f"{TRAIN}/section_00_source_train_normal_0000_vel_13.wav"


def lose_clips(root: Path) -> None:
    for number in range(50):
        (root / TRAIN / f"section_00_source_train_normal_{number:04d}_vel_13.wav").unlink()
    (root / TEST / "section_00_0007.wav").unlink()


def misname(root: Path) -> None:
    for name in ("a.wav", "section_00_source_test_normal_0000.wav", "section_00_source_train_anomaly_0000.wav"):
        replace(root / TRAIN / name, sound(5000))


def rename_some(root: Path) -> None:
    (root / "eval_data/bandsaw/test_rename").mkdir()
    for number in range(3):
        replace(root / f"eval_data/bandsaw/test_rename/section_00_source_test_normal_000{number}.wav", sound(number))


def cut_list(root: Path) -> None:
    lines = (root / "eval_data_list_2023.csv").read_text().splitlines()
    replace(root / "eval_data_list_2023.csv", "\n".join(lines[:150]).encode())


def test_files_that_are_wrong_are_named(root: Path) -> None:
    clips = [f"section_00_source_train_normal_{number:04d}_vel_13.wav" for number in range(9)]
    replace(root / TRAIN / clips[0], b"")
    replace(root / TRAIN / clips[1], b"RIFF no audio")
    replace(root / TRAIN / clips[2], sound(2)[:200])
    replace(root / TRAIN / clips[3], (root / TEST / "section_00_0000.wav").read_bytes())
    replace(root / TRAIN / clips[4], sound(4, 80, 8000))
    replace(root / TRAIN / clips[5], sound(5, 150))
    replace(root / TRAIN / clips[6], sound(6, channels=2))
    replace(root / TRAIN / "section_00_target_train_normal_0010.wav", sound(7))
    replace(root / "eval_data/bandsaw/attributes_00.csv", b"\xff")
    misname(root)
    report = verify(root, 2023, ("bandsaw",))
    assert not report.ok
    assert found(report, "unreadable") == (True, "3 clips are unusable: download them again", clips[:3])
    reasons = next(finding for finding in report.findings if finding.kind == "unreadable").files
    assert [reason.partition(":")[0] for _, reason in reasons] == ["empty file", "not audio, or damaged", "truncated"]
    doubled = "1 clip is there under another name already; 1 of them both in train and in test"
    assert found(report, "doubled") == (True, doubled, ["section_00_0000.wav"])
    rate = "bandsaw: 1 of 1,198 clips have another rate than the 16000 Hz published"
    assert found(report, "rate") == (True, rate, [clips[4]])
    length = "bandsaw: 1 of 1,198 clips are not 0.01 s long as the others are"
    assert found(report, "length") == (True, length, [clips[5]])
    assert found(report, "channels")[::2] == (True, [clips[6]])
    surplus = "eval_data/bandsaw, section 00: 11 target train clips, not 10"
    assert found(report, "surplus")[:2] == (True, surplus)
    misnamed = ["a.wav", "section_00_source_test_normal_0000.wav", "section_00_source_train_anomaly_0000.wav"]
    assert found(report, "misnamed")[::2] == (True, misnamed)
    assert "attributes_00.csv: cannot be read as CSV" in found(report, "attributes")[1]


def test_clips_and_labels_that_are_missing_are_named(root: Path) -> None:
    lose_clips(root)
    report = verify(root, 2023, ("bandsaw",))
    short = "eval_data/bandsaw, section 00: 940 source train clips, not about 990; 199 test clips, not 200"
    assert found(report, "short")[:2] == (True, short)
    assert found(report, "truth") == (True, "1 test clips of the truth lists are not there", ["section_00_0007"])
    cut_list(root)
    shutil.rmtree(root / TRAIN)
    report = verify(root, 2023, ("bandsaw",))
    archive = "eval_data_bandsaw_train.zip of Zenodo record 7830345"
    missing = f"{TRAIN}: the additional training set of bandsaw is not there ({archive})"
    assert found(report, "missing")[:2] == (True, missing)
    texts = sorted(finding.text for finding in report.findings if finding.kind == "truth")
    assert texts[1] == "51 test clips are in no truth list: they have no label, and cannot be scored"
    replace(root / "eval_data_list_2023.csv", b"bandsaw\nsection_00_0000.wav")
    assert "eval_data_list_2023.csv: line 2: expected" in found(verify(root, 2023, ("bandsaw",)), "truth")[1]
    (root / "eval_data_list_2023.csv").unlink()
    truth = "there is no truth list: 199 test clips have no label, and cannot be scored"
    assert found(verify(root, 2023, ("bandsaw",)), "truth")[:2] == (True, truth)


def test_what_is_wrong_is_printed_and_ends_with_status_1(root: Path, raysd: Raysd) -> None:
    misname(root)
    shutil.rmtree(root / TEST)
    status, printed, _ = raysd("data", "verify", root, "--machines", "bandsaw", "--parts", "additional,eval")
    assert status == 1
    assert f"wrong: {TRAIN}: 3 audio files are not named as a clip of this kind" in printed
    assert f"    {TRAIN}/a.wav: 'a.wav' does not fit the names of 2023" in printed
    assert f"wrong: {TEST}: the evaluation test set of bandsaw is not there" in printed
    assert "2 things are wrong" in printed
    assert f"raysd data download dcase2023 --to {root}" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no such folder"),
        ([".", "--year", "1999"], "1999: not a known year; allowed: 2020, 2021"),
        ([".", "--machines", "bandsow"], "'bandsow' is neither in .* nor of 2023; did you mean 'bandsaw'"),
        ([".", "--parts", "test"], "part 'test': allowed: additional, dev, eval"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(published: Path, raysd: Raysd, words: list[str], message: str) -> None:
    status, _, said = raysd("data", "verify", published / words[0], *words[1:])
    assert status == 2
    assert re.search(message, said)
    assert said.count("\n") == 1


def problems(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.problem]


def test_only_what_is_there_must_be_whole_unless_parts_or_machines_are_named(root: Path) -> None:
    missing = problems(verify(root, 2023))
    assert len(missing) == 12  # six other machines, two archives each
    assert missing[0].startswith("eval_data/ToyDrone/train: the additional training set of ToyDrone is not there")
    shutil.rmtree(root / TEST)
    report = verify(root, 2023, ("bandsaw",))
    assert report.ok
    assert report.sections[0].state == "no test"
    assert found(report, "missing")[:2] == (False, "the evaluation test set of bandsaw is not there")
    assert problems(verify(root, 2023, ("bandsaw", "bearing"))) == [
        "dev_data/bearing: the development data of bearing is not there (dev_bearing.zip of Zenodo record 7882613)"
    ]


def test_development_data_without_its_test_clips_and_with_a_foreign_section(tmp_path: Path) -> None:
    for name in ("fan/train/normal_id_00_00000000.wav", "fan/train/normal_id_01_00000000.wav"):
        (tmp_path / "dev_data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev_data" / name).write_bytes(sound(int(name.split("_")[2])))
    report = verify(tmp_path, 2020, ("fan",))
    short = "1 train clips, not about 911; 0 normal test clips, not about 100; 0 anomalous test clips, not about 407"
    assert found(report, "short")[1] == f"dev_data/fan, section 00: {short}"
    surplus = "dev_data/fan, section 01: 2020 has no such section in this part"
    assert found(report, "surplus")[:2] == (False, surplus)
    assert [section.state for section in report.sections] == ["short", "counted"]


def test_samples_are_looked_at_on_demand(root: Path) -> None:
    buffer = io.BytesIO()
    sf.write(buffer, np.full(160, np.nan), 16_000, format="WAV", subtype="FLOAT")
    replace(root / CLIP, buffer.getvalue())
    assert verify(root, 2023, ("bandsaw",)).ok
    problem, _, files = found(verify(root, 2023, ("bandsaw",), deep=True), "unreadable")
    assert (problem, files) == (True, [Path(CLIP).name])


def test_copies_with_labels_stand_for_the_test_clips(root: Path) -> None:
    (root / "eval_data_list_2023.csv").unlink()
    rename_some(root)
    problem, text, _ = found(verify(root, 2023, ("bandsaw",)), "renamed")
    assert problem
    assert "test_rename: 3 clips, but it should hold copies of all 200 test clips" in text
    for number, path in enumerate(sorted((root / TEST).iterdir())):
        kind = f"{('source', 'target')[number % 2]}_test_{('normal', 'anomaly')[number // 100]}"
        name = f"section_00_{kind}_{number:04d}_vel_12.wav"
        os.link(path, root / "eval_data/bandsaw/test_rename" / name)
    for number in range(3):
        (root / f"eval_data/bandsaw/test_rename/section_00_source_test_normal_000{number}.wav").unlink()
    report = verify(root, 2023, ("bandsaw",))
    assert report.ok
    assert set(report.sections[0].test.values()) == {50}


def test_copies_by_the_wrong_list_of_2022_are_told(tmp_path: Path) -> None:
    for number in range(2):
        path = tmp_path / f"eval_data/ToyCar/test_rename/section_03_source_test_normal_000{number}_car_F1.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound(number))
    problem, text, _ = found(verify(tmp_path, 2022, ("ToyCar",)), "renamed")
    assert problem
    assert "labels of this machine are wrong" in text
    assert not [finding for finding in verify(tmp_path, 2023, ("ToyCar",)).findings if finding.kind == "renamed"]


def test_notes_are_no_faults(root: Path) -> None:
    (root / "eval_data/bandsaw/attributes_00.csv").unlink()
    replace_in = root / "eval_data/bandsaw/supplemental/section_00_machine_0001.wav"
    replace_in.parent.mkdir()
    replace(replace_in, sound(1))
    report = verify(root, 2023, ("bandsaw",))
    assert report.ok
    assert found(report, "attributes")[1].startswith("eval_data/bandsaw: attributes_00.csv not there")
    assert found(report, "unread")[1] == "eval_data/bandsaw/supplemental: 1 audio files that are not read"


def test_machines_of_ones_own_are_compared_with_themselves(tmp_path: Path, raysd: Raysd) -> None:
    for number in range(20):
        for split, label in (("train", "normal"), ("test", "anomaly")):
            path = tmp_path / f"press/{split}/{label}_id_07_{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sound(hash(path.name) % 2**31, 300, 8000, 2))
    assert verify(tmp_path).ok
    status, printed, _ = raysd("data", "verify", tmp_path)
    assert status == 0
    assert "counted" in printed
    replace(tmp_path / "press/train/normal_id_07_3.wav", sound(1, 300, 16_000, 2))
    report = verify(tmp_path)
    assert "usual there" in found(report, "rate")[1]
    assert found(report, "length")[2] == ["normal_id_07_3.wav"]


def test_clips_without_a_usual_length_are_no_fault(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / f"press/train/normal_id_07_{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound(number, 100 * (number + 1)))
    problem, text, _ = found(verify(tmp_path), "length")
    assert not problem
    assert text == "press: clips of 0.01 to 0.04 s; there is no usual length"


SOURCE, TARGET = "section_00_source_test_normal_0000.wav", "section_00_target_test_normal_0000.wav"
FAN_2021 = ("fan/train/section_00_source_train_normal_0000.wav", f"fan/source_test/{SOURCE}")


@pytest.mark.parametrize(
    ("paths", "year"),
    [
        (("fan/train/normal_id_00_00000000.wav",), 2020),
        (("mill/train/normal_id_77_00000000.wav",), 2020),
        (FAN_2021, 2021),
        ((*FAN_2021, f"fan/test/{SOURCE}"), 2021),
        (("pump/train/section_00_source_train_normal_0000.wav",), 2021),
        (("bearing/train/section_02_source_train_normal_0000.wav",), 2022),
        (("bearing/train/section_00_source_train_normal_0000.wav", f"bearing/test/{SOURCE}"), "2022 or 2023 or 2024"),
        (("mill/train/section_00_source_train_normal_0000.wav", f"mill/test/{SOURCE}"), "2022 or 2023 or 2024"),
        (("mill/train/a.wav",), "cannot be told"),
    ],
)
def test_the_year_is_told_by_names_and_machines(tmp_path: Path, paths: tuple[str, ...], year: int | str) -> None:
    for path in paths:
        (tmp_path / "dev_data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev_data" / path).touch()
    if isinstance(year, int):
        assert recognise(tmp_path) == year
    else:
        with pytest.raises(BadInput, match=f"{year}.*say it with --year"):
            recognise(tmp_path)


def test_clips_that_lie_in_two_folders_count_once(tmp_path: Path) -> None:
    for path in (*FAN_2021, f"fan/target_test/{TARGET}", f"fan/test/{SOURCE}", f"fan/test/{TARGET}"):
        (tmp_path / "dev_data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev_data" / path).write_bytes(sound(len(path)))
    (section,) = verify(tmp_path, 2021, ("fan",)).sections
    assert section.test == {("source", 0): 1, ("target", 0): 1}


def test_real_clips_are_all_usable(shared_dir: Path) -> None:
    report = verify(shared_dir / "realdata/dcase2022_layout", 2022, ("valve",), deep=True)
    assert {finding.kind for finding in report.findings} == {"missing", "short", "attributes"}
    samples = verify(shared_dir / "realdata/naming_samples", 2022)
    assert {finding.kind for finding in samples.findings} == {"missing", "short", "attributes"}


@pytest.mark.parametrize(
    ("machine", "train"), [("fan", 3675), ("pump", 3349), ("slider", 2804), ("valve", 3291), ("ToyCar", 4000)]
)
def test_training_clips_of_2020_add_up(machine: str, train: int) -> None:
    wanted = [expected(2020, "dev", machine, section) for section in YEARS[2020].machines[machine][0]]
    about = [section.train[None] for section in wanted if section]
    assert sum((count.low + (count.high or 0)) / 2 for count in about) == train


@pytest.mark.parametrize("year", YEARS)
def test_every_section_of_every_year_is_in_the_table(year: int) -> None:
    parts: tuple[Part, ...] = ("dev", "eval")
    for machine, of_parts in YEARS[year].machines.items():
        for part, sections in zip(parts, of_parts, strict=True):
            for section in sections:
                wanted = expected(year, part, machine, section)
                assert wanted
                assert all(count.high is None or 0 < count.low <= count.high for count in wanted.train.values())
                assert wanted.test
        assert expected(year, "dev", machine, "99") is None
    assert expected(year, "dev", "mill", "00") is None
