"""The table of published checkpoints: what each is, where it lies, under which licence, and what it fits.

Pure data. `raysd/weights.py` fetches and verifies the files, `pretrained` loads them. To add one, add a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """A file of weights that its authors published."""

    name: str
    """What a recipe calls it: `pretrained: audioset:<name>`."""
    file_name: str
    """As its authors call the file."""
    url: str | None
    """None: its licence does not let raysd download it; its user does."""
    sha256: str | None
    """None: not known; recorded at the first use on a machine, and compared from then on."""
    num_bytes: int | None
    """Size of the file; None: not known."""
    num_parameters: int
    """About how many, the head's included, as the authors state; exact where the file could be counted."""
    licence: str
    """Its name, and whose it is."""
    licence_url: str
    """Where its text is."""
    source: str
    """Repository and paper."""
    expected_input: str
    """What the network was trained on, in a line."""
    encoder: Mapping[str, Any]
    """Settings of the encoder that the tensors fit."""
    features: Mapping[str, Any]
    """Settings of the front end that they expect."""
    head: tuple[str, ...]
    """Prefixes of tensors that belong to the tagging head, which is not used."""
    figures: str
    """How good it is on its own task, as its authors state."""


_EFFICIENTAT = "https://github.com/fschmid56/EfficientAT"
_BYOLA = "https://github.com/nttcslab/byol-a"


def _mn(
    name: str,
    file_name: str,
    width: float,
    num_parameters: int,
    sha256: str | None = None,
    num_bytes: int | None = None,
    about: str = "",
) -> Published:
    """A MobileNetV3 of EfficientAT's with 128 bands, a hop of 10 ms and an MLP head.

    Its variants with another front end (`_hop_`, `_mels_`), other strides (`_fc_s`) or dynamic blocks (`dymn`) are not
    in the table: no encoder here loads them as they were trained.
    """
    mean_ap = file_name.removesuffix(".pt").rpartition("mAP_")[2]
    return Published(
        name=name,
        file_name=file_name,
        url=f"{_EFFICIENTAT}/releases/download/v0.0.1/{file_name}",
        sha256=sha256,
        num_bytes=num_bytes,
        num_parameters=num_parameters,
        licence="MIT, Florian Schmid 2022",
        licence_url=f"{_EFFICIENTAT}/blob/main/LICENSE",
        source=f"{_EFFICIENTAT} (Schmid, Koutini, Widmer 2023, arXiv 2211.04772)",
        expected_input="32 kHz mono; 128 Kaldi mel bands from 0 to 15 kHz, window 25 ms, hop 10 ms, fixed scale",
        encoder={"name": "mobilenet_v3", "width": width},
        features={"front_end": "efficientat", "normalise": "fixed"},
        head=("classifier.",),
        figures=f"AudioSet mAP {int(mean_ap) / 10:.1f}{about}",
    )


def _byola(embedding_dim: int, num_parameters: int, average: float) -> Published:
    return Published(
        name=f"byola_{embedding_dim}",
        file_name=f"AudioNTT2020-BYOLA-64x96d{embedding_dim}.pth",
        url=None,
        sha256=None,
        num_bytes=None,
        num_parameters=num_parameters,
        licence="NTT, for evaluation only",
        licence_url=f"{_BYOLA}/blob/master/LICENSE",
        source=f"{_BYOLA}, folder pretrained_weights (Niizumi et al. 2021, arXiv 2103.06695)",
        expected_input="16 kHz mono; 64 mel bands from 60 to 7,800 Hz, window 64 ms, hop 10 ms, mean 0 and sd 1",
        encoder={"name": "audiontt2020", "embedding_dim": embedding_dim},
        features={
            "fft_samples": 1024,
            "window_samples": 1024,
            "hop_samples": 160,
            "num_bands": 64,
            "low_hz": 60.0,
            "high_hz": 7800.0,
            "mel_scale": "htk",
            "mel_norm": None,
        },
        head=(),
        figures=f"six other tasks, mean accuracy {average}",
    )


_ROWS = (
    _mn(
        "mn04_as",
        "mn04_as_mAP_432.pt",
        0.4,
        983_599,
        sha256="899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
        num_bytes=4_066_513,
    ),
    _mn("mn05_as", "mn05_as_mAP_443.pt", 0.5, 1_430_000),
    _mn(
        "mn10_as",
        "mn10_as_mAP_471.pt",
        1.0,
        4_880_000,
        sha256="0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e",
        num_bytes=19_708_753,
    ),
    _mn("mn20_as", "mn20_as_mAP_478.pt", 2.0, 17_910_000),
    _mn("mn30_as", "mn30_as_mAP_482.pt", 3.0, 39_090_000),
    _mn("mn40_as", "mn40_as_mAP_484.pt", 4.0, 68_430_000),
    _mn("mn40_as_ext", "mn40_as_ext_mAP_487.pt", 4.0, 68_430_000, about=", trained for longer"),
    _mn("mn40_as_no_im_pre", "mn40_as_no_im_pre_mAP_483.pt", 4.0, 68_430_000, about=", without ImageNet before"),
    _byola(512, 600_192, 73.3),
    _byola(1024, 1_649_792, 76.5),
    _byola(2048, 5_321_856, 77.8),
)
PUBLISHED: dict[str, Published] = {row.name: row for row in _ROWS}
