"""The files of finished trials: a file a trial as they are written, and packs of many that `compact` makes of them.

- ROOT/trials/<key>.parquet: one trial.
- ROOT/trials/pack-<id>.parquet: many, in row groups of a few. Never changed, and no name is used twice.
- ROOT/compacted.json: replaced after packs were written, before what is in them is deleted elsewhere.

Others may write, read and compact at the same time, also where there are no locks. Nothing is lost: a trial's own file
is deleted only by who saw the trial in a pack, and a pack only by who has written all of it into newer ones, so that
the newest copy always stays. Nothing is overlooked: a listing during which compacted.json changed may have missed a
trial on its way from one file to another, and is made again. Nothing is seen twice: one copy of each key counts.
"""

import io
import json
import time
import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from pyarrow import fs

from raysd.results.reading import DAMAGED, all_as_written, check_version, read_whole, require_whole, unreadable
from raysd.results.schema import SCHEMA
from raysd.results.storage import AT_ONCE, Storage, StorageError

PACK_BYTES = 64 * 2**20
"""A pack is closed when it has grown to this; smaller ones are packed again with what has come since."""
GROUP_ROWS = 16
"""Trials in a row group of a pack: what is read for one of them."""
GENERATION = "compacted.json"

T = TypeVar("T")
_SCAN = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
_FORMAT = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=_SCAN)


@dataclass(frozen=True)
class Pack:
    """What stands where in a pack."""

    keys: tuple[str, ...]
    starts: tuple[int, ...]
    """The first row of each row group, and the number of rows."""

    def group(self, row: int) -> int:
        return bisect_right(self.starts, row) - 1


@dataclass(frozen=True)
class Listing:
    """The files of all finished trials at one moment."""

    generation: bytes | None
    packs: dict[str, Pack]
    packed: dict[str, tuple[str, int]]
    """Key -> the pack that counts, and the row in it."""
    alone: dict[str, str]
    """Key -> a file of its own; of a trial that is packed as well it is a copy, and does not count."""

    @property
    def keys(self) -> set[str]:
        return self.packed.keys() | self.alone.keys()

    def place(self, key: str) -> tuple[str, int]:
        """The file and the row of a trial that counts."""
        return self.packed.get(key) or (self.alone[key], 0)


@dataclass(frozen=True)
class Compacted:
    """The files of trials before and after."""

    trials: int
    files_before: int
    bytes_before: int
    files_after: int
    bytes_after: int


@dataclass
class _Known:
    """What this process has seen of a root: it stays true until compacted.json changes, and packs never change."""

    packs: dict[str, Pack] = field(default_factory=dict)
    latest: Listing | None = None


@lru_cache(maxsize=8)
def _known(root: str) -> _Known:
    return _Known()


class TrialFiles:
    """The finished trials of a results root, wherever they are."""

    def __init__(self, storage: Storage, root: str) -> None:
        self._storage = storage
        self._known = _known(root)

    def listing(self) -> Listing:
        """The files of one moment; packs that were not seen before are asked for their keys."""
        return again_and_again(self._storage, self._listing)

    def _listing(self) -> Listing | None:
        generation = self._storage.read(GENERATION)
        names = self._storage.names("trials", ".parquet")
        packs = {name: pack for name in names if is_pack(name) and (pack := self._pack(name))}
        if self._storage.read(GENERATION) != generation or len(packs) < sum(map(is_pack, names)):
            return None
        packed: dict[str, tuple[str, int]] = {}
        for name, pack in packs.items():
            for row, key in enumerate(pack.keys):
                packed.setdefault(key, (name, row))
        alone = {name.rpartition("/")[2].removesuffix(".parquet"): name for name in names if not is_pack(name)}
        self._known.latest = Listing(generation, packs, packed, alone)
        return self._known.latest

    def has(self, key: str) -> bool:
        """Whether the trial is there; without a listing, but for the first time and after a compaction."""
        return self._storage.exists(_file(key)) or key in self._current().packed

    def one(self, key: str) -> pa.Table | None:
        """The whole row of a trial; None where it is not there."""
        while True:
            listing = self._current()
            if key in listing.packed:
                found = read_rows(self._storage, [listing.packed[key]], SCHEMA.names, listing.packs)
            else:
                found = read_rows(self._storage, [(listing.alone.get(key, _file(key)), 0)], SCHEMA.names)
            if found is not None or self._current().generation == listing.generation:
                return found

    def read(self, columns: Sequence[str], keys: Collection[str] | None = None) -> pa.Table:
        """Some columns of all trials, or of those of `keys` that are there, a row each in the order of their keys."""

        def look() -> pa.Table | None:
            listing = self.listing()
            wanted = sorted(listing.keys if keys is None else listing.keys.intersection(keys))
            return read_rows(self._storage, list(map(listing.place, wanted)), columns, listing.packs)

        return again_and_again(self._storage, look)

    def compact(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Compacted:
        """Makes few files of many; see above for what others see meanwhile. Killed, it is to be run again.

        `progress` takes trials packed and trials to pack. Raises BadInput for a file that cannot be read, or that a
        newer raysd wrote: then what was packed before it stays so.
        """
        before = self._storage.details("trials", ".parquet")
        if len(before) > 1:
            with self._storage.lock("work/compact"):  # a second one at once would do the same work, no harm else
                try:
                    again_and_again(self._storage, lambda: self._compact(progress) or None)
                finally:
                    self._storage.delete_folder("work/compact")
        after = self._storage.details("trials", ".parquet")
        bytes_before, bytes_after = (sum(detail.num_bytes for detail in files.values()) for files in (before, after))
        return Compacted(len(self.listing().keys), len(before), bytes_before, len(after), bytes_after)

    def _compact(self, progress: Callable[[int, int], None]) -> bool:
        """False where a file went away meanwhile: another compaction is at work, without locks."""
        listing, sizes = self.listing(), self._storage.details("trials", ".parquet")
        self._delete([name for key, name in listing.alone.items() if key in listing.packed])
        holders = Counter(key for pack in listing.packs.values() for key in pack.keys)
        inputs: dict[str, Sequence[str]] = {
            name: pack.keys
            for name, pack in listing.packs.items()
            if name in sizes and (sizes[name].num_bytes < PACK_BYTES or any(holders[key] > 1 for key in pack.keys))
        }
        inputs |= {name: [key] for key, name in sorted(listing.alone.items()) if key not in listing.packed}
        if len(inputs) < 2:
            return True
        keys = list(dict.fromkeys(key for held in inputs.values() for key in held))
        tables = self._rows_of(keys, listing, progress)
        packed = set[str]()
        while len(packed) < len(keys):
            written = self._write_pack(tables)
            if written is None:
                return False
            packed.update(written)
            done = [name for name, held in inputs.items() if packed.issuperset(held)]
            self._delete(done)
            for name in done:
                del inputs[name]
        return True

    def _rows_of(
        self, keys: Sequence[str], listing: Listing, progress: Callable[[int, int], None]
    ) -> Iterator[pa.Table | None]:
        """The trials, so many at once; a None at the end where a file is not there any more."""
        for start in range(0, len(keys), AT_ONCE):
            places = [listing.place(key) for key in keys[start : start + AT_ONCE]]
            found = read_rows(self._storage, places, SCHEMA.names, listing.packs)
            yield found
            if found is None:
                return
            progress(min(start + AT_ONCE, len(keys)), len(keys))

    def _write_pack(self, tables: Iterator[pa.Table | None]) -> list[str] | None:
        """Writes the trials that come until they fill a pack, and gives their keys; None where one did not come."""
        content, keys = io.BytesIO(), list[str]()
        with pq.ParquetWriter(
            content, SCHEMA, compression="zstd", write_statistics=False, write_page_checksum=True
        ) as writer:
            for table in tables:
                if table is None:
                    return None
                writer.write_table(table, row_group_size=GROUP_ROWS)
                keys += table["key"].to_pylist()
                if content.tell() >= PACK_BYTES:
                    break
        name = f"trials/pack-{uuid.uuid4().hex[:20]}.parquet"
        self._storage.write_new(name, content.getvalue())
        pack = self._pack(name)
        if pack is None or list(pack.keys) != keys:
            raise StorageError(f"{self._storage}/{name}: what is written there is not read back; nothing was deleted")
        return keys

    def _delete(self, names: Sequence[str]) -> None:
        """Removes files whose trials are all in packs."""
        if names:
            note = {"id": uuid.uuid4().hex, "when": datetime.now(UTC).isoformat(timespec="seconds")}
            self._storage.replace(GENERATION, json.dumps(note).encode())
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(self._storage.delete, names))

    def _current(self) -> Listing:
        """A listing whose packs are those of now; not so the files of single trials."""
        latest = self._known.latest
        if latest is None or self._storage.read(GENERATION) != latest.generation:
            return self.listing()
        return latest

    def _pack(self, name: str) -> Pack | None:
        """What is in a pack; None where it is not there any more."""
        if name not in self._known.packs:
            (path,), filesystem = self._storage.for_arrow([name])
            try:
                self._known.packs[name] = _contents(path, filesystem)
            except DAMAGED:
                whole = self._storage.read(name)
                if whole is None:
                    return None
                try:
                    self._known.packs[name] = _contents(pa.BufferReader(whole))
                except DAMAGED as error:
                    raise unreadable(self._storage, name, error) from None
        return self._known.packs[name]


def again_and_again(storage: Storage, look: Callable[[], T | None]) -> T:
    """What `look` gives in the end: None as long as files go away while it looks."""
    for attempt in range(60):
        found = look()
        if found is not None:
            return found
        time.sleep(0.02 * min(attempt, 10))  # some shared file systems show for seconds what is gone
    raise StorageError(f"{storage}: files that are listed there are not found; look after the file system")


def read_rows(
    storage: Storage, wanted: Sequence[tuple[str, int]], columns: Sequence[str], packs: Mapping[str, Pack] | None = None
) -> pa.Table | None:
    """Rows of record files, each given by its file and its place in it, in that order.

    None where a file is not there any more. Raises BadInput for one that cannot be read, that a newer raysd wrote, or
    that holds other trials than it should.
    """
    if not wanted:
        return SCHEMA.empty_table().select(list(columns))
    rows: dict[str, list[int]] = {}
    for name, row in wanted:
        rows.setdefault(name, []).append(row)
    paths, filesystem = storage.for_arrow(list(rows))
    names = dict(zip(paths, rows, strict=True))
    fragments, expected = [], 0
    for path, name in names.items():
        pack = (packs or {}).get(name)
        groups = sorted({pack.group(row) for row in rows[name]}) if pack else None
        expected += sum(pack.starts[group + 1] - pack.starts[group] for group in groups or ()) if pack else 1
        fragments.append(_FORMAT.make_fragment(path, filesystem, row_groups=groups))
    asked = [*columns, *({"key", "schema_version"} - set(columns)), "__filename"]
    position = None
    try:
        dataset = pyarrow.dataset.FileSystemDataset(fragments, SCHEMA, _FORMAT, filesystem)
        found = dataset.to_table(columns=asked, fragment_readahead=AT_ONCE)
        if found.num_rows == expected and all_as_written(fragments):
            require_whole(found.drop_columns("__filename"))
            position = _positions(found, names, packs or {})
    except DAMAGED:
        pass
    if position is None or not all(place in position for place in wanted):
        # one by one: to name the one, or one was replaced or went away while it was read
        tables = {name: read_whole(storage, name, _keys(name, (packs or {}).get(name))) for name in rows}
        single = [table.slice(row, 1) for name, row in wanted if (table := tables[name]) is not None]
        return pa.concat_tables(single).select(list(columns)) if len(single) == len(wanted) else None
    for path, version in zip(found["__filename"].to_pylist(), found["schema_version"].to_pylist(), strict=True):
        check_version(storage, names[path], version)
    return _in_order(found.select(list(columns)), [position[place] for place in wanted])


def _positions(found: pa.Table, names: Mapping[str, str], packs: Mapping[str, Pack]) -> dict[tuple[str, int], int]:
    """File and row in it -> row of `found`. Told by their keys, as Arrow promises no order of row groups."""
    row_of = {name: {key: row for row, key in enumerate(_keys(name, packs.get(name)))} for name in names.values()}
    position = {}
    for i, (path, key) in enumerate(zip(found["__filename"].to_pylist(), found["key"].to_pylist(), strict=True)):
        position[names[path], row_of[names[path]][key]] = i
    return position


def _keys(name: str, pack: Pack | None) -> tuple[str, ...]:
    """The keys of the trials that a file should hold; that of a failure is followed by its time."""
    stem = name.rpartition("/")[2].removesuffix(".parquet")
    return pack.keys if pack else (stem.rpartition("-")[0] if name.startswith("failures/") else stem,)


def is_pack(name: str) -> bool:
    return name.rpartition("/")[2].startswith("pack-")


def _contents(source: str | pa.NativeFile, filesystem: fs.FileSystem | None = None) -> Pack:
    with pq.ParquetFile(source, filesystem=filesystem, pre_buffer=True, page_checksum_verification=True) as file:
        groups = (file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        keys = file.read(columns=["key"])["key"].to_pylist()
        if not keys or None in keys or len(set(keys)) < len(keys):
            raise ValueError("it holds no trial, one twice, or one without a key")
        return Pack(tuple(keys), tuple(accumulate(groups, initial=0)))


def _file(key: str) -> str:
    return f"trials/{key}.parquet"


def _in_order(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """Rows of a table in another order, as slices of it: a copy of long nested columns would take twice the memory."""
    if list(rows) == list(range(table.num_rows)):
        return table
    batches = table.to_batches()
    starts = [0]
    for batch in batches:
        starts.append(starts[-1] + batch.num_rows)
    slices = []
    for row in rows:
        i = bisect_right(starts, row) - 1
        slices.append(batches[i].slice(row - starts[i], 1))
    return pa.Table.from_batches(slices, table.schema)
