"""Log-mel spectrograms, computed in batches on the device of the samples: one with settings, and one that is fixed.

B clips of a batch, S samples, K bins of the Fourier transform, F mel bands, T frames.
"""

import math
import warnings
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from raysd.errors import BadInput
from raysd.model._torchaudio import torchaudio
from raysd.settings import Settings

Count = TypeVar("Count", int, np.ndarray)

EPS = torch.finfo(torch.float32).eps
"""Added to the mel energies before the logarithm; for samples in -1 .. 1 it lies at about the rounding of 16 bits."""


class Features(Settings):
    """The log-mel spectrogram. The defaults are those of the official DCASE baselines except where said otherwise."""

    front_end: Literal["log_mel", "efficientat"] = "log_mel"
    """log_mel: as the settings below say. efficientat: the fixed one that the AudioSet weights of the EfficientAT
    networks expect (32 kHz, to which clips of another rate are resampled, so that with 16 kHz all above 8 kHz is empty;
    128 bands from 0 to 15 kHz; 100 frames a second). Of the settings below only `normalise` is then read."""
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
    normalise: Literal["global", "band", "fixed", "none"] = "global"
    """Mean and standard deviation over the training clips to subtract and to divide by: one pair (BYOL-A's pre-norm),
    one pair per band, or none. fixed: the constants of front end efficientat, which its weights expect."""

    @model_validator(mode="after")
    def _consistent(self) -> "Features":
        if self.front_end == "efficientat":
            own = self.model_fields_set - {"front_end", "normalise"}
            changed = sorted(name for name in own if getattr(self, name) != type(self).model_fields[name].default)
            if changed:
                raise ValueError(f"front_end efficientat has its own {', '.join(changed)}; leave that out")
        elif self.normalise == "fixed":
            raise ValueError("normalise fixed needs front_end efficientat, whose constants it means")
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
        self.rate_hz, self.hop_samples = sample_rate_hz, features.hop_samples
        """Of the frames: a segment of one second has rate_hz / hop_samples of them."""
        bank_FK, band_hz_F = _mel_bank(features, sample_rate_hz)
        self.register_buffer("window_W", torch.hann_window(features.window_samples), persistent=False)
        self.register_buffer("bank_FK", bank_FK, persistent=False)
        self.register_buffer("band_hz_F", band_hz_F, persistent=False)

    @property
    def fewest_samples(self) -> int:
        """A clip has to have as many: shorter ones cannot be mirrored."""
        return self.features.fft_samples // 2 + 1

    def frames(self, samples: Count) -> Count:
        """T of clips of so many samples."""
        return samples // self.hop_samples + 1

    def log_mel(self, x_BS: Tensor) -> Tensor:
        """(B, S) samples in -1 .. 1 -> (B, F, T) float32: natural logarithm of the mel energies, T = frames(S).

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


class EfficientATMel(LogMel):
    """The front end of the EfficientAT networks (Schmid, Koutini, Widmer 2023), written from its description.

    32 kHz; pre-emphasis x[t] - 0.97 x[t-1], which takes one sample; 1024-point transforms of 800 samples under a
    symmetric Hann window, every 320 samples, centred; energies in 128 bands of Kaldi's from 0 to 15 kHz; log(e + 1e-5).
    """

    RATE_HZ, FFT, WINDOW, HOP, BANDS, HIGH_HZ, OFFSET = 32_000, 1024, 800, 320, 128, 15_000.0, 1e-5
    MEAN, STD = -4.5, 5.0
    """What the networks were trained with: (x - MEAN) / STD."""

    def __init__(self, features: Features, sample_rate_hz: int) -> None:
        torch.nn.Module.__init__(self)
        self.features = features
        self.num_bands = self.BANDS
        self.source_hz, self.rate_hz, self.hop_samples = sample_rate_hz, self.RATE_HZ, self.HOP
        # a filter so long that what lies above half of a lower rate is empty, and not a mirror image
        self.resample = torchaudio.transforms.Resample(sample_rate_hz, self.RATE_HZ, lowpass_filter_width=64)
        mel = torchaudio.compliance.kaldi
        bank_FK, _ = mel.get_mel_banks(self.BANDS, self.FFT, self.RATE_HZ, 0.0, self.HIGH_HZ, 100.0, -500.0, 1.0)
        top_mel = mel.mel_scale_scalar(self.HIGH_HZ)
        centre_mel_F = torch.linspace(mel.mel_scale_scalar(0.0), top_mel, self.BANDS + 2)[1:-1]
        window_W = torch.hann_window(self.WINDOW, periodic=False)
        self.register_buffer("window_W", window_W, persistent=False)
        self.register_buffer("bank_FK", torch.nn.functional.pad(bank_FK, (0, 1)), persistent=False)  # the topmost bin
        self.register_buffer("band_hz_F", mel.inverse_mel_scale(centre_mel_F), persistent=False)

    @property
    def fewest_samples(self) -> int:
        return math.ceil((self.FFT // 2 + 2) * self.source_hz / self.RATE_HZ)

    def frames(self, samples: Count) -> Count:
        resampled = -(-samples * self.RATE_HZ // self.source_hz)
        return (resampled - 1) // self.HOP + 1

    def log_mel(self, x_BS: Tensor) -> Tensor:
        if x_BS.shape[-1] < self.fewest_samples:
            raise BadInput(
                f"features.front_end efficientat: a clip of {x_BS.shape[-1]} samples is too short; "
                f"leave out those with fewer than {self.fewest_samples}"
            )
        with torch.autocast(x_BS.device.type, enabled=False):
            x_BS = self.resample(x_BS.float())
            x_BS = x_BS[:, 1:] - 0.97 * x_BS[:, :-1]
            stft_BKT = torch.stft(x_BS, self.FFT, self.HOP, self.WINDOW, self.window_W, return_complex=True)
            energy_BKT = stft_BKT.real.square() + stft_BKT.imag.square()
            return torch.log(self.bank_FK @ energy_BKT + self.OFFSET)


def build_front_end(features: Features, sample_rate_hz: int) -> LogMel:
    """The front end that the settings name, for clips of a sampling rate. Raises BadInput as they do."""
    return (EfficientATMel if features.front_end == "efficientat" else LogMel)(features, sample_rate_hz)


def num_bands(features: Features) -> int:
    """Mel bands of the front end that the settings name."""
    return EfficientATMel.BANDS if features.front_end == "efficientat" else features.num_bands


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
