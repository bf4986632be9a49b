"""MobileNetV3 for log-mel spectrograms, as the EfficientAT networks have it, so that their AudioSet weights load.

Howard et al. 2019 ("Searching for MobileNetV3", table 1) is the network; Schmid, Koutini, Widmer 2023 ("Efficient
large-scale audio tagging via transformer-to-CNN knowledge distillation") feed it one channel, scale its width, and gate
the channels by a sigmoid. Written from these; the names in the state dict are the published ones.

B items, C channels, F bands, T frames, D embedding.
"""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from raysd.model.draws import Draws
from raysd.model.encoding import EncoderModule, EncoderSettings, Width
from raysd.model.norms import RowLayer, Units
from raysd.model.quick import convolution


class _Row(NamedTuple):
    """A row of the table: kernel, channels inside, channels out, gate, activation, stride."""

    kernel: int
    inside: int
    out: int
    gated: bool
    activation: type[nn.Module]
    stride: int


_RE, _HS = nn.ReLU, nn.Hardswish
_STEM = 16
_ROWS = [
    _Row(*row)
    for row in (
        (3, 16, 16, False, _RE, 1),
        (3, 64, 24, False, _RE, 2),
        (3, 72, 24, False, _RE, 1),
        (5, 72, 40, True, _RE, 2),
        (5, 120, 40, True, _RE, 1),
        (5, 120, 40, True, _RE, 1),
        (3, 240, 80, False, _HS, 2),
        (3, 200, 80, False, _HS, 1),
        (3, 184, 80, False, _HS, 1),
        (3, 184, 80, False, _HS, 1),
        (3, 480, 112, True, _HS, 1),
        (3, 672, 112, True, _HS, 1),
        (5, 672, 160, True, _HS, 2),
        (5, 960, 160, True, _HS, 1),
        (5, 960, 160, True, _HS, 1),
    )
]


class MobileNetV3(EncoderSettings):
    """MobileNetV3 (large) as in EfficientAT: light on a CPU, and published with AudioSet weights of many widths."""

    name: Literal["mobilenet_v3"] = "mobilenet_v3"
    width: Width = 1.0
    """Multiplies the channels of every layer. Published with AudioSet weights: 0.4 to 4.0 (see `pretrained`)."""
    embedding_dim: Annotated[int, Field(ge=1)] | None = None
    """Length of the embedding, made by a linear map of its own. null: the pooled last layer itself, as published (960
    times the width)."""

    @property
    def head(self) -> tuple[str, ...]:
        return () if self.embedding_dim is None else ("embed.",)

    def build(self, num_bands: int) -> EncoderModule:
        return _MobileNetV3(self.width, self.embedding_dim)

    @classmethod
    def tiny(cls) -> "MobileNetV3":
        return cls(width=0.1, embedding_dim=16)


def _channels(channels: float) -> int:
    """The next multiple of 8, at least 8, and never below nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv(
    channels_in: int, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, activation: type | None = None
) -> Units:
    layers: list[nn.Module] = [
        convolution(channels_in, channels, kernel, stride, groups),
        # torch's momentum, not the published 0.01, with which running statistics lag behind trainings of few steps
        nn.BatchNorm2d(channels, eps=1e-3),
    ]
    return Units(*layers, *([] if activation is None else [activation(inplace=True)]))


class _MobileNetV3(EncoderModule):
    def __init__(self, width: float, embedding_dim: int | None) -> None:
        super().__init__()
        channels = _channels(_STEM * width)
        layers: list[nn.Module] = [_conv(1, channels, 3, 2, activation=nn.Hardswish)]
        for row in _ROWS:
            layers.append(_Block(channels, row, width))
            channels = _channels(row.out * width)
        layers.append(_conv(channels, 6 * channels, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.embed = nn.Identity() if embedding_dim is None else nn.Linear(6 * channels, embedding_dim)
        self.embedding_dim = embedding_dim or 6 * channels

    def stages(self) -> list[nn.Module]:
        return [*self.features, self.embed]

    def forward(self, spec_BFT: Tensor, draws: Draws | None = None) -> Tensor:
        x_BCFT = self.features(spec_BFT[:, None])
        with torch.autocast(spec_BFT.device.type, enabled=False):
            return self.embed(x_BCFT.float().mean(dim=(2, 3)))


class _Block(nn.Module):
    """Inverted residual: expand by a 1x1, filter each channel, gate the channels, project without activation."""

    def __init__(self, channels_in: int, row: _Row, width: float) -> None:
        super().__init__()
        inside, out = _channels(row.inside * width), _channels(row.out * width)
        layers: list[nn.Module] = []
        if inside != channels_in:
            layers.append(_conv(channels_in, inside, activation=row.activation))
        layers.append(_conv(inside, inside, row.kernel, row.stride, groups=inside, activation=row.activation))
        if row.gated:
            layers.append(_Gates(inside))
        layers.append(_conv(inside, out))
        self.residual = row.stride == 1 and channels_in == out
        self.block = Units(*layers, chain=3)  # the wide maps are most of the memory

    def forward(self, x_BCFT: Tensor) -> Tensor:
        return x_BCFT + self.block(x_BCFT) if self.residual else self.block(x_BCFT)


class _Gates(RowLayer):
    """Squeeze and excitation of the channels; the published networks have room for others beside it, hence the list."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([_Gate(channels, _channels(channels / 4))])

    def forward(self, x_BCFT: Tensor) -> Tensor:
        return self.conc_se_layers[0](x_BCFT)


class _Gate(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x_BCFT: Tensor) -> Tensor:
        gate_BC = self.fc2(torch.relu(self.fc1(x_BCFT.mean(dim=(2, 3))))).sigmoid()
        return x_BCFT * gate_BC[:, :, None, None].to(x_BCFT.dtype)
