"""Randomness as a pure function of (seed, epoch, item, view, stream): a counter-based hash, no generator anywhere.

So one worker equals N workers, a resumed run equals an uninterrupted one, and two variants of one seed see the same
draws: an augmentation draws from streams of its own name, and leaving one out shifts no other.

B items of a batch, N numbers for each. An item is a clip's row in the training set (and a segment of it).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor


def _signed(value: int) -> int:
    return (value & 0xFFFFFFFFFFFFFFFF) - (1 << 64) if value & (1 << 63) else value & 0xFFFFFFFFFFFFFFFF


_STEP = _signed(0x9E3779B97F4A7C15)  # splitmix64 (Steele, Lea and Flood 2014): increment and the two multipliers
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)

_CHUNK_VALUES = 1 << 15  # of normal numbers: they stay in a core's cache until they are done

Integers = TypeVar("Integers", Tensor, np.ndarray)


def mix(x: Integers) -> Integers:
    """splitmix64's finaliser on int64 (wrap-around products; logical right shifts), in place."""
    for shift, factor in ((30, _MIX_1), (27, _MIX_2), (31, 1)):
        high = x >> shift
        high &= (1 << (64 - shift)) - 1
        x ^= high
        if factor != 1:
            x *= factor
    return x


def _share(bits: Tensor, shift: int) -> Tensor:
    """24 of the bits as float32 in [0, 1)."""
    return ((bits >> shift) & 0xFFFFFF).to(torch.float32).mul_(2.0**-24)


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
        return next(self._bits(stream, n, len(self.item_B)))

    def _bits(self, stream: str, n: int, rows: int) -> Iterator[Tensor]:
        """The same, `rows` items at a time."""
        start = _signed(stream_number("raysd", self.seed, self.epoch, self.view, stream))
        counter_N: Any = torch.arange(1, n + 1, device=self.item_B.device)
        item_B: Any = self.item_B
        if item_B.device.type == "cpu":  # most draws are short, and numpy's calls cost a third of torch's
            item_B, counter_N = item_B.numpy(), counter_N.numpy()
        key_B1 = mix(mix(item_B * _STEP + start) + start)[:, None]
        counter_N = counter_N * _STEP
        for first in range(0, max(1, len(item_B)), max(1, rows)):
            yield torch.as_tensor(mix(key_B1[first : first + rows] + counter_N))

    def uniform(self, stream: str, n: int = 1, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, n) float32, uniform in [low, high)."""
        return _share(self.bits(stream, n), 40).mul_(high - low).add_(low)

    def normal(self, stream: str, n: int = 1) -> Tensor:
        """(B, n) float32, standard normal (Box and Muller 1958)."""
        normal_BN = torch.empty(len(self.item_B), n, device=self.item_B.device)
        on_cpu = normal_BN.device.type == "cpu"
        rows = max(1, _CHUNK_VALUES // max(n, 1) if on_cpu else len(normal_BN))
        for first, bits_BN in enumerate(self._bits(stream, n, rows)):
            radius = _share(bits_BN, 40).add_(2.0**-25)
            angle = _share(bits_BN, 16)
            radius.log_().mul_(-2.0).sqrt_()
            torch.mul(radius, angle.mul_(2.0 * torch.pi).cos_(), out=normal_BN[first * rows : (first + 1) * rows])
        return normal_BN

    def integers(self, stream: str, high: int | Tensor) -> Tensor:
        """(B,) int64, uniform in 0 .. high - 1; `high` may be one for each item, (B,)."""
        unit_B = ((self.bits(stream, 1)[:, 0] >> 11) & 0x1FFFFFFFFFFFFF).to(torch.float64) * 2.0**-53
        return (unit_B * high).to(torch.int64)


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """(n,) int64: the order in which an epoch visits n items."""
    return torch.argsort(Draws(seed, epoch, torch.arange(n)).bits("order", 1)[:, 0], stable=True)
