"""A corpus in shards: each a store of its own, so that a node decodes and keeps a part of a corpus that is too large.

A clip's shard follows from its path alone. So clips that are added or removed move no other clip, and nodes that hold
different shards agree on them without asking each other. Each shard is built by itself, with its own lock and journal:
several processes or nodes build different shards at once.

A clip is known everywhere by its number, `row in its shard x shards + shard`. It needs no shard but its own, so a node
that holds some shards numbers their clips as a node does that holds all of them.

B items of a batch, M clips that are held.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from raysd.data.layouts import Clip
from raysd.data.store import Listing, Remembered, Store, open_store
from raysd.errors import BadInput


def shard_of(path: str, num_shards: int) -> int:
    """The shard of the clip at `path` (relative to the data root), 0 .. num_shards - 1."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % num_shards


@dataclass(frozen=True)
class Shard:
    """The clips of a listing that fall into one shard: a listing itself, of which `open_store` makes a store."""

    listing: Listing
    number: int
    num_shards: int
    _parts: dict[Path, list[list[Clip]]] = field(default_factory=dict, repr=False, compare=False)
    """The clips of every shard, by data root: shards that are opened together list it once."""

    @property
    def sample_rate_hz(self) -> int:
        return self.listing.sample_rate_hz

    @property
    def channel(self) -> int | Literal["mean"]:
        return self.listing.channel

    @property
    def dtype(self) -> Literal["int16", "float16"]:
        return self.listing.dtype

    @property
    def settings_text(self) -> str | None:
        settings = self.listing.settings_text if isinstance(self.listing, Remembered) else None
        return None if settings is None else f"shard {self.number} of {self.num_shards}: {settings}"

    def scan(self, root: Path) -> list[Clip]:
        """Raises BadInput for a shard without clips, and as the listing does."""
        if root not in self._parts:
            parts: list[list[Clip]] = [[] for _ in range(self.num_shards)]
            for clip in self.listing.scan(root):
                parts[shard_of(clip.path, self.num_shards)].append(clip)
            self._parts[root] = parts
        if own := self._parts[root][self.number]:
            return own
        raise BadInput(
            f"{root}: {sum(map(len, self._parts[root]))} clips are too few for {self.num_shards} shards: none falls "
            f"into shard {self.number}; set fewer shards"
        )

    def require(self, root: Path, clips: list[Clip]) -> None:
        """A part has no claims of its own, as what the whole needs may lie in other shards."""


class ShardedStore:
    """The shards that this process holds, read as one store.

    Its rows, 0 .. M-1, are those of the shards that are held, one shard after another in the order of their numbers.
    """

    def __init__(self, root: Path, data: Listing, num_shards: int, stores: Mapping[int, Store]) -> None:
        self.root = root
        self.data = data
        self.num_shards = num_shards
        self.stores: dict[int, Store] = dict(sorted(stores.items()))
        """The store of each shard that is held."""
        sizes = [len(store.clips) for store in self.stores.values()]
        self.shard_M: np.ndarray = np.repeat(np.array(list(self.stores), dtype=np.int64), sizes)
        """(M,) int64: shard of each row."""
        self._row_M = np.concatenate([np.arange(size) for size in sizes])
        self._first = dict(zip(self.stores, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        self.number_M: np.ndarray = self._row_M * num_shards + self.shard_M
        """(M,) int64: what each clip is called on all nodes, whatever shards they hold: `Draws` and logs use it."""

    @cached_property
    def clips(self) -> pd.DataFrame:
        """A row per clip that is held, 0 .. M-1; the columns of `Store.clips`, offsets counted in each shard's file."""
        return pd.concat([store.clips for store in self.stores.values()], ignore_index=True)

    @property
    def fingerprint(self) -> str:
        """Of the whole corpus. Raises BadInput where not all shards are held: see `whole_fingerprint`."""
        return whole_fingerprint(self.fingerprints, self.num_shards)

    @property
    def fingerprints(self) -> dict[int, str]:
        """Of each shard that is held."""
        return {number: store.fingerprint for number, store in self.stores.items()}

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Path and reason of each clip that was left out of the shards that are held."""
        return [bad for store in self.stores.values() for bad in store.skipped]

    def rows(self, number_B: np.ndarray) -> np.ndarray:
        """(B,) int64 rows of the clips that are called `number_B`. Raises BadInput for a clip that is not held."""
        shard_B, row_B = number_B % self.num_shards, number_B // self.num_shards
        for shard in np.unique(shard_B).tolist():
            if shard not in self.stores:
                raise BadInput(
                    f"{self.root}: clip {number_B[shard_B == shard][0]} lies in shard {shard} of {self.num_shards}, "
                    f"but this process holds {', '.join(map(str, self.stores))} only; ask a worker that holds it"
                )
            if (row_B[shard_B == shard] >= len(self.stores[shard].clips)).any():
                raise BadInput(f"{self.root}: shard {shard} has no clip {number_B[shard_B == shard].max()}")
        return row_B + np.array([self._first[shard] for shard in shard_B.tolist()], dtype=np.int64)

    def waveforms(self, rows_B: np.ndarray, starts_B: np.ndarray, samples: int) -> np.ndarray:
        """(B, samples) float32, as `Store.waveforms` gives them, of the clips in rows `rows_B`."""
        wave_BS = np.empty((len(rows_B), samples), dtype=np.float32)
        shard_B, row_B = self.shard_M[rows_B], self._row_M[rows_B]
        for shard in np.unique(shard_B).tolist():
            here = shard_B == shard
            wave_BS[here] = self.stores[shard].waveforms(row_B[here], starts_B[here], samples)
        return wave_BS

    def read(self, rows_B: np.ndarray, starts_B: np.ndarray, raw_BS: np.ndarray) -> None:
        """Fills `raw_BS`, as `Store.read` does."""
        shard_B, row_B = self.shard_M[rows_B], self._row_M[rows_B]
        for shard in np.unique(shard_B).tolist():
            here = np.flatnonzero(shard_B == shard)
            piece_BS = np.empty((len(here), raw_BS.shape[1]), dtype=raw_BS.dtype)
            self.stores[shard].read(row_B[here], starts_B[here], piece_BS)
            raw_BS[here] = piece_BS

    def verify(self) -> None:
        """See `Store.verify`."""
        for store in self.stores.values():
            store.verify()


def open_shards(
    root: Path,
    listing: Listing,
    cache: Path,
    num_shards: int,
    held: Collection[int],
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> ShardedStore:
    """The shards `held` (of 0 .. num_shards - 1) of the clips that `listing` finds under `root`, built if need be.

    Arguments and errors are those of `open_store`; `progress` counts the clips of all shards that are held. Raises
    BadInput for a shard that cannot be, and for one without clips.
    """
    numbers = sorted(set(held))
    if not numbers or numbers[0] < 0 or numbers[-1] >= num_shards:
        raise BadInput(f"shards {numbers}: give numbers from 0 to {num_shards - 1}, as there are {num_shards} shards")
    parts: dict[Path, list[list[Clip]]] = {}
    stores: dict[int, Store] = {}

    def tell(done: int, total: int) -> None:
        if progress:
            before = sum(len(parts[root][number]) for number in stores)
            progress(before + done, sum(len(parts[root][number]) for number in numbers))

    for number in numbers:
        stores[number] = open_store(root, Shard(listing, number, num_shards, parts), cache, skip_bad, tell, workers)
    parts.clear()  # the stores keep their shards, which must not keep the whole listing
    return ShardedStore(root, listing, num_shards, stores)


def whole_fingerprint(fingerprints: Mapping[int, str], num_shards: int) -> str:
    """Names a corpus by its shards' fingerprints, which workers may have gathered from each other.

    Raises BadInput where one is missing.
    """
    if missing := sorted(set(range(num_shards)) - set(fingerprints)):
        raise BadInput(
            f"the fingerprint of the whole corpus needs all {num_shards} shards; {missing} are not held here"
        )
    text = json.dumps([fingerprints[number] for number in range(num_shards)])
    return hashlib.sha256(text.encode()).hexdigest()[:20]
