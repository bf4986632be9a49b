"""Randomness as a pure function of (seed, epoch, item, view, stream): a counter-based hash, no generator anywhere.

So one worker equals N workers, a resumed run equals an uninterrupted one, and two variants of one seed see the same
draws: an augmentation draws from streams of its own name, and leaving one out shifts no other.

B items of a batch, N numbers for each. An item is a clip's row in the training set (and a segment of it).
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return (value & 0xFFFFFFFFFFFFFFFF) - (1 << 64) if value & (1 << 63) else value & 0xFFFFFFFFFFFFFFFF


_STEP = _signed(0x9E3779B97F4A7C15)  # splitmix64 (Steele, Lea and Flood 2014): increment and the two multipliers
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on int64 tensors (wrap-around products; logical right shifts)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def stream_number(*words: object) -> int:
    """A 64-bit number that stands for a name: the same in every process."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of items. Same numbers on every device, for every split of a batch."""

    seed: int
    epoch: int
    item_B: Tensor
    """int64; which training item each row is."""
    view: int = 0

    def bits(self, stream: str, n: int) -> Tensor:
        """(B, n) int64, 64 random bits each."""
        start = _signed(stream_number("raysd", self.seed, self.epoch, self.view, stream))
        key_B = mix(mix(self.item_B * _STEP + start) + start)
        counter_N = torch.arange(1, n + 1, device=self.item_B.device, dtype=torch.int64) * _STEP
        return mix(key_B[:, None] + counter_N)

    def uniform(self, stream: str, n: int = 1, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, n) float32, uniform in [low, high)."""
        unit_BN = ((self.bits(stream, n) >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24
        return low + (high - low) * unit_BN

    def normal(self, stream: str, n: int = 1) -> Tensor:
        """(B, n) float32, standard normal (Box and Muller 1958)."""
        bits_BN = self.bits(stream, n)
        radius = (((bits_BN >> 40) & 0xFFFFFF).to(torch.float32) + 0.5) * 2.0**-24
        angle = ((bits_BN >> 16) & 0xFFFFFF).to(torch.float32) * 2.0**-24
        return torch.sqrt(-2.0 * torch.log(radius)) * torch.cos(2.0 * torch.pi * angle)

    def integers(self, stream: str, high: int | Tensor) -> Tensor:
        """(B,) int64, uniform in 0 .. high - 1; `high` may be one for each item, (B,)."""
        unit_B = ((self.bits(stream, 1)[:, 0] >> 11) & 0x1FFFFFFFFFFFFF).to(torch.float64) * 2.0**-53
        return (unit_B * high).to(torch.int64)


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """(n,) int64: the order in which an epoch visits n items."""
    return torch.argsort(Draws(seed, epoch, torch.arange(n)).bits("order", 1)[:, 0], stable=True)
