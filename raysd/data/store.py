"""The clips of a data set, decoded once a node into one memory-mapped array with an Arrow index.

A store is a folder of the cache, which lies on the node's own disk, with `samples.bin` (all clips one after another),
`index.arrow` (a row per clip) and `store.json`. It is built in a hidden folder and made visible by one rename. What
guards what:

- The folder's name is made from the listing (path, size, time of change and meaning of every file) and the decoding:
  finding a store reads no audio, and changed recordings are never taken for decoded ones.
- A file lock lets one process of a node build while the others wait. The system frees it when its holder dies, and who
  waited goes on with what is there.
- The journal of a build (see `build`) lets a killed one be continued without decoding anything twice but what was in
  memory, and without keeping what was torn or damaged. The result is the same to the byte.
- The fingerprint, made from the SHA-256 of every recording, says that two nodes hold the same clips: a trial asks for
  the one that its study was planned with.
- Opening compares the checksum of the index and the lengths of the files, and `Store.verify` the samples of each clip
  with their CRC-32.

A corpus that is too large for one node lies in `shards`. What all of this costs is in docs/store.md.

B items of a batch.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import pyarrow as pa
from filelock import FileLock, Timeout
from pydantic import Field, field_validator
from zlib_ng import zlib_ng  # the CRC-32 of zlib at many times its speed

from raysd.data.build import JOURNAL, SAMPLES, Decoding, decode_into
from raysd.data.index import INDEX, clips_of, fingerprint_of, read_index, write_index
from raysd.data.layouts import Clip, require_train_and_test, scan
from raysd.data.listed import Listed, Note
from raysd.errors import BadInput
from raysd.settings import Settings

FORMAT = 3
"""Raised whenever a store of the same listing would hold something else than before."""

_SHOWN = 5  # bad clips that the one line of an error names


class Listing(Protocol):
    """Which recordings a store is made of, and how they are decoded."""

    @property
    def sample_rate_hz(self) -> int: ...
    @property
    def channel(self) -> int | Literal["mean"]: ...
    @property
    def dtype(self) -> Literal["int16", "float16"]: ...

    def scan(self, root: Path) -> list[Clip]:
        """All clips under `root`, sorted by path. Raises BadInput for a folder that has no such clips."""
        ...

    def require(self, root: Path, clips: list[Clip]) -> None:
        """Raises BadInput where the clips that could be decoded are not enough for what they are for."""
        ...


@runtime_checkable
class Remembered(Listing, Protocol):
    """A listing that is made anew at each scan, from its settings and what lies below `root` alone: what it found is
    noted, and found again as long as nothing there was changed."""

    @property
    def settings_text(self) -> str | None:
        """Names its settings; None where it is not such a listing after all."""
        ...


class Data(Settings):
    """Which recordings, and how they are decoded."""

    year: Literal[2020, 2021, 2022, 2023, 2024] = 2020
    """The DCASE year whose layout, file names, sections and official score hold."""
    machines: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Only these machines. null: all that are there."""
    additional: bool = False
    """true: also train on the additional training data, and score the evaluation test clips (`eval_data`)."""
    model_per: Literal["data_set", "machine"] = "data_set"
    """One model over all machines, or one for each."""
    sample_rate_hz: Annotated[int, Field(gt=0)] = 16_000
    """Rate to which all clips are resampled."""
    channel: Annotated[int, Field(ge=0)] | Literal["mean"] = 0
    """Which channel of a recording with several is used, counted from 0; or their mean."""
    dtype: Literal["int16", "float16"] = "int16"
    """How samples are kept. int16 keeps 16-bit recordings exactly and clips louder floating-point ones at full scale
    (±1); float16 has 11 significant bits and keeps what is louder than full scale."""

    @field_validator("machines")
    @classmethod
    def _canonical(cls, machines: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if machines is None else tuple(sorted(set(machines)))

    @property
    def settings_text(self) -> str:
        return repr(self)

    def scan(self, root: Path) -> list[Clip]:
        """See `layouts.scan`."""
        return scan(root, self.year, self.machines, self.additional)

    def require(self, root: Path, clips: list[Clip]) -> None:
        """See `layouts.require_train_and_test`."""
        require_train_and_test(root, clips)


class BadClips(BadInput):
    """Clips that cannot be used."""

    clips: tuple[tuple[str, str], ...] = ()
    """Path (relative to the data root) and reason of each."""


class Store:
    """An opened store."""

    def __init__(self, root: Path, data: Listing, folder: Path) -> None:
        about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        self.root = root
        self.data = data
        self.samples: np.memmap = np.memmap(folder / SAMPLES, dtype=data.dtype, mode="r")
        """All clips one after another; int16 or float16."""
        self.fingerprint: str = about["fingerprint"]
        """Names the recordings and their decoding: the same wherever the data root lies, and whatever is known of the
        labels of test clips."""
        self.skipped: list[tuple[str, str]] = [(path, reason) for path, reason in about["skipped"]]
        """Path and reason of each clip that was left out by `skip_bad`."""
        self.folder = folder
        self._index = read_index(folder / INDEX, about["index_crc32"])
        self._flat = np.asarray(self.samples)  # slices of a plain array are cheaper than those of a memory map
        self._offset_N: np.ndarray = self._index["offset"].to_numpy()
        self._length_N: np.ndarray = self._index["length"].to_numpy()
        if len(self._flat) != self._length_N.sum():
            raise ValueError("files of different lengths")

    @cached_property
    def clips(self) -> pd.DataFrame:
        """A row per clip, 0 .. N-1, sorted by path: path, machine, section, part, domain, split, label, attributes,
        offset and length (in samples of the store), source_rate_hz, checksum (SHA-256 of the file), samples_crc32. A
        domain or label that is not known is missing; labels are nullable (Int8); attributes are tuples of (name,
        value)."""
        return clips_of(self._index)

    def verify(self) -> None:
        """Reads all samples. Raises BadInput where they are not what was decoded: a bad disk, an incomplete copy."""
        for path, offset, length, crc32 in self.clips[["path", "offset", "length", "samples_crc32"]].to_numpy():
            if zlib_ng.crc32(self._flat[offset : offset + length].data) != crc32:
                raise _damaged(self.folder, f"the samples of {path} have another checksum")

    def waveforms(self, rows_B: np.ndarray, starts_B: np.ndarray, samples: int) -> np.ndarray:
        """(B, samples) float32 in [-1, 1): pieces of the clips in rows `rows_B`, from sample `starts_B` of each on.

        A clip that ends before is repeated from its start. (With float16, what was louder than full scale still is.)
        """
        wave_BS = np.empty((len(rows_B), samples), dtype=np.float32)
        self.read(rows_B, starts_B, wave_BS)
        if self._flat.dtype == np.int16:
            wave_BS *= 2.0**-15
        return wave_BS

    def read(self, rows_B: np.ndarray, starts_B: np.ndarray, raw_BS: np.ndarray) -> None:
        """Fills `raw_BS` with the same pieces, their numbers as they are kept: int16 not yet divided by 2**15."""
        places = zip(self._offset_N[rows_B].tolist(), self._length_N[rows_B].tolist(), starts_B.tolist(), strict=True)
        for raw_S, (offset, length, start) in zip(raw_BS, places, strict=True):
            if start + len(raw_S) <= length:
                raw_S[:] = self._flat[offset + start : offset + start + len(raw_S)]
            else:
                raw_S[:] = self._flat[offset + (start + np.arange(len(raw_S))) % length]


def open_store(
    root: Path,
    data: Listing,
    cache: Path,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Store:
    """The store of the clips under `root` that `data` asks for; built below `cache` by `workers` threads if need be.

    Several processes may ask at the same time: one builds, the others wait. A build that did not end is continued.
    `progress` gets (clips done, clips in all) after each clip, and once before for those that were there already.
    Raises BadInput for a folder without such clips (see `Listing.scan`), for a cache that cannot be written, and for
    one with too little room, before anything is decoded. Raises BadClips for clips that cannot be decoded, all of them,
    unless `skip_bad` leaves those out.
    """
    listed, bytes_N, folder, note = _find(root, data, cache)
    if not folder.is_dir():
        clips = listed.clips or data.scan(root)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _lock(folder):
                if not folder.is_dir():
                    _build(root, data, clips, bytes_N, folder, skip_bad, progress, workers or os.cpu_count() or 1)
        except OSError as error:
            raise BadInput(
                f"{cache}: the decoded clips cannot be written there: {error.strerror or error}; make room, or choose "
                "another --cache"
            ) from None
    if note:
        note.write(listed)
    return _open(root, data, folder, skip_bad, len(listed.paths))


def known_fingerprint(root: Path, data: Listing, cache: Path, skip_bad: bool = False) -> str | None:
    """The fingerprint that `open_store` would give, where the store is built already; reads no audio, builds nothing.

    Raises BadInput as `open_store` does for a folder without such clips and for bad clips that are known already.
    """
    listed, _, folder, _ = _find(root, data, cache)
    return _open(root, data, folder, skip_bad, len(listed.paths)).fingerprint if folder.is_dir() else None


def _find(root: Path, data: Listing, cache: Path) -> tuple[Listed, np.ndarray, Path, Note | None]:
    """What is there now of the listing, the sizes in bytes of its clips, (N,), the folder of their store, and the note
    that is to be written where none held."""
    settings = data.settings_text if isinstance(data, Remembered) else None
    note = None if settings is None else Note(cache, root, settings)
    listed = note.read() if note else None
    if listed is None:
        if note:
            note.begin()
        listed = Listed.of(data.scan(root))
    else:
        note = None
    states_N2 = listed.states(root)
    key = hashlib.sha256(json.dumps([FORMAT, _decoding(data), listed.digest]).encode())
    key.update(states_N2.tobytes())
    return listed, states_N2[:, 0], cache / key.hexdigest()[:20], note


def _decoding(data: Listing) -> Decoding:
    return Decoding(data.sample_rate_hz, data.channel, data.dtype)


def _open(root: Path, data: Listing, folder: Path, skip_bad: bool, of: int) -> Store:
    """A store that is built already, of a listing of `of` clips."""
    try:
        store = Store(root, data, folder)
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise _damaged(folder, str(error)) from None
    if store.skipped and not skip_bad:
        _refuse(root, store.skipped, of)
    return store


def _damaged(folder: Path, reason: str) -> BadInput:
    return BadInput(f"{folder}: these decoded clips are damaged ({reason}); delete the folder, it is made anew")


def _refuse(root: Path, bad: list[tuple[str, str]], of: int) -> NoReturn:
    shown = "; ".join(f"{path}: {reason}" for path, reason in bad[:_SHOWN])
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    error = BadClips(
        f"{root}: {len(bad)} of {of} clips cannot be used: {shown}{more}. Mend or remove them, or leave them out with "
        "--skip-bad, which the results record"
    )
    error.clips = tuple(bad)
    raise error


def _build(
    root: Path,
    data: Listing,
    clips: list[Clip],
    bytes_N: np.ndarray,
    folder: Path,
    skip_bad: bool,
    progress: Callable[[int, int], None] | None,
    workers: int,
) -> None:
    """Whatever ends this early leaves its work in the hidden folder, for the next one to continue."""
    building = _building(root, data, folder)
    written = decode_into(building, root, clips, bytes_N, _decoding(data), progress, workers)
    bad = [(clip.path, entry.bad) for clip, entry in zip(clips, written, strict=True) if entry.bad is not None]
    if bad:
        clips = [clip for clip, entry in zip(clips, written, strict=True) if entry.bad is None]
        written = [entry for entry in written if entry.bad is None]
        if not (skip_bad and clips):
            _refuse(root, bad, len(bad) + len(clips))
    data.require(root, clips)
    about = {
        "fingerprint": fingerprint_of(_decoding(data), clips, written),
        "index_crc32": write_index(building / INDEX, clips, written),
        "skipped": bad,
    }
    (building / "store.json").write_text(json.dumps(about), encoding="utf-8")
    for path in building.iterdir():
        with path.open("rb+") as file:
            os.fsync(file)  # a power cut may not leave a visible store with holes
    building.rename(folder)
    (folder / JOURNAL).unlink()  # only now: without it, a build that is killed before would start anew


def _building(root: Path, data: Listing, folder: Path) -> Path:
    """The hidden folder in which the store is built: the one that was begun for it, or a new one.

    Its name also says what was asked of which data root. A build that was begun for the same, when the clips there were
    others, will never be continued: it is removed, unless a process is still at it.
    """
    asked = [str(root.resolve()), repr(data)]
    prefix = f".building-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]}-"
    building = next(folder.parent.glob(f".building-*-{folder.name}"), folder.with_name(prefix + folder.name))
    for other in folder.parent.glob(f"{prefix}*"):
        if other != building:
            with suppress(Timeout), _lock(other.with_name(other.name.removeprefix(prefix)), timeout=0):
                shutil.rmtree(other, ignore_errors=True)
    return building


def _lock(folder: Path, timeout: float = -1) -> FileLock:
    """What a process holds that builds the store `folder`; the system frees it when the process dies."""
    return FileLock(folder.with_name(f"{folder.name}.lock"), timeout)
