"""The store: what it decodes, what it refuses, what it is called, and what becomes visible of it."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile as sf
from pydantic import ValidationError

from raysd.data.store import BadClips, Data, Store, known_fingerprint, open_store
from raysd.errors import BadInput

TRAIN, TEST = "dev_data/fan/train", "dev_data/fan/test"


def noise(length: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    wave = np.random.default_rng(seed).uniform(-0.5, 0.5, (length, channels))
    return wave[:, 0] if channels == 1 else wave


def corpus(root: Path, clips: dict[str, np.ndarray], rate_hz: int = 16000) -> Path:
    """Writes clips by path below dev_data/fan."""
    for path, wave in clips.items():
        (root / "dev_data/fan" / path).parent.mkdir(parents=True, exist_ok=True)
        sf.write(root / "dev_data/fan" / path, wave, rate_hz)
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two training and two test clips of different lengths."""
    return corpus(
        tmp_path / "data",
        {
            "train/normal_id_00_0.wav": noise(1600, 0),
            "train/normal_id_00_1.wav": noise(999, 1),
            "test/normal_id_00_2.wav": noise(1234, 2),
            "test/anomaly_id_00_3.wav": noise(1, 3),
        },
    )


def piece(store: Store, row: int, start: int, samples: int) -> np.ndarray:
    return store.waveforms(np.array([row]), np.array([start]), samples)[0]


def whole(store: Store, path: str) -> np.ndarray:
    row = store.clips["path"].tolist().index(path)
    return piece(store, row, 0, store.clips["length"].tolist()[row])


def test_16_bit_samples_are_exact_and_indexed(small: Path, tmp_path: Path) -> None:
    store = open_store(small, Data(), tmp_path / "cache")
    clips = store.clips
    assert list(clips["path"]) == [
        f"{TEST}/anomaly_id_00_3.wav",
        f"{TEST}/normal_id_00_2.wav",
        f"{TRAIN}/normal_id_00_0.wav",
        f"{TRAIN}/normal_id_00_1.wav",
    ]
    assert list(clips["length"]) == [1, 1234, 1600, 999]
    assert list(clips["offset"]) == [0, 1, 1235, 2835]
    assert list(clips["label"]) == [1, 0, 0, 0]
    assert list(clips["split"]) == ["test", "test", "train", "train"]
    assert set(clips["machine"] + clips["section"] + clips["part"]) == {"fan00dev"}
    assert list(clips["domain"].dropna()) == []
    assert set(clips["source_rate_hz"]) == {16000}
    assert store.samples.shape == (3834,)
    assert store.samples.dtype == np.int16
    for path in clips["path"]:
        expected = sf.read(small / path, dtype="float32", always_2d=True)[0][:, 0]
        np.testing.assert_array_equal(whole(store, path), expected)
    assert not store.skipped
    assert (store.root, store.data) == (small, Data())


def test_a_short_clip_is_repeated_from_its_start(small: Path, tmp_path: Path) -> None:
    store = open_store(small, Data(), tmp_path / "cache")
    clip = whole(store, f"{TRAIN}/normal_id_00_1.wav")
    pieces = store.waveforms(np.array([3, 3, 0, 2]), np.array([0, 990, 0, 5]), 2500)
    assert pieces.shape == (4, 2500)
    assert pieces.dtype == np.float32
    np.testing.assert_array_equal(pieces[0], np.resize(clip, 2500))
    np.testing.assert_array_equal(pieces[1], np.resize(np.roll(clip, -990), 2500))
    assert len(set(pieces[2])) == 1
    np.testing.assert_array_equal(piece(store, 2, 5, 1000), pieces[3, :1000])


@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 48000, 16001])
def test_resampling_keeps_a_sine(tmp_path: Path, rate_hz: int) -> None:
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    root = corpus(tmp_path / "data", {"train/normal_id_00_0.wav": sine, "test/normal_id_00_1.wav": sine}, rate_hz)
    store = open_store(root, Data(), tmp_path / "cache")
    assert list(store.clips["length"]) == [16000, 16000]
    assert list(store.clips["source_rate_hz"]) == [rate_hz] * 2
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(piece(store, 0, 0, 16000)[500:-500], expected[500:-500], atol=2e-3)


def test_resampling_down_removes_what_would_alias(tmp_path: Path) -> None:
    high = 0.5 * np.sin(2 * np.pi * 20000 * np.arange(48000) / 48000)
    root = corpus(tmp_path / "data", {"train/normal_id_00_0.wav": high, "test/normal_id_00_1.wav": high}, 48000)
    assert np.abs(piece(open_store(root, Data(), tmp_path / "cache"), 0, 500, 15000)).max() < 2e-3


def test_flac_and_ogg(tmp_path: Path) -> None:
    wave = np.rint(9000 * np.sin(2 * np.pi * 300 * np.arange(8000) / 16000)).astype(np.int16)
    root = corpus(
        tmp_path / "data",
        {"train/normal_id_00_0.wav": wave, "test/normal_id_00_1.flac": wave, "test/normal_id_00_2.ogg": wave},
    )
    store = open_store(root, Data(), tmp_path / "cache")
    wav = whole(store, f"{TRAIN}/normal_id_00_0.wav")
    np.testing.assert_array_equal(whole(store, f"{TEST}/normal_id_00_1.flac"), wav)
    ogg = whole(store, f"{TEST}/normal_id_00_2.ogg")
    assert len(ogg) == len(wav)
    assert np.corrcoef(ogg, wav)[0, 1] > 0.99


def test_channels(tmp_path: Path) -> None:
    stereo = noise(500, channels=2)
    root = corpus(tmp_path / "data", {"train/normal_id_00_0.wav": stereo, "test/normal_id_00_1.wav": stereo})
    read = sf.read(root / f"{TRAIN}/normal_id_00_0.wav", dtype="float32")[0]
    cache = tmp_path / "cache"
    np.testing.assert_array_equal(piece(open_store(root, Data(), cache), 0, 0, 500), read[:, 0])
    np.testing.assert_array_equal(piece(open_store(root, Data(channel=1), cache), 0, 0, 500), read[:, 1])
    mean = piece(open_store(root, Data(channel="mean"), cache), 0, 0, 500)
    np.testing.assert_allclose(mean, read.mean(axis=1), atol=2**-16)
    with pytest.raises(BadClips, match=r"has 2 channel\(s\), so none with number 2") as error:
        open_store(root, Data(channel=2), cache)
    assert len(error.value.clips) == 2


def test_what_is_louder_than_full_scale(tmp_path: Path) -> None:
    loud = np.array([0.0, 2.0, -3.0, 0.25], dtype=np.float32)
    for name in ("train/normal_id_00_0.wav", "test/normal_id_00_1.wav"):
        path = tmp_path / "data/dev_data/fan" / name
        path.parent.mkdir(parents=True)
        sf.write(path, loud, 16000, subtype="FLOAT")
    clipped = piece(open_store(tmp_path / "data", Data(), tmp_path / "cache"), 0, 0, 4)
    np.testing.assert_array_equal(clipped, [0, 1 - 2**-15, -1, 0.25])
    kept = open_store(tmp_path / "data", Data(dtype="float16"), tmp_path / "cache")
    np.testing.assert_array_equal(piece(kept, 0, 0, 4), loud)
    assert kept.samples.dtype == np.float16


def spoil_float(values: list[float]) -> Callable[[Path], None]:
    return lambda path: sf.write(path, np.array(values, dtype=np.float32), 16000, subtype="FLOAT")


def cut(format: str, keep: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        sf.write(path, noise(20000), 16000, format=format)
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    return spoil


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("wav", lambda path: path.write_bytes(b""), "empty file"),
    "text": ("wav", lambda path: path.write_text("no sound" * 99), "not audio"),
    "no_samples": ("wav", lambda path: sf.write(path, np.zeros(0), 16000), "holds no samples"),
    "cut_wav": ("wav", cut("WAV", 0.9), "truncated: .* bytes of samples"),
    "cut_wav_header": ("wav", lambda path: path.write_bytes(b"RIFF\0\0\0\0WAVEfmt "), "truncated"),
    "cut_flac": ("flac", cut("FLAC", 0.5), "not audio, or damaged"),
    "cut_ogg": ("ogg", cut("OGG", 0.5), "truncated: the last page"),
    "nan": ("wav", spoil_float([0.1, float("nan"), 0.2]), "holds 1 non-finite samples"),
    "infinite": ("wav", spoil_float([float("inf"), float("-inf")]), "holds 2 non-finite samples"),
    "dangling": ("wav", lambda path: path.symlink_to("nowhere.wav"), "cannot be read: No such file"),
    "circular": ("wav", lambda path: path.symlink_to(path.name), "cannot be read"),
    "folder": ("wav", lambda path: path.mkdir(), "cannot be read: Is a directory"),
}


@pytest.mark.parametrize("kind", BAD)
def test_each_kind_of_bad_clip_is_named_with_its_reason(small: Path, tmp_path: Path, kind: str) -> None:
    extension, spoil, reason = BAD[kind]
    path = f"{TRAIN}/normal_id_00_9.{extension}"
    spoil(small / path)
    with pytest.raises(BadClips, match=f"1 of 5 clips cannot be used: {path}: {reason}.*--skip-bad") as error:
        open_store(small, Data(), tmp_path / "cache")
    ((named, said),) = error.value.clips
    assert named == path
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("[!.]*/"))
    store = open_store(small, Data(), tmp_path / "cache", skip_bad=True)
    assert store.skipped == [(path, said)]
    assert len(store.clips) == 4
    assert path not in set(store.clips["path"])


def test_all_bad_clips_are_found_at_once(small: Path, tmp_path: Path) -> None:
    for number in range(10, 18):
        (small / f"{TRAIN}/normal_id_00_{number}.wav").touch()
    with pytest.raises(BadClips, match=r"8 of 12 clips .*_14.wav: empty file; and 3 more") as error:
        open_store(small, Data(), tmp_path / "cache")
    assert len(error.value.clips) == 8


def test_a_store_without_its_bad_clips_is_refused_where_none_may_lack(small: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (small / f"{TRAIN}/normal_id_00_9.wav").touch()
    with pytest.raises(BadClips) as before:
        open_store(small, Data(), cache)
    skipping = open_store(small, Data(), cache, skip_bad=True)
    with pytest.raises(BadClips) as after:
        open_store(small, Data(), cache)
    assert str(before.value) == str(after.value)
    assert before.value.clips == after.value.clips
    with pytest.raises(BadClips):
        known_fingerprint(small, Data(), cache)
    assert known_fingerprint(small, Data(), cache, skip_bad=True) == skipping.fingerprint
    (small / f"{TRAIN}/normal_id_00_9.wav").unlink()
    clean = open_store(small, Data(), cache)
    assert not clean.skipped
    assert clean.fingerprint == skipping.fingerprint


def test_skipping_may_not_leave_a_machine_without_clips(small: Path, tmp_path: Path) -> None:
    for path in (small / TRAIN).iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadInput, match="machine 'fan' has no train clips"):
        open_store(small, Data(), tmp_path / "cache", skip_bad=True)
    for path in (small / TEST).iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadClips, match="4 of 4 clips"):
        open_store(small, Data(), tmp_path / "cache", skip_bad=True)


def test_fingerprint_follows_the_recordings_only(small: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert known_fingerprint(small, Data(), cache) is None
    first = open_store(small, Data(), cache).fingerprint
    assert len(first) >= 16
    assert known_fingerprint(small, Data(), cache) == first
    assert known_fingerprint(small, Data(model_per="machine"), cache) == first
    shutil.copytree(small, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert open_store(tmp_path / "elsewhere", Data(), tmp_path / "other_cache").fingerprint == first
    path = small / f"{TRAIN}/normal_id_00_0.wav"
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert open_store(small, Data(), cache).fingerprint != first


def test_fingerprint_follows_the_decoding(small: Path, tmp_path: Path) -> None:
    settings = [Data(), Data(sample_rate_hz=8000), Data(dtype="float16"), Data(channel="mean")]
    assert len({open_store(small, data, tmp_path / "cache").fingerprint for data in settings}) == 4


def test_fingerprint_does_not_know_the_labels_of_a_truth_list(tmp_path: Path) -> None:
    root = corpus(tmp_path / "data", {"train/section_03_source_train_normal_0000.wav": noise(99)})
    (root / "dev_data").rename(root / "eval_data")
    (root / "eval_data/fan/test").mkdir()
    sf.write(root / "eval_data/fan/test/section_03_test_0000.wav", noise(99), 16000)
    data = Data(year=2022, additional=True)
    unknown = open_store(root, data, tmp_path / "cache")
    assert unknown.clips.query("split == 'test'")[["label", "domain"]].isna().to_numpy().all()
    (root / "ground_truth_fan_section_03_test.csv").write_text("section_03_0000.wav,1\n")
    (root / "ground_truth_domain").mkdir()
    (root / "ground_truth_domain/ground_truth_fan_section_03_test.csv").write_text("section_03_0000.wav,1\n")
    known = open_store(root, data, tmp_path / "cache")
    assert known.clips.query("split == 'test'")[["label", "domain"]].to_numpy().tolist() == [[1, "target"]]
    assert known.fingerprint == unknown.fingerprint


def test_attributes_come_back_as_pairs(tmp_path: Path) -> None:
    root = corpus(
        tmp_path / "data",
        {
            "train/section_00_source_train_normal_0000_vel_8_vel_9.wav": noise(9),
            "test/section_00_target_test_anomaly_0000.wav": noise(9),
        },
    )
    clips = open_store(root, Data(year=2022), tmp_path / "cache").clips
    assert list(clips["attributes"]) == [(), (("vel", "8"), ("vel", "9"))]
    assert list(clips["domain"]) == ["target", "source"]


def test_machines_are_a_set() -> None:
    assert Data(machines=("valve", "fan", "valve")) == Data(machines=("fan", "valve"))
    for wrong in ({"machines": ()}, {"channel": -1}, {"channel": "left"}, {"sample_rate_hz": 0}, {"year": 2019}):
        with pytest.raises(ValidationError):
            Data.model_validate(wrong)


def test_opening_again_decodes_nothing(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    open_store(small, Data(), tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    monkeypatch.setattr("raysd.data.build.os.readv", None)  # by which each recording is read
    open_store(small, Data(), tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == 4


def test_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    clips = {f"train/normal_id_00_{i}.wav": noise(50 + i, i) for i in range(150)}
    root = corpus(tmp_path / "data", {**clips, "test/normal_id_00_0.wav": noise(9)})
    one, four = (open_store(root, Data(), tmp_path / f"cache{n}", workers=n) for n in (1, 4))
    np.testing.assert_array_equal(one.samples, four.samples)
    pd.testing.assert_frame_equal(one.clips, four.clips)
    assert one.fingerprint == four.fingerprint


@pytest.mark.parametrize("name", ["samples.bin", "index.arrow", "store.json"])
def test_a_damaged_store_is_named(small: Path, tmp_path: Path, name: str) -> None:
    open_store(small, Data(), tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match=r"damaged .* delete the folder"):
        open_store(small, Data(), tmp_path / "cache")


def test_a_store_is_plain_files(small: Path, tmp_path: Path) -> None:
    store = open_store(small, Data(), tmp_path / "cache")
    (folder,) = (tmp_path / "cache").glob("*/")
    index = pa.ipc.open_file(folder / "index.arrow").read_all().to_pydict()
    samples = np.fromfile(folder / "samples.bin", dtype=np.int16)
    assert index["checksum"] == list(store.clips["checksum"])
    assert len(samples) == sum(index["length"])
    assert json.loads((folder / "store.json").read_text())["fingerprint"] == store.fingerprint


def test_real_clips(shared_dir: Path, tmp_path: Path) -> None:
    root = shared_dir / "realdata/naming_samples"
    store = open_store(root, Data(year=2022), tmp_path / "cache")
    assert len(store.clips) == 24
    assert set(store.clips["length"] / 16000) == {10.0, 12.0}
    row = 7
    expected = sf.read(root / str(store.clips["path"].tolist()[row]), dtype="float32")[0]
    np.testing.assert_array_equal(piece(store, row, 0, len(expected)), expected)
    started = time.perf_counter()
    open_store(root, Data(year=2022), tmp_path / "cache")
    assert time.perf_counter() - started < 1
