"""The log-mel of a clip pooled over time: embeddings without training, kept beside the trained one.

M clips, B of them at once, F bands, T frames.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from raysd.model.encoders import pool_time
from raysd.model.perturb import alike, perturb
from raysd.model.spectra import FRAMES_AT_ONCE, Spectra
from raysd.settings import Settings


class Beside(Settings):
    """Two embeddings that need no training, for scoring.name fusion: each band's mean over time, and its loudest
    frames. They are those of the classical detectors: of raw log-mels, whatever features.normalise says."""

    gwrp_decay: Annotated[float, Field(ge=0, le=1)] = 0.5
    """For the loudest frames: weight of a frame relative to the next louder one of its band."""


@torch.no_grad()
def pooled(settings: Beside, spectra: Spectra, row_M: Tensor, perturbation_M: Tensor) -> dict[str, Tensor]:
    """`mean` and `loudest`, each (M, F) float32 on the CPU, of the whole clips in rows `row_M`.

    `perturbation_M` (int64): where it is not negative, of a copy of the clip perturbed in the kind of that number.
    """
    found = {name: torch.empty(len(row_M), spectra.log_mel.num_bands) for name in ("mean", "loudest")}
    frames_M = spectra.frames_N[row_M.to(spectra.device)].cpu()
    for frames, kind, places in alike(frames_M, perturbation_M):
        for chosen_B in places.split(max(1, FRAMES_AT_ONCE // frames)):
            row_B = row_M[chosen_B].to(spectra.device)
            spec_BFT = spectra.cut(row_B, torch.zeros_like(row_B), frames)
            if kind:
                spec_BFT = perturb(kind, spec_BFT, spectra.band_hz_F, row_B)
            found["mean"][chosen_B] = pool_time(spec_BFT, "mean", 1.0).cpu()
            found["loudest"][chosen_B] = pool_time(spec_BFT, "gwrp", settings.gwrp_decay).cpu()
    return found
