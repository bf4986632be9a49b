"""A store is found again without listing its clips, and never where anything below the data root was changed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from raysd.data.store import Data, Store, known_fingerprint, open_store

DATA = Data(year=2022)
TRAIN, TEST = "dev_data/fan/train", "dev_data/fan/test"


def record(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, 400), 16000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training and two test clips, attributes of the first, a machine whose folder is a link to nowhere."""
    root = tmp_path / "data"
    for number in range(2):
        record(root / TRAIN / f"section_00_source_train_normal_000{number}.wav", number)
        record(root / TEST / f"section_00_source_test_normal_000{number}.wav", 2 + number)
    attributes = "file_name,d1p,d1v\nsection_00_source_train_normal_0000.wav,vel,8\n"
    (root / "dev_data/fan/attributes_00.csv").write_text(attributes)
    (root / "dev_data/valve").symlink_to(tmp_path / "later")
    return root


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data roots count as old, though the tests have just made them."""
    monkeypatch.setattr("raysd.data.listed._SETTLED_NS", -(10**18))


def refuse(*_: object) -> None:
    raise AssertionError("listed")


def assert_same(store: Store, other: Store) -> None:
    pd.testing.assert_frame_equal(store.clips, other.clips)
    np.testing.assert_array_equal(store.samples, other.samples)
    assert store.fingerprint == other.fingerprint


@pytest.mark.usefixtures("settled")
def test_finding_a_store_again_lists_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(root, DATA, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr("raysd.data.store.scan", refuse)
        assert_same(open_store(root, DATA, tmp_path / "cache"), store)
        assert known_fingerprint(root, DATA, tmp_path / "cache") == store.fingerprint
        with pytest.raises(AssertionError, match="listed"):
            open_store(root, Data(year=2022, machines=("fan",)), tmp_path / "cache")
    shutil.rmtree(store.folder)
    assert_same(open_store(root, DATA, tmp_path / "cache"), store)


def keep_time(path: Path, change: Callable[[Path], object]) -> None:
    stat = path.stat()
    change(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def append_line(path: Path) -> None:
    path.write_text(f"{path.read_text()}section_00_source_train_normal_0001.wav,vel,9\n")


def machine_elsewhere(root: Path) -> None:
    shutil.copytree(root / "dev_data/fan", root.with_name("later"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a_new_clip": lambda root: record(root / TRAIN / "section_00_target_train_normal_0002.wav", 5),
    "a_clip_less": lambda root: (root / TRAIN / "section_00_source_train_normal_0001.wav").unlink(),
    "another_name": lambda root: (root / TRAIN / "section_00_source_train_normal_0001.wav").rename(
        root / TRAIN / "section_00_target_train_normal_0001.wav"
    ),
    "a_new_name_in_a_folder_with_its_old_time": lambda root: keep_time(
        root / TRAIN, lambda folder: record(folder / "section_00_target_train_normal_0002.wav", 5)
    ),
    "another_recording": lambda root: record(root / TRAIN / "section_00_source_train_normal_0001.wav", 9),
    "another_attribute": lambda root: append_line(root / "dev_data/fan/attributes_00.csv"),
    "another_attribute_at_the_old_time": lambda root: keep_time(root / "dev_data/fan/attributes_00.csv", append_line),
    "a_link_that_leads_somewhere_now": machine_elsewhere,
}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("kind", CHANGES)
def test_what_was_changed_is_seen(root: Path, tmp_path: Path, kind: str) -> None:
    before = open_store(root, DATA, tmp_path / "cache")
    CHANGES[kind](root)
    after = open_store(root, DATA, tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert_same(after, open_store(root, DATA, tmp_path / "other"))


def test_a_data_root_that_was_changed_just_now_is_listed_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysd.data.listed._SETTLED_NS", 3600 * 10**9)
    open_store(root, DATA, tmp_path / "cache")
    monkeypatch.setattr("raysd.data.store.scan", refuse)
    with pytest.raises(AssertionError, match="listed"):
        open_store(root, DATA, tmp_path / "cache")


@pytest.mark.usefixtures("settled")
def test_other_code_and_damaged_notes_are_not_believed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(root, DATA, tmp_path / "cache")
    (note,) = (tmp_path / "cache/.listings").iterdir()
    note.write_bytes(note.read_bytes()[:-20])
    assert_same(open_store(root, DATA, tmp_path / "cache"), store)
    monkeypatch.setattr("raysd.data.listed._code", lambda: ["other"])
    monkeypatch.setattr("raysd.data.store.scan", refuse)
    with pytest.raises(AssertionError, match="listed"):
        open_store(root, DATA, tmp_path / "cache")
