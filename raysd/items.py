"""Which items a batch holds, and of which clips they are: of a corpus in one piece, and of one in shards.

An item is a clip with the number of its segment: `clip x segments a clip + segment`. G items of a batch, B of a
worker's share, N training clips, S shards.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from raysd.model.draws import Draws, permutation
from raysd.parallel import from_first, rank

if TYPE_CHECKING:
    from raysd.model.spectra import Spectra


@dataclass(frozen=True)
class TrainingSet:
    """The clips that one model is trained on: their rows in the store, and the class of each."""

    row_N: Tensor
    label_N: Tensor
    num_classes: int

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: it.to(device) for name, it in values.items() if isinstance(it, Tensor)})

    def num_items(self, segments: int) -> int:
        """Items of an epoch, `segments` of each clip."""
        return len(self.row_N) * segments

    def batches(self, seed: int, epoch: int, segments: int, batch_size: int) -> Iterator[Tensor]:
        """The items of an epoch on the CPU: `num_batches` batches, as equal as can be."""
        yield from batches(seed, epoch, self.num_items(segments), batch_size)

    def rows(self, clip_B: Tensor) -> Tensor:
        """Rows in the store."""
        return self.row_N[clip_B]

    def labels(self, clip_B: Tensor) -> Tensor:
        """Classes."""
        return self.label_N[clip_B]

    def partners(self, draws: Draws, stream: str, clip_B: Tensor) -> Tensor:
        """Rows of clips to mix with those of `clip_B`, drawn from all."""
        return self.row_N[draws.integers(stream, len(self.row_N))]

    def statistics(self, spectra: "Spectra", per_band: bool) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the log-mel, as `Spectra.statistics` gives them."""
        return spectra.statistics(self.row_N.tolist(), per_band)


@dataclass(frozen=True)
class ShardedSet(TrainingSet):
    """The clips of a corpus in shards, of which this worker holds some: as many as the others, in the order of ranks.

    A clip is known by its number, `row in its shard x shards + shard` (see raysd/data/shards.py). A batch is made of
    equally large parts, one a shard, in the order of shards. So its share has a worker from its own shards alone; a
    clip is mixed with one of its own shard; and the log-mel is normalised as the first shard asks for. It all depends
    on the number of shards, and not on that of workers.

    As many items as the smallest shard has are taken from each in an epoch, so that the others leave some out, others
    in each epoch. `row_N` and `label_N` are those of the clips that are held.
    """

    size_S: Tensor
    """Clips of each shard, also of those that other workers hold."""
    first_S: Tensor
    """Row of the first clip of each shard that is held; of the others any number."""

    def num_items(self, segments: int) -> int:
        return int(self.size_S.min()) * len(self.size_S) * segments

    def batches(self, seed: int, epoch: int, segments: int, batch_size: int) -> Iterator[Tensor]:
        num_shards, taken = len(self.size_S), int(self.size_S.min()) * segments
        order_ST = torch.empty(num_shards, taken, dtype=torch.int64)
        for shard, size in enumerate(self.size_S.tolist()):
            clip_N1 = torch.arange(size)[:, None] * num_shards + shard
            item_N = (clip_N1 * segments + torch.arange(segments)).flatten()
            order_N = torch.argsort(Draws(seed, epoch, item_N).bits("order", 1)[:, 0], stable=True)
            order_ST[shard] = item_N[order_N[:taken]]
        for part_ST in order_ST.tensor_split(num_batches(order_ST.numel(), batch_size), dim=1):
            yield part_ST.flatten()

    def rows(self, clip_B: Tensor) -> Tensor:
        num_shards = len(self.size_S)
        return self.first_S[clip_B % num_shards] + clip_B // num_shards

    def labels(self, clip_B: Tensor) -> Tensor:
        return self.label_N[self.rows(clip_B)]

    def partners(self, draws: Draws, stream: str, clip_B: Tensor) -> Tensor:
        shard_B = clip_B % len(self.size_S)
        return self.first_S[shard_B] + draws.integers(stream, self.size_S[shard_B])

    def statistics(self, spectra: "Spectra", per_band: bool) -> tuple[Tensor, Tensor]:
        own = None
        if rank() == 0:
            own = [found.cpu() for found in spectra.statistics(range(int(self.size_S[0])), per_band)]
        mean_F1, std_F1 = from_first(own)
        return mean_F1, std_F1


def batches(seed: int, epoch: int, num_items: int, batch_size: int) -> Iterator[Tensor]:
    """The items of an epoch in its order, in batches as equal as can be."""
    yield from torch.tensor_split(permutation(seed, epoch, num_items), num_batches(num_items, batch_size))


def num_batches(num_items: int, batch_size: int) -> int:
    """Batches of an epoch. None holds one item alone, which has nothing to contrast; so pairs may become a triple."""
    return max(1, min(math.ceil(num_items / batch_size), num_items // 2))
