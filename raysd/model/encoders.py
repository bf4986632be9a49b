"""Encoders: normalised log-mel in, one embedding per item out. The registry, and most of the networks.

B items, F mel bands, T frames, C channels, D embedding. An encoder takes `spec_BFT` and gives `z_BD`, whatever T is.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raysd.errors import BadInput
from raysd.model import quick
from raysd.model.draws import Draws
from raysd.model.encoding import EncoderModule, EncoderSettings, Width
from raysd.model.mobilenet_v3 import MobileNetV3
from raysd.model.norms import Units
from raysd.settings import Settings

Stride = Annotated[int, Field(ge=1, le=8)]
TimePooling = Literal["mean", "max", "mean_max", "mean_std", "gwrp"]


class Pooling(Settings):
    """How a convolutional encoder turns its last map into a vector; time first, then frequency."""

    time: TimePooling = "mean"
    """mean and gwrp do not drift with a clip's length; max does. mean_max adds the two (BYOL-A), mean_std joins them,
    gwrp is a mean weighted by the rank of a frame (TWFR-GMM)."""
    frequency: Literal["flatten", "mean"] = "flatten"
    """flatten keeps where on the frequency axis something sounded; mean gives a smaller network."""
    gwrp_decay: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Weight of a frame relative to the next louder one. 1: the mean; 0: the maximum."""

    def size(self, channels: int, bands: int) -> int:
        """Length of the pooled vector."""
        return channels * (2 if self.time == "mean_std" else 1) * (bands if self.frequency == "flatten" else 1)

    def pool(self, x_BCFT: Tensor) -> Tensor:
        """(B, size) float32."""
        x_BCF = pool_time(x_BCFT.float(), self.time, self.gwrp_decay)
        return x_BCF.flatten(1) if self.frequency == "flatten" else x_BCF.mean(dim=2)


class Spectrum(Settings):
    """A second branch beside the network: the log-mel pooled over time, mapped linearly, joined to the embedding.

    A spectrum beside a spectrogram is the dual-branch idea of Wilkinghoff (2023, "Design choices for learning
    embeddings from auxiliary tasks for domain generalization in anomalous sound detection"); to pool the log-mel by
    several rules, loudest frames included, is our choice.
    """

    embedding_dim: Annotated[int, Field(ge=1)] = 128
    """Its part of the embedding; the network's own comes first."""
    pooling: Annotated[tuple[TimePooling, ...], Field(min_length=1)] = ("mean_std", "gwrp")
    """How the bands are pooled over time; several are joined."""
    gwrp_decay: Annotated[float, Field(ge=0, le=1)] = 0.5
    """For gwrp: weight of a frame relative to the next louder one of its band."""

    def size(self, bands: int) -> int:
        """Length of the pooled vector."""
        return bands * sum(2 if how == "mean_std" else 1 for how in self.pooling)

    def pool(self, spec_BFT: Tensor) -> Tensor:
        """(B, size) float32."""
        return torch.cat([pool_time(spec_BFT.float(), how, self.gwrp_decay) for how in self.pooling], dim=1)


def pool_time(x: Tensor, how: TimePooling, gwrp_decay: float) -> Tensor:
    """Pools the last axis. `mean_std` doubles axis 1.

    Global weighted ranking pooling ("gwrp": Kolesnikov and Lampert 2016; for machine sounds TWFR-GMM, Guan et al. 2023)
    sorts every row in descending order and averages it with weights decay ** rank.
    """
    if how == "mean":
        return x.mean(dim=-1)
    if how == "max":
        return x.amax(dim=-1)
    if how == "mean_max":
        return x.amax(dim=-1) + x.mean(dim=-1)
    if how == "mean_std":
        return torch.cat([x.mean(dim=-1), (quick.variance(x) + 1e-8).sqrt()], dim=1)  # a root has no slope at zero
    weight_T = gwrp_decay ** torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
    weight_T = weight_T[weight_T > 1e-9]  # what is below float32's last digit need not be sorted
    return (quick.largest(x, len(weight_T)) * (weight_T / weight_T.sum())).sum(dim=-1)


def _scaled(channels: int, width: float) -> int:
    """A channel count times a width, rounded to a multiple of 8, which convolutions run fastest on."""
    return max(8, 8 * round(channels * width / 8))


def _conv(
    channels_in: int,
    channels: int,
    kernel: int,
    stride: int | tuple[int, int] = 1,
    groups: int = 1,
    activation: Literal["relu", "prelu"] | None = "relu",
) -> Units:
    """Convolution, batch norm and, unless `activation` is None, an activation."""
    layers: list[nn.Module] = [
        quick.convolution(channels_in, channels, kernel, stride, groups),
        nn.BatchNorm2d(channels),
    ]
    if activation is not None:
        layers.append(quick.PReLU(channels) if activation == "prelu" else nn.ReLU(inplace=True))
    return Units(*layers)


class _Convolutional(EncoderModule):
    """A stack of convolutions, global pooling, one linear map, and beside it the spectrum branch where there is one.

    All but the convolutions run in float32: scores need the digits.
    """

    def __init__(
        self, body: nn.Sequential, settings: "MobileFaceNet | CNN", num_bands: int, pooled_size: int, norm: bool
    ) -> None:
        super().__init__()
        self.body = body
        self.pooling = settings.pooling
        self.embed = nn.Linear(pooled_size, settings.embedding_dim, bias=not norm)
        self.norm = nn.BatchNorm2d(settings.embedding_dim) if norm else nn.Identity()
        self.embedding_dim = settings.embedding_dim
        self.spectrum = settings.spectrum
        if settings.spectrum is not None:
            self.embed_spectrum = nn.Linear(settings.spectrum.size(num_bands), settings.spectrum.embedding_dim)
            self.embedding_dim += settings.spectrum.embedding_dim

    def stages(self) -> list[nn.Module]:
        beside = [self.embed_spectrum] if self.spectrum is not None else []
        return [*self.body, nn.ModuleList([self.embed, self.norm, *beside])]

    def forward(self, spec_BFT: Tensor, draws: Draws | None = None) -> Tensor:
        x_BCFT = self.body(spec_BFT[:, None])
        with torch.autocast(spec_BFT.device.type, enabled=False):
            z_BD = self.norm(self.embed(self.pooling.pool(x_BCFT))[:, :, None, None])[:, :, 0, 0]
            if self.spectrum is None:
                return z_BD
            return torch.cat([z_BD, self.embed_spectrum(self.spectrum.pool(spec_BFT))], dim=1)


def _bands_left(num_bands: int, *strides: int) -> int:
    """Rows of a map after 3x3 convolutions (padding 1) with these strides along frequency."""
    for stride in strides:
        num_bands = (num_bands - 1) // stride + 1
    return num_bands


class MobileFaceNet(EncoderSettings):
    """MobileFaceNet (Chen et al. 2018) with the blocks that the field uses (AITHU 2022; STgram-MFN, OS-SCL).

    Its global depthwise convolution fits one length of segment only; here global pooling stands in its place.
    """

    name: Literal["mobilefacenet"] = "mobilefacenet"
    width: Width = 1.0
    """Multiplies the channels of every layer."""
    embedding_dim: Annotated[int, Field(ge=1)] = 128
    """Length of the network's embedding."""
    activation: Literal["prelu", "relu"] = "prelu"
    """prelu as published; relu trains about 1.6 times as fast on a CPU."""
    stem_stride: tuple[Stride, Stride] = (2, 2)
    """Stride of the first convolution along (frequency, time); the cost falls with their product."""
    pooling: Pooling = Pooling()
    spectrum: Spectrum | None = None
    """The second branch; null: none."""

    def build(self, num_bands: int) -> EncoderModule:
        stem, last = _scaled(64, self.width), _scaled(512, self.width)
        layers: list[nn.Module] = [
            _conv(1, stem, 3, self.stem_stride, activation=self.activation),
            _conv(stem, stem, 3, groups=stem, activation=self.activation),
        ]
        channels = stem
        for expansion, base, repeats, stride in ((2, 128, 2, 2), (4, 128, 2, 2), (4, 128, 2, 2)):
            for repeat in range(repeats):
                out = _scaled(base, self.width)
                layers.append(_Bottleneck(channels, out, stride if repeat == 0 else 1, expansion, self.activation))
                channels = out
        layers.append(_conv(channels, last, 1, activation=self.activation))
        pooled = self.pooling.size(last, _bands_left(num_bands, self.stem_stride[0], 2, 2, 2))
        return _Convolutional(nn.Sequential(*layers), self, num_bands, pooled, norm=True)

    @classmethod
    def tiny(cls) -> "MobileFaceNet":
        return cls(width=0.125, embedding_dim=16)


class _Bottleneck(nn.Module):
    """Inverted residual: expand by a 1x1, filter each channel by a 3x3, project without activation."""

    def __init__(
        self, channels_in: int, channels: int, stride: int, expansion: int, activation: Literal["relu", "prelu"]
    ) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.residual = stride == 1 and channels_in == channels
        self.block = Units(
            _conv(channels_in, wide, 1, activation=activation),
            _conv(wide, wide, 3, stride, groups=wide, activation=activation),
            _conv(wide, channels, 1, activation=None),
            chain=3,  # the wide maps are most of the memory
        )

    def forward(self, x_BCFT: Tensor) -> Tensor:
        return x_BCFT + self.block(x_BCFT) if self.residual else self.block(x_BCFT)


class CNN(EncoderSettings):
    """Four plain 3x3 convolutions of stride 2: the encoder for CPUs, several times as fast as MobileFaceNet there."""

    name: Literal["cnn"] = "cnn"
    width: Width = 1.0
    """Multiplies the channels (64, 128, 256, 256)."""
    embedding_dim: Annotated[int, Field(ge=1)] = 128
    """Length of the network's embedding."""
    stem_stride: tuple[Stride, Stride] = (2, 2)
    """Stride of the first convolution along (frequency, time); the cost falls with their product."""
    pooling: Pooling = Pooling()
    spectrum: Spectrum | None = None
    """The second branch; null: none."""

    def build(self, num_bands: int) -> EncoderModule:
        c1, c2, c3, c4 = (_scaled(channels, self.width) for channels in (64, 128, 256, 256))
        body = Units(
            _conv(1, c1, 3, self.stem_stride), _conv(c1, c2, 3, 2), _conv(c2, c3, 3, 2), _conv(c3, c4, 3, 2), chain=2
        )
        pooled = self.pooling.size(c4, _bands_left(num_bands, self.stem_stride[0], 2, 2, 2))
        return _Convolutional(body, self, num_bands, pooled, norm=False)

    @classmethod
    def tiny(cls) -> "CNN":
        return cls(width=0.125, embedding_dim=16, spectrum=Spectrum(embedding_dim=8))


class AudioNTT2020(EncoderSettings):
    """AudioNTT2020 of BYOL-A (Niizumi et al. 2021), written from the paper.

    With width 1 its state dict has the published names and shapes, so that a user's own weights load.
    """

    name: Literal["audiontt2020"] = "audiontt2020"
    width: Width = 1.0
    """Multiplies the 64 channels of the convolutions; 1 is the published network."""
    embedding_dim: Annotated[int, Field(ge=1)] = 512
    """Length of the embedding and of the hidden layer; 512, 1024 and 2048 were published."""

    def build(self, num_bands: int) -> EncoderModule:
        if num_bands < 8:
            raise BadInput(f"encoder audiontt2020 needs at least 8 mel bands, features.num_bands is {num_bands}")
        return _AudioNTT2020(num_bands, _scaled(64, self.width), self.embedding_dim)

    @classmethod
    def tiny(cls) -> "AudioNTT2020":
        return cls(width=0.125, embedding_dim=16)


class Dropout(nn.Module):
    """Dropout whose mask is a pure function of the draws: the same for every split of a batch over workers."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, draws: Draws | None) -> Tensor:
        """`x` (B, ...) with a share `rate` of its values set to zero in training, and untouched at scoring."""
        if not self.training:
            return x
        if draws is None:
            raise ValueError("dropout in training needs draws")
        kept = draws.uniform("dropout", math.prod(x.shape[1:])).reshape(x.shape) >= self.rate
        return x * kept / (1 - self.rate)


class _AudioNTT2020(EncoderModule):
    def __init__(self, num_bands: int, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        layers: list[nn.Module] = []
        for channels_in in (1, channels, channels):
            layers += [
                nn.Conv2d(channels_in, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
        self.features = Units(*layers)
        self.fc = nn.Sequential(
            nn.Linear(channels * (num_bands // 8), embedding_dim),
            nn.ReLU(inplace=True),
            Dropout(0.3),
            nn.Linear(embedding_dim, embedding_dim),
            nn.ReLU(inplace=True),
        )

    def stages(self) -> list[nn.Module]:
        return [*self.features, *self.fc]

    def forward(self, spec_BFT: Tensor, draws: Draws | None = None) -> Tensor:
        frames = spec_BFT.shape[-1]
        if frames < 8:
            raise BadInput(
                f"encoder audiontt2020 needs at least 8 frames, a segment has {frames}; lengthen segments.train_seconds"
            )
        x_BCFT = self.features(spec_BFT[:, None])
        x_BTD = x_BCFT.permute(0, 3, 2, 1).flatten(2)  # channels vary fastest: the order of the published weights
        for layer in self.fc:
            x_BTD = layer(x_BTD, draws) if isinstance(layer, Dropout) else layer(x_BTD)
        return pool_time(x_BTD.float().transpose(1, 2), "mean_max", 1.0)


class SpectralMean(EncoderSettings):
    """The classical floor: log-mel pooled over time, nothing trained (with a Gaussian mixture: TWFR-GMM)."""

    trains: ClassVar[bool] = False

    name: Literal["spectral_mean"] = "spectral_mean"
    pooling: Literal["mean", "mean_std", "gwrp"] = "mean"
    """Mean over time, mean and standard deviation, or a mean weighted by the rank of a frame within its band."""
    gwrp_decay: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Weight of a frame relative to the next louder one of its band. 1: the mean; 0: the maximum."""

    def build(self, num_bands: int) -> EncoderModule:
        return _SpectralMean(num_bands, self)

    @classmethod
    def tiny(cls) -> "SpectralMean":
        return cls()


class _SpectralMean(EncoderModule):
    def __init__(self, num_bands: int, settings: SpectralMean) -> None:
        super().__init__()
        self.embedding_dim = num_bands * (2 if settings.pooling == "mean_std" else 1)
        self.settings = settings

    def forward(self, spec_BFT: Tensor, draws: Draws | None = None) -> Tensor:
        return pool_time(spec_BFT.float(), self.settings.pooling, self.settings.gwrp_decay)


Encoder = Annotated[MobileFaceNet | MobileNetV3 | AudioNTT2020 | CNN | SpectralMean, Field(discriminator="name")]
ENCODERS: dict[str, type[EncoderSettings]] = {
    "mobilefacenet": MobileFaceNet,
    "mobilenet_v3": MobileNetV3,
    "audiontt2020": AudioNTT2020,
    "cnn": CNN,
    "spectral_mean": SpectralMean,
}
