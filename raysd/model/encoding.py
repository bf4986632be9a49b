"""What every encoder offers: the settings' and the network's base classes, and initial weights by seed.

B items, F mel bands, T frames, D embedding. An encoder takes `spec_BFT` and gives `z_BD`, whatever T is.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from raysd.model.draws import Draws, stream_number
from raysd.settings import Settings

Width = Annotated[float, Field(gt=0, le=8)]


class EncoderModule(nn.Module):
    """A built encoder."""

    embedding_dim: int

    @abstractmethod
    def forward(self, spec_BFT: Tensor, draws: Draws | None = None) -> Tensor:
        """`z_BD`. `draws` is what dropout draws from in training; the other encoders ignore it."""

    def stages(self) -> list[nn.Module]:
        """Its parts in the order of the data, of which learning rates and freezing speak; all parameters are in one."""
        return [part for _, part in self.named_children()]


class EncoderSettings(Settings):
    """What every encoder's settings offer."""

    trains: ClassVar[bool] = True
    """False: nothing to train, so that the trial goes straight to its embeddings."""

    @property
    def head(self) -> tuple[str, ...]:
        """Prefixes of the tensors of layers that come after a pre-trained network, which weights need not have."""
        return ()

    @abstractmethod
    def build(self, num_bands: int) -> EncoderModule:
        """The network for `num_bands` mel bands, initialised from torch's global generator (see `build_encoder`)."""

    @classmethod
    @abstractmethod
    def tiny(cls) -> "EncoderSettings":
        """The smallest configuration that still has every part, for tests."""


@contextmanager
def seeded(*words: object) -> Iterator[None]:
    """Within it, torch's CPU generator is a pure function of `words`; afterwards it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would also reseed every accelerator
        torch.default_generator.manual_seed(stream_number("raysd", "weights", *words) & 0x7FFFFFFFFFFFFFFF)
        yield


def build_encoder(settings: EncoderSettings, num_bands: int, seed: int) -> EncoderModule:
    """The encoder on the CPU, its initial weights a pure function of the settings and the seed."""
    with seeded("encoder", seed):
        return settings.build(num_bands)
