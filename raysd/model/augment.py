"""Augmentations of normalised log-mel spectrograms: batched, on the device, random by (seed, epoch, item, view) alone.

B items of a batch, F mel bands, T frames, N masks, U bands above a cutoff, H rows of an interpolation
(R of a batch, each W wide).

Each augmentation is a class whose fields are its settings and whose call applies it; `Augment` names them in the order
in which they are applied. To add one, write its class and give it a line there.
"""

import math
import typing
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor
from torch.nn import functional

from raysd.model.draws import Draws
from raysd.settings import Settings

EPS = torch.finfo(torch.float32).eps
"""BYOL-A's guard against the logarithm of zero."""


def _low_high(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= pair[0] <= pair[1]:
        raise ValueError(f"a range is written [low, high] with 0 <= low <= high, not [{pair[0]:g}, {pair[1]:g}]")
    return pair


Range = Annotated[tuple[float, float], AfterValidator(_low_high)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class AugmentBatch:
    """What an augmentation may know of the batch beside its spectrograms."""

    draws: Draws
    """The random numbers of these items in this view. Streams are named after the augmentation."""
    partner: Callable[[str], Tensor]
    """Stream name -> (B, F, T): clips drawn from the whole training set, normalised like the batch itself."""
    band_hz_F: Tensor
    """Centre frequency of each band, rising. On the CPU it costs no wait for an accelerator."""


class Augmentation(Settings):
    """One augmentation. It depends on an item and its draws alone, never on the rest of the batch."""

    @abstractmethod
    def __call__(self, spec_BFT: Tensor, batch: AugmentBatch) -> Tensor:
        """(B, F, T) -> (B, F, T), the same type and device; the input is left as it is."""

    @classmethod
    def tiny(cls) -> typing.Self:
        """Settings for tests on small spectrograms: always changes its input, and differently in each view."""
        return cls()


class TimeShift(Augmentation):
    """Rolls a segment in time, circularly, by a random number of frames. Our choice throughout."""

    max_share: Annotated[float, Field(gt=0, le=0.5)] = 0.5
    """Largest shift to either side, as a share of the segment; at 0.5 every rotation is equally likely."""

    def __call__(self, spec_BFT: Tensor, batch: AugmentBatch) -> Tensor:
        frames = spec_BFT.shape[2]
        shift_B1 = batch.draws.uniform("time_shift", 1, -self.max_share, self.max_share).mul(frames).round().long()
        index_BT = (torch.arange(frames, device=spec_BFT.device) - shift_B1) % frames
        return spec_BFT.gather(2, index_BT[:, None, :].expand_as(spec_BFT))


class HighFrequency(Augmentation):
    """Changes what lies above a cutoff and leaves what lies below it bit for bit ("spectrum information augmentation").

    The idea is of Meng et al. (doi 10.1145/3663976.3664242): anomalies and noise often lie at higher frequencies than
    normal operation. Where and how they change the spectrum, and the cutoffs, could not be found; all of it here is our
    choice. With w the weight of a band (0 up to the cutoff, see edge_octaves), s the strength of an item, drawn
    uniformly from `strength`, x the normalised log-mel and n standard normal in each band and frame:

    - noise: x + w s n; s in standard deviations of the normalised log-mel
    - gain: x + w s or x - w s, with even chances, over the whole segment (a shelf filter); s in the same unit
    - mask: (1 - w s) x; s is the share by which it is drawn to 0, the mean of the training clips; at most 1
    - mix: log((1 - w s) exp(x) + w s exp(z)) with z another training clip (log-mixup-exp); s is its share, at most 1
    """

    cutoff_hz: Annotated[float, Field(gt=0)] = 2000.0
    """Bands whose centre is at or below this frequency never change."""
    mode: Literal["noise", "gain", "mask", "mix"] = "noise"
    """What happens above the cutoff."""
    edge_octaves: Annotated[float, Field(ge=0)] = 0.5
    """The weight rises from 0 at the cutoff to 1 this many octaves higher, as a raised cosine over log frequency. 0: a
    step."""
    strength: Range = (0.0, 1.0)
    """Range of the strength, in the unit of the mode."""
    probability: Share = 1.0
    """Share of the views that are changed."""

    @model_validator(mode="after")
    def _shares(self) -> "HighFrequency":
        if self.mode in ("mask", "mix") and self.strength[1] > 1:
            raise ValueError(f"strength is a share of at most 1 in mode '{self.mode}', not {self.strength[1]:g}")
        return self

    def __call__(self, spec_BFT: Tensor, batch: AugmentBatch) -> Tensor:
        weight_F = self.weight(batch.band_hz_F)
        first = int((weight_F == 0).sum())  # bands rise in frequency, so those that change are the last ones
        if first == len(weight_F):
            return spec_BFT
        x_BUT = spec_BFT[:, first:]
        draws = batch.draws
        strength_B1 = draws.uniform("high_frequency.strength", 1, *self.strength)
        amount_BU1 = (strength_B1 * weight_F[first:].to(x_BUT.device))[:, :, None]
        match self.mode:
            case "noise":
                # counted from the highest band, so that a band gets the same noise whatever the cutoff
                noise_BUT = draws.normal("high_frequency.noise", math.prod(x_BUT.shape[1:])).view_as(x_BUT)
                changed_BUT = noise_BUT.mul_(amount_BU1.flip(1)).flip(1).add_(x_BUT)
            case "gain":
                sign_B11 = draws.uniform("high_frequency.sign")[:, :, None].lt(0.5) * 2 - 1
                changed_BUT = x_BUT + amount_BU1 * sign_B11
            case "mask":
                changed_BUT = x_BUT * (1 - amount_BU1)
            case "mix":
                z_BUT = batch.partner("high_frequency.partner")[:, first:]
                changed_BUT = _log_mixup_exp(x_BUT, z_BUT, amount_BU1)
        if self.probability < 1:
            on_B11 = (draws.uniform("high_frequency.on") < self.probability)[:, :, None]
            changed_BUT = torch.where(on_B11, changed_BUT, x_BUT)
        return torch.cat([spec_BFT[:, :first], changed_BUT], dim=1)

    def weight(self, band_hz_F: Tensor) -> Tensor:
        """(F,) in 0 .. 1: how much each band takes part."""
        octaves_F = torch.log2(band_hz_F / self.cutoff_hz)
        if self.edge_octaves == 0:
            return (octaves_F > 0).to(band_hz_F.dtype)
        return 0.5 - 0.5 * torch.cos(torch.pi * (octaves_F / self.edge_octaves).clamp(0, 1))

    @classmethod
    def tiny(cls) -> typing.Self:
        return cls(cutoff_hz=500.0, strength=(0.5, 1.0))


class LogMixupExp(Augmentation):
    """Adds another clip as background: log((1 - a) exp(x) + a exp(z) + eps) with a uniform in [0, alpha) (BYOL-A).

    As in BYOL-A it works on the normalised log-mel, so exp() is of a z-score and not of an energy. BYOL-A draws z from
    a memory bank of the last 2048 clips of one process; here z comes from the whole training set.
    """

    alpha: Share = 0.4
    """Largest share of the other clip (BYOL-A v1; v2 has 0.2)."""

    def __call__(self, spec_BFT: Tensor, batch: AugmentBatch) -> Tensor:
        share_B11 = batch.draws.uniform("log_mixup_exp.share", 1, 0.0, self.alpha)[:, :, None]
        return _log_mixup_exp(spec_BFT, batch.partner("log_mixup_exp.partner"), share_B11)


class RandomResizeCrop(Augmentation):
    """Crops a random box and resizes it to the full size, bicubically: shifts and stretches in pitch and time (BYOL-A).

    The segment lies centred on a canvas of zeros, `virtual_crop_scale` times its size. The box has
    floor(U(freq_scale) F) bands and floor(U(time_scale) T) frames, at least 1 and at most the canvas, and lies anywhere
    on the canvas. Equal to torch's interpolate(mode="bicubic", align_corners=True) of each crop.
    """

    virtual_crop_scale: tuple[Annotated[float, Field(ge=1)], Annotated[float, Field(ge=1)]] = (1.0, 1.5)
    """Size of the canvas in bands and in frames, as multiples of the segment's (BYOL-A)."""
    freq_scale: Range = (0.6, 1.5)
    """Range of the box's height, as a share of the bands (BYOL-A)."""
    time_scale: Range = (0.6, 1.5)
    """Range of the box's width, as a share of the frames (BYOL-A)."""

    def __call__(self, spec_BFT: Tensor, batch: AugmentBatch) -> Tensor:
        bands, frames = spec_BFT.shape[1:]
        size_B2 = batch.draws.uniform("random_resize_crop.size", 2)
        place_B2 = batch.draws.uniform("random_resize_crop.place", 2)
        canvas = (int(bands * self.virtual_crop_scale[0]), int(frames * self.virtual_crop_scale[1]))
        band_taps = _crop_and_resize(bands, canvas[0], self.freq_scale, size_B2[:, 0], place_B2[:, 0])
        frame_taps = _crop_and_resize(frames, canvas[1], self.time_scale, size_B2[:, 1], place_B2[:, 1])
        in_time_BTF = _weighted_sums(spec_BFT.transpose(1, 2), *frame_taps)
        return _weighted_sums(in_time_BTF.transpose(1, 2), *band_taps)


class SpecMask(Augmentation):
    """Hides random bands and frames (SpecAugment, Park et al. 2019, without its time warping).

    Each mask's width is uniform from 0 to the largest, its place uniform over the segment. Masked values become 0, the
    mean of the training clips. Masks may overlap.
    """

    frequency_masks: Annotated[int, Field(ge=0)] = 1
    """Number of masks over bands (SpecAugment's LibriSpeech basic policy)."""
    max_bands: Annotated[int, Field(ge=1)] = 27
    """Largest width of a mask over bands (the same policy, there of 80 bands)."""
    time_masks: Annotated[int, Field(ge=0)] = 1
    """Number of masks over frames (the same policy)."""
    max_frames: Annotated[int, Field(ge=1)] = 12
    """Largest width of a mask over frames. Our choice: a fifth of the default segment; the policy's 100 frames of 10 ms
    would hide half of it."""

    def __call__(self, spec_BFT: Tensor, batch: AugmentBatch) -> Tensor:
        bands, frames = spec_BFT.shape[1:]
        band_BF = _masked(batch.draws, "spec_mask.frequency", self.frequency_masks, self.max_bands, bands)
        frame_BT = _masked(batch.draws, "spec_mask.time", self.time_masks, self.max_frames, frames)
        return (spec_BFT * (~band_BF[:, :, None]).float()).mul_((~frame_BT[:, None, :]).float())

    @classmethod
    def tiny(cls) -> typing.Self:
        return cls(frequency_masks=3, max_bands=6, time_masks=3, max_frames=6)


class LinearFader(Augmentation):
    """Fades in or out: adds a line over time whose two ends are uniform in [-gain, gain) (BYOL-A v2).

    As in BYOL-A v2 it works on the normalised log-mel, so the gain is in standard deviations.
    """

    gain: Annotated[float, Field(gt=0)] = 1.0
    """Largest change at either end (BYOL-A v2)."""

    def __call__(self, spec_BFT: Tensor, batch: AugmentBatch) -> Tensor:
        ends_B2 = batch.draws.uniform("linear_fader", 2, -self.gain, self.gain)
        ramp_T = torch.linspace(0, 1, spec_BFT.shape[2], device=spec_BFT.device)
        line_BT = torch.lerp(ends_B2[:, :1], ends_B2[:, 1:], ramp_T)
        return spec_BFT + line_BT[:, None, :]


class Augment(Settings):
    """The augmentations of a view, applied in this order; null: off. `{}` switches one on with its defaults."""

    time_shift: TimeShift | None = None
    high_frequency: HighFrequency | None = None
    log_mixup_exp: LogMixupExp | None = None
    random_resize_crop: RandomResizeCrop | None = None
    spec_mask: SpecMask | None = None
    linear_fader: LinearFader | None = None


AUGMENTATIONS: dict[str, type[Augmentation]] = {
    name: typing.get_args(field.annotation)[0] for name, field in Augment.model_fields.items()
}


def apply(augment: Augment, spec_BFT: Tensor, batch: AugmentBatch) -> Tensor:
    """One view (B, F, T) of normalised log-mel spectrograms (B, F, T), in float32 even under autocast."""
    with torch.autocast(spec_BFT.device.type, enabled=False):
        for name in AUGMENTATIONS:
            augmentation = getattr(augment, name)
            if augmentation is not None:
                spec_BFT = augmentation(spec_BFT, batch)
    return spec_BFT


def _log_mixup_exp(x: Tensor, z: Tensor, share: Tensor) -> Tensor:
    # in place: fresh memory costs a CPU more than the arithmetic
    return x.exp().mul_(1 - share).add_(z.exp().mul_(share)).add_(EPS).log_()


def _masked(draws: Draws, stream: str, masks: int, longest: int, length: int) -> Tensor:
    """(B, length) bool: what `masks` random intervals, each of 0 to `longest` positions, cover."""
    width_BN = (draws.uniform(f"{stream}.width", masks) * (min(longest, length) + 1)).long()
    start_BN = (draws.uniform(f"{stream}.start", masks) * (length - width_BN + 1)).long()
    position = torch.arange(length, device=width_BN.device)
    inside = (position >= start_BN[:, :, None]) & (position < (start_BN + width_BN)[:, :, None])
    return inside.any(dim=1)


def _crop_and_resize(length: int, canvas: int, scale: Range, size_B: Tensor, place_B: Tensor) -> tuple[Tensor, Tensor]:
    """(4, B, H), twice, with H = length: which four inputs make each output of an axis, and their weights.

    They crop the axis on its canvas and resize it back, as torch's interpolate does: Keys' kernel with a = -0.75,
    positions beyond the crop's border moved to the border. Canvas outside the input is zero: its weights are.
    """
    low, high = scale
    crop_B1 = ((low + (high - low) * size_B) * length).int().clamp(1, canvas)[:, None]
    start_B1 = (place_B[:, None] * (canvas - crop_B1 + 1)).int()
    step_B1 = (crop_B1 - 1) / max(length - 1, 1)
    at_BH = torch.arange(length, device=size_B.device) * step_B1
    floor_BH = at_BH.floor()
    tap_411 = torch.arange(-1, 3, dtype=torch.int32, device=size_B.device)[:, None, None]
    distance_4BH = (at_BH - floor_BH - tap_411).abs()
    near_2BH, far_2BH = distance_4BH[1:3], distance_4BH[::3]
    weight_4BH = torch.empty_like(distance_4BH)
    weight_4BH[1:3] = (1.25 * near_2BH - 2.25) * near_2BH.square() + 1
    weight_4BH[::3] = -0.75 * (((far_2BH - 5) * far_2BH + 8) * far_2BH - 4)
    index_4BH = (floor_BH.int() + tap_411).clamp_(min=0).minimum(crop_B1 - 1)
    index_4BH += start_B1 - (canvas - length) // 2
    weight_4BH *= (index_4BH >= 0) & (index_4BH < length)
    index_4BH.clamp_(0, length - 1)
    # a position named twice, at a border, has one weight: it is multiplied once, and rounded once
    for tap in (1, 2, 3):
        twice_BH = index_4BH[tap] == index_4BH[tap - 1]
        weight_4BH[tap] += weight_4BH[tap - 1] * twice_BH
        weight_4BH[tap - 1] *= ~twice_BH
    return index_4BH, weight_4BH


def _weighted_sums(x_BHW: Tensor, index_4BH: Tensor, weight_4BH: Tensor) -> Tensor:
    """(B, H, W): each row the weighted sum of four rows of x."""
    first_B1 = (torch.arange(len(x_BHW), dtype=torch.int32, device=x_BHW.device) * x_BHW.shape[1])[:, None]
    row_R4, weight_R4 = (index_4BH + first_B1).flatten(1).T.contiguous(), weight_4BH.flatten(1).T.contiguous()
    rows_RW = x_BHW.flatten(0, 1)  # a copy where the rows are columns in memory
    return functional.embedding_bag(row_R4, rows_RW, per_sample_weights=weight_R4, mode="sum").view_as(x_BHW)
