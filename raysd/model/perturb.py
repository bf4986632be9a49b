"""Perturbed copies of normal clips: small changes to a log-mel that a detector should notice, made without any anomaly.

Each is a rough likeness of a fault: a machine that runs at another speed, a body that resonates otherwise, a whistle, a
hiss, impacts that have become weaker. What is drawn depends on the clip alone, so that all recipes of a search are
judged on the same copies. Kinds and strengths are our own choice; how well they rank recipes is for the report of a
search to show.

B clips (or segments of them), F bands, T frames; log-mel in natural logarithm of the energy.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from raysd.model.draws import Draws

_DB = math.log(10) / 10  # of energy, in natural logarithm


def _speed(spec_BFT: Tensor, band_hz_F: Tensor, draws: Draws) -> Tensor:
    """All frequencies higher or lower by 2 to 5 %."""
    sign_B1 = torch.where(draws.uniform("speed.sign") < 0.5, -1.0, 1.0)
    factor_B1 = 1 + sign_B1 * draws.uniform("speed.share", 1, 0.02, 0.05)
    from_BF = band_hz_F / factor_B1
    right_BF = torch.searchsorted(band_hz_F, from_BF.contiguous()).clamp(1, len(band_hz_F) - 1)
    low_BF, high_BF = band_hz_F[right_BF - 1], band_hz_F[right_BF]
    share_BF1 = ((from_BF - low_BF) / (high_BF - low_BF)).clamp(0, 1)[:, :, None]
    at_BFT = right_BF[:, :, None].expand_as(spec_BFT)
    return spec_BFT.gather(1, at_BFT - 1) * (1 - share_BF1) + spec_BFT.gather(1, at_BFT) * share_BF1


def _resonance(spec_BFT: Tensor, band_hz_F: Tensor, draws: Draws) -> Tensor:
    """An octave raised or lowered by 4 to 6 dB."""
    sign_B1 = torch.where(draws.uniform("resonance.sign") < 0.5, -1.0, 1.0)
    gain_B1 = sign_B1 * draws.uniform("resonance.gain", 1, 4, 6) * _DB
    return spec_BFT + (gain_B1 * _bump(band_hz_F, draws, "resonance", width_octaves=1.0))[:, :, None]


def _whistle(spec_BFT: Tensor, band_hz_F: Tensor, draws: Draws) -> Tensor:
    """A steady narrow band as strong as what is there at most times."""
    usual_BF1 = spec_BFT.median(dim=2, keepdim=True).values
    bump_BF = _bump(band_hz_F, draws, "whistle", width_octaves=0.1)
    return torch.logaddexp(spec_BFT, usual_BF1 + bump_BF.clamp(min=1e-6).log()[:, :, None])


def _hiss(spec_BFT: Tensor, band_hz_F: Tensor, draws: Draws) -> Tensor:
    """Noise in the upper bands, at half the energy that is there at most times."""
    top = float(band_hz_F[-1])
    from_B1 = draws.uniform("hiss.from", 1, 0.4, 0.6) * top
    above_BF1 = torch.sigmoid(8 * torch.log2(band_hz_F / from_B1))[:, :, None]
    frames = spec_BFT.shape[2]
    energy_B1T = -torch.log1p(-draws.uniform("hiss.energy", frames))[:, None, :]  # exponential, as of one bin's noise
    usual_BF1 = spec_BFT.median(dim=2, keepdim=True).values
    return torch.logaddexp(spec_BFT, usual_BF1 + torch.log(0.5 * above_BF1 * energy_B1T + 1e-9))


def _weaker(spec_BFT: Tensor, band_hz_F: Tensor, draws: Draws) -> Tensor:
    """The loudest tenth to fifth of the frames lower by 3 to 6 dB."""
    loudness_BT = spec_BFT.logsumexp(1)
    share_B1 = draws.uniform("weaker.share", 1, 0.1, 0.2)
    rank_BT = loudness_BT.argsort(1, descending=True).argsort(1)
    loud_BT = rank_BT < share_B1 * spec_BFT.shape[2]
    cut_B1 = draws.uniform("weaker.cut", 1, 3, 6) * _DB
    return spec_BFT - (loud_BT * cut_B1)[:, None, :]


KINDS: dict[str, Callable[[Tensor, Tensor, Draws], Tensor]] = {
    "speed": _speed,
    "resonance": _resonance,
    "whistle": _whistle,
    "hiss": _hiss,
    "weaker": _weaker,
}
"""Every kind of perturbation, by name."""


def perturb(kind: str, spec_BFT: Tensor, band_hz_F: Tensor, clip_B: Tensor) -> Tensor:
    """A perturbed copy (B, F, T) of raw log-mels; `clip_B` (int64) names the clips, and so decides what is drawn."""
    return KINDS[kind](spec_BFT, band_hz_F.to(spec_BFT.device), Draws(0, 0, clip_B))


def alike(frames_M: Tensor, perturbation_M: Tensor) -> Iterator[tuple[int, str, Tensor]]:
    """Clips that fit one tensor: their number of frames, the kind of their perturbation ("": none), and their places.

    `perturbation_M` (int64) is the number of a kind, negative for none.
    """
    both_M2 = torch.stack([frames_M, perturbation_M], 1)
    for frames, number in both_M2.unique(dim=0).tolist():
        places = (both_M2 == torch.tensor([frames, number])).all(1).nonzero()[:, 0]
        yield frames, list(KINDS)[number] if number >= 0 else "", places


def _bump(band_hz_F: Tensor, draws: Draws, stream: str, width_octaves: float) -> Tensor:
    """(B, F): 1 at a frequency drawn evenly by octave over the middle bands, half of it at the edges of the width."""
    count = len(band_hz_F)
    low, high = float(band_hz_F[count // 10]), float(band_hz_F[(count * 9) // 10])
    centre_B1 = low * (high / low) ** draws.uniform(f"{stream}.centre")
    nearest_B1 = band_hz_F[(band_hz_F.log2() - centre_B1.log2()).abs().argmin(1, keepdim=True)]  # never between bands
    octaves_BF = (band_hz_F / nearest_B1).log2()
    return torch.exp2(-((2 * octaves_BF / width_octaves) ** 2))
