"""The synthetic corpus: layout, same bytes, and something to learn."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from sklearn.metrics import roc_auc_score

from raysd.data.layouts import Clip, read_attributes, scan
from raysd.data.synthetic import Synthetic, synthesise
from raysd.errors import BadInput

SMALL = Synthetic(machines=1, sections=2, train_clips=4, test_clips=4, clip_seconds=0.5)


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_of_2020(tmp_path: Path) -> None:
    synthesise(tmp_path / "out", SMALL.model_copy(update={"machines": ("pump", "ToyCar")}))
    clips = scan(tmp_path / "out", 2020)
    assert {(clip.machine, clip.section) for clip in clips} == {
        ("pump", "00"),
        ("pump", "02"),
        ("ToyCar", "01"),
        ("ToyCar", "02"),
    }
    assert len(clips) == 4 * 8
    assert sum(clip.label == 1 for clip in clips) == 4 * 2
    info = sf.info(tmp_path / "out" / clips[0].path)
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (16000, 1, 8000, "PCM_16")


def test_layout_of_2022_has_domains_and_attributes(tmp_path: Path) -> None:
    corpus = SMALL.model_copy(update={"year": 2022, "train_clips": 20, "test_clips": 8, "sections": 1})
    synthesise(tmp_path / "out", corpus)
    clips = scan(tmp_path / "out", 2022)
    kinds = [(clip.split, clip.domain, clip.label) for clip in clips]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        ("train", "source", 0): 18,
        ("train", "target", 0): 2,
        ("test", "source", 0): 2,
        ("test", "target", 0): 2,
        ("test", "source", 1): 2,
        ("test", "target", 1): 2,
    }
    (machine,) = {clip.machine for clip in clips}
    listed = read_attributes(tmp_path / "out/dev_data" / machine / "attributes_00.csv")
    assert {Path(clip.path).name.removesuffix(".wav"): clip.attributes for clip in clips} == listed
    speed = {
        domain: np.mean([int(dict(clip.attributes)["spd"]) for clip in clips if clip.domain == domain])
        for domain in ("source", "target")
    }
    assert speed["target"] > speed["source"] + 5


@pytest.mark.parametrize("year", [2021, 2023, 2024])
def test_layouts_of_the_other_years(tmp_path: Path, year: int) -> None:
    synthesise(tmp_path / "out", SMALL.model_copy(update={"year": year, "sections": 1, "machines": 2}))
    clips = scan(tmp_path / "out", year)
    assert {(clip.machine, clip.section) for clip in clips} == {("ToyCar", "00"), ("ToyTrain", "00")}
    assert {clip.domain for clip in clips} == {"source", "target"}
    folders = {Path(clip.path).parent.name for clip in clips}
    assert folders == ({"train", "source_test", "target_test"} if year == 2021 else {"train", "test"})
    assert (tmp_path / "out/dev_data/ToyCar/attributes_00.csv").is_file() == (year > 2021)


def test_same_settings_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        synthesise(tmp_path / name, SMALL)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    synthesise(tmp_path / "c", SMALL.model_copy(update={"seed": 1}))
    other = digests(tmp_path / "c")
    assert other.keys() == digests(tmp_path / "a").keys()
    assert not set(other.values()) & set(digests(tmp_path / "a").values())


def test_the_other_rates_and_odd_lengths(tmp_path: Path) -> None:
    synthesise(tmp_path / "out", SMALL.model_copy(update={"sample_rate_hz": 8000, "clip_seconds": 0.500125}))
    info = sf.info(tmp_path / "out" / scan(tmp_path / "out", 2020)[0].path)
    assert (info.samplerate, info.frames) == (8000, 4001)


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="is there already"):
        synthesise(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    synthesise(tmp_path / "empty", SMALL)
    assert scan(tmp_path / "empty", 2020)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def full(*args: object, **kwargs: object) -> None:
        written.append(args)
        if len(written) == 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("raysd.data.synthetic.sf.write", full)
    with pytest.raises(BadInput, match="cannot be written: No space left"):
        synthesise(tmp_path / "out", SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"machines": 7}, "2020 has 6 machine types, not 7"),
        ({"machines": ("fam",)}, "'fam' is no machine of 2020; did you mean 'fan'"),
        ({"machines": ("ToyConveyor",), "sections": 4}, "ToyConveyor has 3 in 2020, not 4"),
    ],
)
def test_what_a_year_lacks(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        synthesise(tmp_path / "out", SMALL.model_copy(update=settings))
    assert not list(tmp_path.iterdir())


def spectra(root: Path, clips: list[Clip]) -> np.ndarray:
    """(N, 64) log power in 64 bands of even width, over the whole clip."""
    power = [np.abs(np.fft.rfft(sf.read(root / clip.path)[0])) ** 2 for clip in clips]
    return np.log(np.array([[band.mean() for band in np.array_split(clip, 64)] for clip in power]))


def floor_and_gaussian(root: Path) -> tuple[float, float]:
    """Mean AUC over sections of the nearest neighbour, and of a Gaussian that knows how normal clips vary."""
    clips = scan(root, 2020)
    logs, found = spectra(root, clips), []
    for key in sorted({(clip.machine, clip.section) for clip in clips}):
        rows = [i for i, clip in enumerate(clips) if (clip.machine, clip.section) == key]
        train = logs[[i for i in rows if clips[i].split == "train"]]
        tested = [i for i in rows if clips[i].split == "test"]
        label = [clips[i].label for i in tested]
        nearest = ((logs[tested][:, None] - train) ** 2).sum(-1).min(1)
        covariance = np.cov(train.T)
        shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 64 * np.eye(64)
        offset = logs[tested] - train.mean(0)
        distance = (offset @ np.linalg.inv(shrunk) * offset).sum(1)
        found.append((roc_auc_score(label, nearest), roc_auc_score(label, distance)))
    floor, gaussian = np.mean(found, axis=0)
    return float(floor), float(gaussian)


def test_a_detector_has_something_to_learn(tmp_path: Path) -> None:
    synthesise(tmp_path / "default", Synthetic(clip_seconds=1.0))
    floor, gaussian = floor_and_gaussian(tmp_path / "default")
    assert 0.5 < floor < 0.75
    assert gaussian > floor + 0.05
    synthesise(tmp_path / "easy", Synthetic(clip_seconds=1.0, difficulty=0.0, machines=1, sections=1))
    assert floor_and_gaussian(tmp_path / "easy")[0] > 0.95
