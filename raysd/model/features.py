"""Log-mel spectrograms, computed in batches on the device of the samples.

B clips of a batch, S samples, K bins of the Fourier transform, F mel bands, T frames.
"""

import warnings
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from raysd.errors import BadInput
from raysd.model._torchaudio import torchaudio
from raysd.settings import Settings

EPS = torch.finfo(torch.float32).eps
"""Added to the mel energies before the logarithm; for samples in -1 .. 1 it lies at about the rounding of 16 bits."""


class Features(Settings):
    """The log-mel spectrogram. The defaults are those of the official DCASE baselines except where said otherwise."""

    fft_samples: Annotated[int, Field(ge=16)] = 1024
    """Length of the Fourier transform (official baselines 2020 and 2022, BYOL-A)."""
    window_samples: Annotated[int, Field(ge=16)] = 1024
    """Length of the periodic Hann window; a shorter one than fft_samples is centred and padded with zeros."""
    hop_samples: Annotated[int, Field(ge=1)] = 512
    """Step from frame to frame (official baselines)."""
    num_bands: Annotated[int, Field(ge=1)] = 128
    """Mel bands (official baselines)."""
    low_hz: Annotated[float, Field(ge=0)] = 50.0
    """Lower edge of the lowest band. Our choice, as in PANNs and M2D; the official baselines start at 0 Hz."""
    high_hz: Annotated[float, Field(gt=0)] | None = None
    """Upper edge of the highest band. null: half the sampling rate (official baselines)."""
    mel_scale: Literal["slaney", "htk"] = "slaney"
    """Spacing of the bands: slaney (librosa's default, hence the official baselines') or htk (torchaudio's default)."""
    mel_norm: Literal["slaney"] | None = "slaney"
    """slaney: each triangle has unit area (librosa's default). null: each has unit height (torchaudio's default)."""
    power: Annotated[float, Field(gt=0)] = 2.0
    """Exponent of the magnitude before the mel bands; 2 is energy (official baselines)."""
    normalise: Literal["global", "band", "none"] = "global"
    """Mean and standard deviation over the training clips to subtract and to divide by: one pair (BYOL-A's pre-norm),
    one pair per band, or none."""

    @model_validator(mode="after")
    def _consistent(self) -> "Features":
        if self.window_samples > self.fft_samples:
            raise ValueError(f"window_samples ({self.window_samples}) is longer than fft_samples ({self.fft_samples})")
        if self.high_hz is not None and self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz ({self.low_hz:g}) must be below high_hz ({self.high_hz:g})")
        return self


class LogMel(torch.nn.Module):
    """Samples -> log-mel spectrogram, not normalised.

    Equal to the logarithm of torchaudio's MelSpectrogram and, with mel_scale and mel_norm "slaney", of librosa's
    melspectrogram (pad_mode="reflect").
    Raises BadInput where the settings do not fit the sampling rate.
    """

    window_W: Tensor
    bank_FK: Tensor
    band_hz_F: Tensor
    """Centre frequency of each band, in Hz, rising."""

    def __init__(self, features: Features, sample_rate_hz: int) -> None:
        super().__init__()
        self.features = features
        self.num_bands = features.num_bands
        bank_FK, band_hz_F = _mel_bank(features, sample_rate_hz)
        self.register_buffer("window_W", torch.hann_window(features.window_samples), persistent=False)
        self.register_buffer("bank_FK", bank_FK, persistent=False)
        self.register_buffer("band_hz_F", band_hz_F, persistent=False)

    def log_mel(self, x_BS: Tensor) -> Tensor:
        """(B, S) samples in -1 .. 1 -> (B, F, T) float32: natural logarithm of the mel energies, T = 1 + S // hop.

        Frames are centred on multiples of hop_samples; the clip is mirrored at its ends. Raises BadInput for clips
        that are too short to be mirrored.
        """
        features = self.features
        if x_BS.shape[-1] <= features.fft_samples // 2:
            raise BadInput(
                f"features.fft_samples: {features.fft_samples} is too long for a clip of {x_BS.shape[-1]} samples; "
                f"leave such clips out, or set it to at most {2 * (x_BS.shape[-1] - 1)}"
            )
        with torch.autocast(x_BS.device.type, enabled=False):  # in bfloat16 quiet bands would drown beside loud ones
            stft_BKT = torch.stft(
                x_BS.float(),
                n_fft=features.fft_samples,
                hop_length=features.hop_samples,
                win_length=features.window_samples,
                window=self.window_W,
                return_complex=True,
            )
            energy_BKT = stft_BKT.real.square() + stft_BKT.imag.square()
            if features.power != 2.0:
                energy_BKT = energy_BKT.pow(features.power / 2)
            return torch.log(self.bank_FK @ energy_BKT + EPS)


def _mel_bank(features: Features, sample_rate_hz: int) -> tuple[Tensor, Tensor]:
    """Weights (F, K) of the mel bands and their centres (F,) in Hz."""
    nyquist_hz = sample_rate_hz / 2
    high_hz = nyquist_hz if features.high_hz is None else features.high_hz
    if high_hz > nyquist_hz:
        raise BadInput(
            f"features.high_hz: {high_hz:g} is above half the sampling rate of {sample_rate_hz} Hz; "
            f"set it to at most {nyquist_hz:g}, or to null"
        )
    if features.low_hz >= high_hz:
        raise BadInput(f"features.low_hz: {features.low_hz:g} must be below the highest frequency, {high_hz:g} Hz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty bands, which are an error below
        bank_KF = torchaudio.functional.melscale_fbanks(
            n_freqs=features.fft_samples // 2 + 1,
            f_min=features.low_hz,
            f_max=high_hz,
            n_mels=features.num_bands,
            sample_rate=sample_rate_hz,
            norm=features.mel_norm,
            mel_scale=features.mel_scale,
        )
    empty = int((bank_KF.amax(dim=0) <= 0).sum())
    if empty:
        raise BadInput(
            f"features.num_bands: {empty} of {features.num_bands} mel bands from {features.low_hz:g} to {high_hz:g} Hz "
            f"hold no bin of {features.fft_samples} samples at {sample_rate_hz} Hz; lower features.num_bands or raise "
            "features.fft_samples"
        )
    mel = torchaudio.functional.functional
    low_mel, high_mel = (mel._hz_to_mel(hz, features.mel_scale) for hz in (features.low_hz, high_hz))
    centre_mel_F = torch.linspace(low_mel, high_mel, features.num_bands + 2)[1:-1]
    return bank_KF.T.contiguous(), mel._mel_to_hz(centre_mel_F, features.mel_scale)
