"""The log-mel spectrogram equals torchaudio's, and its settings are checked."""

import math
import warnings
from typing import Any

import pytest
import torch

from raysd.errors import BadInput
from raysd.model._torchaudio import torchaudio
from raysd.model.features import EPS, Features, LogMel
from raysd.settings import parse


@pytest.fixture
def x_BS() -> torch.Tensor:
    return torch.randn(3, 8000, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.mark.parametrize(
    ("settings", "rate_hz"),
    [
        ({}, 16000),
        ({"mel_scale": "htk", "mel_norm": None, "num_bands": 64, "low_hz": 60, "high_hz": 7800}, 16000),
        ({"fft_samples": 2048, "window_samples": 1200, "hop_samples": 320, "power": 1.0}, 32000),
    ],
)
def test_equals_torchaudio(x_BS: torch.Tensor, settings: dict[str, Any], rate_hz: int):
    features = Features(**settings)
    reference = torchaudio.transforms.MelSpectrogram(
        sample_rate=rate_hz,
        n_fft=features.fft_samples,
        win_length=features.window_samples,
        hop_length=features.hop_samples,
        f_min=features.low_hz,
        f_max=features.high_hz,
        n_mels=features.num_bands,
        power=features.power,
        norm=features.mel_norm,
        mel_scale=features.mel_scale,
    )
    spec_BFT = LogMel(features, rate_hz).log_mel(x_BS)
    assert spec_BFT.shape == (3, features.num_bands, 1 + 8000 // features.hop_samples)
    torch.testing.assert_close(spec_BFT, torch.log(reference(x_BS) + EPS), rtol=0, atol=1e-4)


def test_slaney_bank_is_slaneys():
    """librosa's default bank by hand: 3 f / 200 mel up to 1 kHz, then 27 for a factor of 6.4; unit-area triangles."""
    log_mel = LogMel(Features(low_hz=0, high_hz=8000), 16000)
    top_mel = 15 + 27 * math.log(8) / math.log(6.4)
    mel = torch.linspace(0, top_mel, 130, dtype=torch.float64)
    hz = torch.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    left, centre, right = hz[:-2, None], hz[1:-1, None], hz[2:, None]
    bin_hz = torch.arange(513, dtype=torch.float64) * 16000 / 1024
    rise, fall = (bin_hz - left) / (centre - left), (right - bin_hz) / (right - centre)
    bank_FK = torch.minimum(rise, fall).clamp(min=0) * 2 / (right - left)
    torch.testing.assert_close(log_mel.bank_FK, bank_FK.float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(log_mel.band_hz_F, centre[:, 0].float(), rtol=1e-5, atol=0)


def test_a_tone_is_loudest_in_its_band():
    log_mel = LogMel(Features(mel_norm=None), 16000)
    tone_S = torch.sin(2 * torch.pi * 3000 * torch.arange(16000) / 16000)
    loudest = log_mel.log_mel(tone_S[None])[0].mean(dim=1).argmax()
    assert abs(float(log_mel.band_hz_F[loudest]) - 3000) < 60


def test_silence_is_the_logarithm_of_eps():
    spec_BFT = LogMel(Features(), 16000).log_mel(torch.zeros(2, 8000))
    torch.testing.assert_close(spec_BFT, torch.full((2, 128, 16), EPS).log())


def test_a_clip_gives_the_same_alone_and_in_a_batch(x_BS: torch.Tensor):
    log_mel = LogMel(Features(), 16000)
    torch.testing.assert_close(log_mel.log_mel(x_BS[1:2])[0], log_mel.log_mel(x_BS)[1], rtol=0, atol=1e-5)


def test_autocast_does_not_reach_the_spectrogram(x_BS: torch.Tensor):
    log_mel = LogMel(Features(), 16000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = log_mel.log_mel(x_BS)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, log_mel.log_mel(x_BS))


def test_half_precision_samples_are_computed_in_float32(x_BS: torch.Tensor):
    log_mel = LogMel(Features(), 16000)
    assert torch.equal(log_mel.log_mel(x_BS.half()), log_mel.log_mel(x_BS.half().float()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"low_hz": 4000, "high_hz": 1000}, ["low_hz (4000)", "high_hz (1000)"]),
        ({"window_samples": 2048}, ["window_samples (2048)", "fft_samples (1024)"]),
        ({"mel_scale": "slany"}, ["mel_scale", "did you mean 'slaney'"]),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], words: list[str]):
    with pytest.raises(BadInput) as error:
        parse(Features, settings, "recipe.yaml")
    assert all(word in str(error.value) for word in ["recipe.yaml", *words])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"high_hz": 9000}, ["features.high_hz", "9000", "8000"]),
        ({"low_hz": 8000}, ["features.low_hz", "8000"]),
        ({"num_bands": 512}, ["num_bands", "of 512 mel bands", "fft_samples"]),
    ],
)
def test_settings_that_do_not_fit_the_rate_are_refused(settings: dict[str, Any], words: list[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadInput) as error:
            LogMel(Features(**settings), 16000)
    assert all(word in str(error.value) for word in words)


def test_a_clip_too_short_to_be_mirrored_is_refused():
    log_mel = LogMel(Features(), 16000)
    assert log_mel.log_mel(torch.zeros(1, 513)).shape == (1, 128, 2)
    with pytest.raises(BadInput, match=r"features\.fft_samples"):
        log_mel.log_mel(torch.zeros(1, 512))
