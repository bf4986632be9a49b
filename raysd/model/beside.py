"""The log-mel of a clip pooled over time: embeddings without training, kept beside the trained one.

M clips, B of them at once, F bands, T frames.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from raysd.model.encoders import pool_time
from raysd.model.perturb import KINDS, perturb
from raysd.model.spectra import Spectra
from raysd.settings import Settings

_FRAMES_AT_ONCE = 8192  # about the memory of a training batch


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
    alike_M2 = torch.stack([spectra.frames_N[row_M.to(spectra.device)].cpu(), perturbation_M], 1)
    for frames, perturbation in alike_M2.unique(dim=0).tolist():  # clips of one length fit one tensor
        chosen_M = (alike_M2 == torch.tensor([frames, perturbation])).all(1).nonzero()[:, 0]
        for chosen_B in chosen_M.split(max(1, _FRAMES_AT_ONCE // frames)):
            row_B = row_M[chosen_B].to(spectra.device)
            spec_BFT = spectra.cut(row_B, torch.zeros_like(row_B), frames)
            if perturbation >= 0:
                spec_BFT = perturb(list(KINDS)[perturbation], spec_BFT, spectra.band_hz_F, row_B)
            found["mean"][chosen_B] = pool_time(spec_BFT, "mean", 1.0).cpu()
            found["loudest"][chosen_B] = pool_time(spec_BFT, "gwrp", settings.gwrp_decay).cpu()
    return found
