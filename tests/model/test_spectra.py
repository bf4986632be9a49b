"""The log-mel frames of a store's clips: cuts, statistics, and both ways to come by them.

B items, F bands, T frames, S samples.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from raysd.data.store import Data, Store, open_store
from raysd.errors import BadInput
from raysd.model import spectra as spectra_module
from raysd.model.features import Features, LogMel
from raysd.model.spectra import Spectra

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
def computed(ragged_store: Store, monkeypatch: pytest.MonkeyPatch) -> Spectra:
    """The same where nothing fits in memory."""
    monkeypatch.setattr(spectra_module, "KEPT_BYTES", 0)
    return Spectra(ragged_store, FEATURES, CPU)


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


def test_what_is_not_kept_is_computed_to_the_same_numbers(kept: Spectra, computed: Spectra) -> None:
    rows, starts = torch.tensor([5, 0, 5, 17, 2]), torch.tensor([0, 3, 6, 1, 20])
    torch.testing.assert_close(computed.cut(rows, starts, 9), kept.cut(rows, starts, 9), rtol=0, atol=1e-5)
    for per_band in (False, True):
        for a, b in zip(kept.statistics([0, 5, 8], per_band), computed.statistics([0, 5, 8], per_band), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_what_fits_is_not_computed_again(kept: Spectra, ragged_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ragged_store, "waveforms", lambda *_: pytest.fail("read the audio"))
    kept.cut(torch.tensor([3]), torch.tensor([0]), 4)


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
