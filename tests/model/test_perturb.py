"""Perturbed copies: small, the same whenever they are made, and of the kind that they are called."""

import pytest
import torch
from torch import Tensor

from raysd.model.draws import Draws
from raysd.model.perturb import KINDS, perturb

BANDS, FRAMES, CLIPS = 64, 40, 12
BAND_HZ_F = torch.logspace(2, 3.9, BANDS)


@pytest.fixture
def spec_BFT() -> Tensor:
    """Quiet noise with a steady hum in band 20, and a loud impact every tenth frame."""
    spec_BFT = Draws(0, 0, torch.arange(CLIPS)).normal("clip", BANDS * FRAMES).view(CLIPS, BANDS, FRAMES) * 0.3 - 8
    spec_BFT[:, 20] += 4
    spec_BFT[:, :, ::10] += 3
    return spec_BFT


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_every_clip_a_little_and_always_alike(kind: str, spec_BFT: Tensor) -> None:
    before, clip_B = spec_BFT.clone(), torch.arange(CLIPS)
    changed = perturb(kind, spec_BFT, BAND_HZ_F, clip_B)
    assert torch.equal(spec_BFT, before)
    assert changed.shape == spec_BFT.shape
    assert bool(changed.isfinite().all())
    moved_B = (changed - spec_BFT).abs().flatten(1)
    assert bool((moved_B.mean(1) > 0.01).all())
    assert bool((moved_B.mean(1) < 1.5).all())
    alone = torch.cat([perturb(kind, spec_BFT[i : i + 1], BAND_HZ_F, clip_B[i : i + 1]) for i in range(CLIPS)])
    torch.testing.assert_close(alone, changed, rtol=0, atol=1e-5)
    other = perturb(kind, spec_BFT[:1], BAND_HZ_F, torch.tensor([99]))
    assert not torch.allclose(other, changed[:1])


def test_speed_moves_the_hum_to_a_frequency_2_to_5_percent_away(spec_BFT: Tensor) -> None:
    fine_hz_F = torch.linspace(1000, 2000, 501)  # 2 Hz a band
    hum_BFT = torch.full((CLIPS, 501, 3), -10.0)
    hum_BFT[:, 250] = 0.0
    moved_hz_B = fine_hz_F[perturb("speed", hum_BFT, fine_hz_F, torch.arange(CLIPS))[:, :, 0].argmax(1)]
    share_B = (moved_hz_B / 1500 - 1).abs()
    assert bool(((share_B > 0.018) & (share_B < 0.052)).all())


def test_a_resonance_is_4_to_6_decibels_at_its_peak_and_local(spec_BFT: Tensor) -> None:
    change_BFT = perturb("resonance", spec_BFT, BAND_HZ_F, torch.arange(CLIPS)) - spec_BFT
    peak_B = change_BFT[:, :, 0].abs().amax(1) / 0.2302585
    assert bool(((peak_B > 3.99) & (peak_B < 6.01)).all())
    assert bool((change_BFT[:, :, 0].abs().amin(1) < 0.05).all())


@pytest.mark.parametrize("kind", ["whistle", "hiss"])
def test_what_is_added_takes_nothing_away(kind: str, spec_BFT: Tensor) -> None:
    change_BFT = perturb(kind, spec_BFT, BAND_HZ_F, torch.arange(CLIPS)) - spec_BFT
    assert float(change_BFT.min()) > -1e-4
    if kind == "hiss":
        assert bool((change_BFT[:, 50:].mean((1, 2)) > 10 * change_BFT[:, :20].mean((1, 2))).all())


def test_weaker_lowers_the_impacts_alone(spec_BFT: Tensor) -> None:
    change_BFT = perturb("weaker", spec_BFT, BAND_HZ_F, torch.arange(CLIPS)) - spec_BFT
    impact_T = torch.arange(FRAMES) % 10 == 0
    assert bool((change_BFT[:, :, impact_T] < -0.6).all())
    assert float((change_BFT[:, :, ~impact_T] != 0).float().mean()) < 0.15
