"""MobileNetV3 and its front end against the original implementation's numbers, and against its tables."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from raysd.errors import BadInput
from raysd.model.encoding import build_encoder
from raysd.model.features import EfficientATMel, Features, build_front_end
from raysd.model.mobilenet_v3 import MobileNetV3
from raysd.model.pretrained import Weights, load
from raysd.recipe import Recipe
from raysd.settings import parse

EFFICIENTAT = Features(front_end="efficientat", normalise="fixed")
TOLERANCE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module")
def golden(shared_dir: Path) -> dict[str, Tensor]:
    with np.load(shared_dir / "weights" / "mn04_as_golden.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> dict[str, Tensor]:
    return torch.load(shared_dir / "weights" / "mn04_as_mAP_432.pt", weights_only=True)


def normalised(samples_BS: Tensor, rate_hz: int) -> Tensor:
    log_mel = build_front_end(EFFICIENTAT, rate_hz).log_mel(samples_BS)
    return (log_mel - EfficientATMel.MEAN) / EfficientATMel.STD


def test_front_end_gives_the_original_log_mel(golden: dict[str, Tensor]) -> None:
    torch.testing.assert_close(normalised(golden["waveform_32k"][None], 32_000), golden["logmel"], **TOLERANCE)
    bank_FK = build_front_end(EFFICIENTAT, 32_000).bank_FK
    torch.testing.assert_close(bank_FK, golden["mel_basis"], **TOLERANCE)


def test_published_weights_give_the_original_embedding_and_logits(
    golden: dict[str, Tensor], published: dict[str, Tensor]
) -> None:
    encoder = build_encoder(MobileNetV3(width=0.4), 128, seed=0).eval()
    report = load(encoder, Weights("mn04_as", published, ("classifier.",)), EFFICIENTAT, (), partial=False)
    assert (len(report.loaded), len(report.unused), report.problems) == (308, 4, [])
    with torch.no_grad():
        z_BD = encoder(normalised(golden["waveform_32k"][None], 32_000))
    torch.testing.assert_close(z_BD, golden["embedding"], **TOLERANCE)
    hidden = torch.nn.functional.hardswish(
        z_BD @ published["classifier.2.weight"].T + published["classifier.2.bias"]
    )  # the tagging head, which no encoder needs
    logits = hidden @ published["classifier.5.weight"].T + published["classifier.5.bias"]
    torch.testing.assert_close(logits, golden["logits"], **TOLERANCE)


@pytest.mark.parametrize(("width", "embedding"), [(0.4, 384), (0.5, 480), (1.0, 960), (2.0, 1920), (4.0, 3840)])
def test_embedding_of_each_published_width(width: float, embedding: int) -> None:
    with torch.device("meta"):
        assert build_encoder(MobileNetV3(width=width), 128, seed=0).embedding_dim == embedding


@pytest.mark.parametrize("rate_hz", [16_000, 32_000, 44_100])
def test_number_of_frames_is_known_beforehand(rate_hz: int) -> None:
    front_end = build_front_end(EFFICIENTAT, rate_hz)
    for samples in (front_end.fewest_samples, front_end.fewest_samples + 1, 12_345, rate_hz):
        assert front_end.log_mel(torch.randn(1, samples)).shape == (1, 128, front_end.frames(samples))
    with pytest.raises(BadInput, match=f"fewer than {front_end.fewest_samples}"):
        front_end.log_mel(torch.randn(1, front_end.fewest_samples - 1))


def test_tone_lands_in_its_band_whatever_the_rate_and_above_half_the_rate_there_is_nothing() -> None:
    for rate_hz in (16_000, 32_000):
        front_end = build_front_end(EFFICIENTAT, rate_hz)
        tone_S = torch.sin(2 * torch.pi * 3000 * torch.arange(rate_hz) / rate_hz)
        spec_FT = front_end.log_mel(0.5 * tone_S[None])[0]
        loudest = int(spec_FT[:, 20:80].mean(1).argmax())
        assert abs(float(front_end.band_hz_F[loudest]) - 3000) < 150
    noise_BS = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(1))
    front_end = build_front_end(EFFICIENTAT, 16_000)
    spec_F = front_end.log_mel(noise_BS)[0][:, 10:-10].mean(1)
    inside = spec_F[(front_end.band_hz_F > 1000) & (front_end.band_hz_F < 7500)].min()
    assert inside - spec_F[front_end.band_hz_F > 9000].max() > 10  # of the natural logarithm: more than 40 dB


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"front_end": "efficientat", "num_bands": 64}, "efficientat has its own num_bands; leave that out"),
        ({"normalise": "fixed"}, "normalise fixed needs front_end efficientat"),
    ],
)
def test_settings_that_mean_nothing_are_refused(features: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse(Recipe, {"features": features}, "recipe.yaml")
