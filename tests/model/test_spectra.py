"""The log-mel frames of a store's clips: cuts, statistics, and both ways to come by them.

B items, F bands, T frames, S samples.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
import torch

from raysd.data.store import Data, Store, open_store
from raysd.errors import BadInput
from raysd.model import spectra as spectra_module
from raysd.model.features import Features, LogMel
from raysd.model.spectra import Spectra
from raysd.parallel import Scale

FEATURES = Features(num_bands=32)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole_FT(ragged_store: Store) -> list[torch.Tensor]:
    """The log-mel of each whole clip, computed alone."""
    log_mel = LogMel(FEATURES, ragged_store.data.sample_rate_hz)
    lengths = ragged_store.clips["length"].tolist()
    clips = [ragged_store.waveforms(np.array([i]), np.zeros(1, int), length) for i, length in enumerate(lengths)]
    return [log_mel.log_mel(torch.from_numpy(x_BS))[0] for x_BS in clips]


@pytest.fixture(scope="module")
def kept(ragged_store: Store) -> Spectra:
    return Spectra(ragged_store, FEATURES, CPU)


@pytest.fixture
def computed(ragged_store: Store) -> Spectra:
    """The same where nothing is kept."""
    return Spectra(ragged_store, FEATURES, CPU, Scale(device_cache=False))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """With several, the matrix products of few clips are rounded otherwise than those of many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_frames_and_bands(kept: Spectra, whole_FT: list[torch.Tensor]) -> None:
    assert kept.frames_N.tolist() == [spec_FT.shape[1] for spec_FT in whole_FT]
    assert kept.band_hz_F.tolist() == LogMel(FEATURES, 16_000).band_hz_F.tolist()


def test_a_cut_is_the_slice_of_its_whole_clip(kept: Spectra, whole_FT: list[torch.Tensor]) -> None:
    rows, starts, frames = [1, 0, 9, 1], [3, 0, 5, 12], 7
    cut_BFT = kept.cut(torch.tensor(rows), torch.tensor(starts), frames)
    assert cut_BFT.shape == (4, 32, 7)
    for cut_FT, row, start in zip(cut_BFT, rows, starts, strict=True):
        torch.testing.assert_close(cut_FT, whole_FT[row][:, start : start + frames], rtol=0, atol=1e-5)


def test_past_its_end_a_clip_begins_again(kept: Spectra, whole_FT: list[torch.Tensor]) -> None:
    row, length = 6, whole_FT[6].shape[1]
    cut_FT = kept.cut(torch.tensor([row]), torch.tensor([length - 2]), length + 5)[0]
    again = torch.cat([whole_FT[row][:, -2:], whole_FT[row], whole_FT[row][:, :3]], dim=1)
    torch.testing.assert_close(cut_FT, again, rtol=0, atol=1e-5)


def test_what_is_not_kept_is_computed_to_the_same_numbers(kept: Spectra, computed: Spectra, one_thread: None) -> None:
    """On a CPU to the bit, whatever else is asked for at the same time."""
    rows, starts = torch.tensor([5, 0, 5, 17, 2, 5]), torch.tensor([0, 3, 6, 1, 20, 0])
    for frames in (1, 9, 40):
        assert torch.equal(computed.cut(rows, starts, frames), kept.cut(rows, starts, frames))
    for per_band in (False, True):
        for a, b in zip(kept.statistics([0, 5, 8], per_band), computed.statistics([0, 5, 8], per_band), strict=True):
            assert torch.equal(a, b)


FRONT_ENDS = {
    "default": FEATURES,
    "short_window": Features(num_bands=16, fft_samples=512, window_samples=400, hop_samples=160),
    "efficientat": Features(front_end="efficientat"),
}


@pytest.mark.parametrize("features", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_of_a_long_clip_only_what_its_frames_hear_is_read(
    features: Features, ragged_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU. The same numbers but for the rounding, at both ends of a clip too, where it is mirrored."""
    kept = Spectra(ragged_store, features, CPU)
    pieces = Spectra(ragged_store, features, CPU, Scale(device_cache=False))
    monkeypatch.setattr(spectra_module, "WHOLE_ON", ())
    read, waveforms = list[int](), ragged_store.waveforms

    def reading(rows_B: np.ndarray, starts_B: np.ndarray, samples: int) -> np.ndarray:
        read.append(len(rows_B) * samples)
        return waveforms(rows_B, starts_B, samples)

    monkeypatch.setattr(ragged_store, "waveforms", reading)
    longest = int(kept.frames_N.argmax())
    for row in range(4):  # of four lengths
        last = int(kept.frames_N[row]) - 5
        starts = torch.tensor([0, 1, 2, 3, last // 2, last - 2, last - 1, last])
        rows = torch.full_like(starts, row)
        torch.testing.assert_close(pieces.cut(rows, starts, 5), kept.cut(rows, starts, 5), rtol=0, atol=1e-4)
        wrapped = pieces.cut(rows[:1], starts[-1:] + 2, 5)
        torch.testing.assert_close(wrapped, kept.cut(rows[:1], starts[-1:] + 2, 5), rtol=0, atol=1e-4)
    read.clear()
    pieces.cut(torch.tensor([longest]), torch.tensor([int(kept.frames_N[longest]) // 2]), 2)
    assert sum(read) < 0.5 * int(ragged_store.clips["length"].to_numpy().max())


# --- the file of all log-mels -----------------------------------------------------------------------------------------


@pytest.fixture
def own_store(ragged_store: Store, tmp_path: Path) -> Store:
    """A store in which no log-mels are kept yet."""
    shutil.copytree(ragged_store.folder, tmp_path / "store", ignore=shutil.ignore_patterns("log_mel-*"))
    return Store(ragged_store.root, ragged_store.data, tmp_path / "store")


def test_what_was_computed_once_is_not_computed_again(own_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for another seed, nor by another process, nor for another normalisation."""
    first = Spectra(own_store, FEATURES, CPU)
    monkeypatch.setattr(own_store, "waveforms", lambda *_: pytest.fail("read the audio"))
    again = Spectra(own_store, FEATURES.model_copy(update={"normalise": "band"}), CPU)
    rows, starts = torch.arange(len(own_store.clips)), torch.zeros(len(own_store.clips), dtype=torch.int64)
    assert torch.equal(again.cut(rows, starts, 30), first.cut(rows, starts, 30))


def test_of_several_at_once_one_computes(own_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read, waveforms = list[int](), own_store.waveforms

    def reading(rows_B: np.ndarray, starts_B: np.ndarray, samples: int) -> np.ndarray:
        read.extend(rows_B.tolist())
        return waveforms(rows_B, starts_B, samples)

    monkeypatch.setattr(own_store, "waveforms", reading)
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda _: Spectra(own_store, FEATURES, CPU), range(4)))) == 4
    assert sorted(read) == list(range(len(own_store.clips)))


def test_a_process_that_died_while_it_computed_leaves_no_harm(
    own_store: Store, kept: Spectra, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveforms = own_store.waveforms

    def dying(rows_B: np.ndarray, starts_B: np.ndarray, samples: int) -> np.ndarray:
        if 3 in rows_B:
            raise KeyboardInterrupt
        return waveforms(rows_B, starts_B, samples)

    monkeypatch.setattr(own_store, "waveforms", dying)
    with pytest.raises(KeyboardInterrupt):
        Spectra(own_store, FEATURES, CPU)
    monkeypatch.undo()
    row, start = torch.tensor([3, 4]), torch.tensor([0, 2])
    assert torch.equal(Spectra(own_store, FEATURES, CPU).cut(row, start, 4), kept.cut(row, start, 4))


def test_front_ends_that_are_no_longer_used_give_way(own_store: Store) -> None:
    front_ends = [Features(num_bands=bands) for bands in range(8, 14)]
    first = Spectra(own_store, front_ends[0], CPU)
    row, start = torch.tensor([3]), torch.tensor([2])
    before = first.cut(row, start, 4)
    for features in front_ends[1:]:
        Spectra(own_store, features, CPU)
    assert len(list(own_store.folder.glob("log_mel-*.f32"))) == spectra_module.KEPT_FILES
    assert torch.equal(first.cut(row, start, 4), before)  # who has its file open keeps it


def test_a_disk_that_is_full_is_named(own_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5))
    with pytest.raises(BadInput, match=r"store: the log-mels .* take 0\.0 GiB, .* scale\.device_cache to false"):
        Spectra(own_store, FEATURES, CPU)
    assert not list(own_store.folder.glob("log_mel-*.f32"))
    assert Spectra(own_store, FEATURES, CPU, Scale(device_cache=False)).frames_N.min() > 0


# --- what the training clips are like ---------------------------------------------------------------------------------


@pytest.mark.parametrize("per_band", [False, True])
def test_statistics_are_those_of_all_frames(kept: Spectra, whole_FT: list[torch.Tensor], per_band: bool) -> None:
    """Frames count alike, whatever the length of their clip."""
    rows = [2, 3, 11]
    frames_FT = np.concatenate([whole_FT[row].double().numpy() for row in rows], axis=1)
    axis = 1 if per_band else None
    mean_F1, std_F1 = kept.statistics(rows, per_band)
    assert mean_F1.shape == std_F1.shape == (32, 1)
    np.testing.assert_allclose(mean_F1[:, 0], np.broadcast_to(frames_FT.mean(axis), 32), rtol=1e-5)
    np.testing.assert_allclose(std_F1[:, 0], np.broadcast_to(frames_FT.std(axis), 32), rtol=1e-4)


def test_statistics_of_many_clips_are_those_of_some_evenly_spread(kept: Spectra) -> None:
    some, chosen = kept.statistics(list(range(10)), True, most=4), kept.statistics([0, 3, 6, 9], True)
    assert all(torch.equal(a, b) for a, b in zip(some, chosen, strict=True))


def test_a_band_that_never_changes_is_not_blown_up(tmp_path: Path, cache_dir: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "fan" / split).mkdir(parents=True)
        sf.write(tmp_path / "fan" / split / "normal_id_00_00000000.wav", np.zeros(8000), 16_000)
    mean_F1, std_F1 = Spectra(open_store(tmp_path, Data(), cache_dir), FEATURES, CPU).statistics([0, 1], True)
    assert torch.equal(std_F1, torch.ones(32, 1))
    torch.testing.assert_close(mean_F1, torch.full((32, 1), float(np.log(np.finfo(np.float32).eps))))


def test_a_clip_too_short_for_the_transform_is_named(ragged_store: Store) -> None:
    with pytest.raises(BadInput) as caught:
        Spectra(ragged_store, Features(fft_samples=8000), CPU)
    said = str(caught.value)
    assert "dev_data/fan/test/anomaly_id_00_00000002.wav: 4000 samples" in said
    assert "features.fft_samples 8000" in said
    fitting = Features(fft_samples=int(said.split()[-1]), num_bands=8)
    assert Spectra(ragged_store, fitting, CPU).frames_N.min() == 4000 // 512 + 1
