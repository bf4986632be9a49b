"""The clips of a data set, decoded once a node into one memory-mapped array with an Arrow index.

A store is a folder of the cache, which lies on the node's own disk, with `samples.bin` (all clips one after another),
`index.parquet` (a row per clip) and `store.json`. It is built in a hidden folder and made visible by one rename. What
guards what:

- The folder's name is made from the listing (path, size, time of change and meaning of every file) and the decoding:
  finding a store reads no audio, and changed recordings are never taken for decoded ones.
- A file lock lets one process of a node build while the others wait. The system frees it when its holder dies, and who
  waited goes on with what is there.
- The journal of a build (see `build`) lets a killed one be continued without decoding anything twice, and without
  keeping what was torn or damaged. The result is the same to the byte.
- The fingerprint, made from the SHA-256 of every recording, says that two nodes hold the same clips: a trial asks for
  the one that its study was planned with.
- Opening compares the lengths of the files only, and `Store.verify` the samples of each clip with their CRC-32.

B items of a batch.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from pydantic import Field, field_validator

from raysd.data.build import JOURNAL, SAMPLES, Decoding, Written, decode_into
from raysd.data.layouts import Clip, require_train_and_test, scan
from raysd.errors import BadInput
from raysd.settings import Settings

FORMAT = 2
"""Raised whenever a store of the same listing would hold something else than before."""

_SHOWN = 5  # bad clips that the one line of an error names
_INDEX = pa.schema(
    [
        *((name, pa.string()) for name in ("path", "machine", "section", "part", "domain", "split")),
        ("label", pa.int8()),
        ("attributes", pa.map_(pa.string(), pa.string())),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("source_rate_hz", pa.int32()),
        ("checksum", pa.string()),
        ("samples_crc32", pa.uint32()),
    ]
)


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
        self.clips: pd.DataFrame = _read_index(folder / "index.parquet")
        """A row per clip, 0 .. N-1, sorted by path: path, machine, section, part, domain, split, label, attributes,
        offset and length (in samples of the store), source_rate_hz, checksum (SHA-256 of the file), samples_crc32. A
        domain or label that is not known is missing; labels are nullable (Int8); attributes are tuples of (name,
        value)."""
        self.samples: np.memmap = np.memmap(folder / SAMPLES, dtype=data.dtype, mode="r")
        """All clips one after another; int16 or float16."""
        self.fingerprint: str = about["fingerprint"]
        """Names the recordings and their decoding: the same wherever the data root lies, and whatever is known of the
        labels of test clips."""
        self.skipped: list[tuple[str, str]] = [(path, reason) for path, reason in about["skipped"]]
        """Path and reason of each clip that was left out by `skip_bad`."""
        self._folder = folder
        self._flat = np.asarray(self.samples)  # slices of a plain array are cheaper than those of a memory map
        self._offset_N: np.ndarray = self.clips["offset"].to_numpy()
        self._length_N: np.ndarray = self.clips["length"].to_numpy()
        if len(self.clips) != about["clips"] or len(self._flat) != self._length_N.sum():
            raise ValueError("files of different lengths")

    def verify(self) -> None:
        """Reads all samples. Raises BadInput where they are not what was decoded: a bad disk, an incomplete copy."""
        for path, offset, length, crc32 in self.clips[["path", "offset", "length", "samples_crc32"]].to_numpy():
            if zlib.crc32(self._flat[offset : offset + length].data) != crc32:
                raise _damaged(self._folder, f"the samples of {path} have another checksum")

    def waveforms(self, rows_B: np.ndarray, starts_B: np.ndarray, samples: int) -> np.ndarray:
        """(B, samples) float32 in [-1, 1): pieces of the clips in rows `rows_B`, from sample `starts_B` of each on.

        A clip that ends before is repeated from its start. (With float16, what was louder than full scale still is.)
        """
        wave_BS = np.empty((len(rows_B), samples), dtype=np.float32)
        places = zip(self._offset_N[rows_B].tolist(), self._length_N[rows_B].tolist(), starts_B.tolist(), strict=True)
        for wave_S, (offset, length, start) in zip(wave_BS, places, strict=True):
            if start + samples <= length:
                wave_S[:] = self._flat[offset + start : offset + start + samples]
            else:
                wave_S[:] = self._flat[offset + (start + np.arange(samples)) % length]
        if self._flat.dtype == np.int16:
            wave_BS *= 2.0**-15
        return wave_BS


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
    Raises BadInput for a folder without such clips (see `layouts.scan`), for a cache that cannot be written, and for
    one with too little room, before anything is decoded. Raises BadClips for clips that cannot be decoded, all of them,
    unless `skip_bad` leaves those out.
    """
    clips = data.scan(root)
    folder = cache / _key(root, data, clips)
    if not folder.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _lock(folder):
                if not folder.is_dir():
                    _build(root, data, clips, folder, skip_bad, progress, workers or os.cpu_count() or 1)
        except OSError as error:
            raise BadInput(f"{cache}: the decoded clips cannot be written there: {error.strerror or error}") from None
    return _open(root, data, folder, skip_bad, len(clips))


def known_fingerprint(root: Path, data: Listing, cache: Path, skip_bad: bool = False) -> str | None:
    """The fingerprint that `open_store` would give, where the store is built already; reads no audio, builds nothing.

    Raises BadInput as `open_store` does for a folder without such clips and for bad clips that are known already.
    """
    clips = data.scan(root)
    folder = cache / _key(root, data, clips)
    return _open(root, data, folder, skip_bad, len(clips)).fingerprint if folder.is_dir() else None


def _key(root: Path, data: Listing, clips: list[Clip]) -> str:
    """Names a store: the listing with sizes and times of change, and the decoding."""
    digest = hashlib.sha256(json.dumps([FORMAT, _decoding(data)]).encode())
    for clip in clips:
        try:
            stat = os.stat(root / clip.path)
            state = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            state = None
        digest.update(f"{clip!r}{state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:20]


def _decoding(data: Listing) -> dict[str, Any]:
    return {"sample_rate_hz": data.sample_rate_hz, "channel": data.channel, "dtype": data.dtype}


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
    folder: Path,
    skip_bad: bool,
    progress: Callable[[int, int], None] | None,
    workers: int,
) -> None:
    """Whatever ends this early leaves its work in the hidden folder, for the next one to continue."""
    building = _building(root, data, folder)
    written = decode_into(building, root, clips, Decoding(**_decoding(data)), progress, workers)
    rows: list[dict[str, Any]] = []
    kept: list[Clip] = []
    bad: list[tuple[str, str]] = []
    offset = 0
    for clip, entry in zip(clips, written, strict=True):
        if entry.bad is not None:
            bad.append((clip.path, entry.bad))
        else:
            kept.append(clip)
            rows.append(_row(clip, entry, offset))
            offset += entry.length
    if bad and not (skip_bad and kept):
        _refuse(root, bad, len(clips))
    data.require(root, kept)
    pq.write_table(pa.Table.from_pylist(rows, schema=_INDEX), building / "index.parquet")
    about = {"fingerprint": _fingerprint(data, rows), "clips": len(rows), "skipped": bad}
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


def _row(clip: Clip, entry: Written, offset: int) -> dict[str, Any]:
    return {
        **{name: getattr(clip, name) for name in ("path", "machine", "section", "part", "domain", "split", "label")},
        "attributes": list(clip.attributes),
        "offset": offset,
        "length": entry.length,
        "source_rate_hz": entry.source_rate_hz,
        "checksum": entry.checksum,
        "samples_crc32": entry.samples_crc32,
    }


def _fingerprint(data: Listing, rows: list[dict[str, Any]]) -> str:
    """What is trained on and scored. Not what only the truth lists say of test clips: a trial needs none of it."""
    names = ("path", "checksum", "machine", "section", "part", "split", "attributes")
    clips = [[*(row[name] for name in names), row["domain"] if row["split"] == "train" else None] for row in rows]
    text = json.dumps([_decoding(data), sorted(clips, key=lambda clip: clip[0])])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _read_index(path: Path) -> pd.DataFrame:
    clips = pq.read_table(path, schema=_INDEX, memory_map=True).to_pandas()
    clips["label"] = clips["label"].astype("Int8")
    clips["attributes"] = [tuple(pairs) for pairs in clips["attributes"]]
    return clips
