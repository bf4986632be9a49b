"""Clips decoded one after another into one file of samples, with a journal by which a killed build is continued.

`samples.bin` grows clip by clip, and `journal` by one line after each clip: what was decoded, or why the clip is bad,
and the CRC-32 of its samples, all behind a CRC-32 of the line itself. Nothing waits for the disk in between. So what a
killed process, a full disk or a power cut left is read again before it is continued: the first line that is torn, or
whose samples are torn, damaged or missing, ends what is kept. Bad clips are tried again, as a right to read or a
network may have come back. The journal does not name the clips: the folder is named after the listing (see `store`),
whose n-th clip the n-th line is about.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from raysd.data.audio import Unusable, decode
from raysd.data.layouts import Clip
from raysd.errors import BadInput

SAMPLES, JOURNAL = "samples.bin", "journal"

_DECODED_AT_ONCE = 64  # clips that wait in memory to be written


class Decoding(NamedTuple):
    """How clips are decoded: the settings of the same names."""

    sample_rate_hz: int
    channel: int | Literal["mean"]
    dtype: Literal["int16", "float16"]


class Written(NamedTuple):
    """What the journal holds of a clip."""

    bad: str | None = None
    """The reason why the clip cannot be used; nothing is written of it."""
    length: int = 0
    """Samples written."""
    source_rate_hz: int = 0
    checksum: str = ""
    """SHA-256 of the clip's file."""
    samples_crc32: int = 0


def decode_into(
    folder: Path,
    root: Path,
    clips: list[Clip],
    decoding: Decoding,
    progress: Callable[[int, int], None] | None,
    workers: int,
) -> list[Written]:
    """Decodes `clips` of `root` in their order into `folder`, by `workers` threads; gives what became of each.

    Continues what the folder holds already, which must have been begun for the same listing and decoding, and by no
    process that is still at it. `progress` gets (clips done, clips in all) after each, and once before for those that
    were there already. Raises BadInput before anything is decoded where the disk has too little room, OSError for a
    folder that cannot be written.
    """
    folder.mkdir(exist_ok=True)
    written = _resume(folder, root, clips, decoding)
    _require_room(folder, root, clips[len(written) :], decoding)
    if written and progress:
        progress(len(written), len(clips))
    with (folder / SAMPLES).open("ab") as samples, (folder / JOURNAL).open("ab") as journal:
        for entry, wave in _decode_all(root, clips[len(written) :], decoding, workers):
            samples.write(wave.data)
            samples.flush()
            journal.write(_line(entry))
            journal.flush()
            written.append(entry)
            if progress:
                progress(len(written), len(clips))
    return written


def _resume(folder: Path, root: Path, clips: list[Clip], decoding: Decoding) -> list[Written]:
    """What the folder holds of the first clips, whole and unchanged; cuts off what follows."""
    written: list[Written] = []
    samples_end = journal_end = 0
    with (folder / SAMPLES).open("a+b") as samples, (folder / JOURNAL).open("a+b") as journal:
        samples.seek(0)
        journal.seek(0)
        for clip, line in zip(clips, journal, strict=False):
            entry = _read_line(line)
            if entry is None or (entry.bad is not None and entry != _decode(root / clip.path, decoding)[0]):
                break
            piece = samples.read(entry.length * np.dtype(decoding.dtype).itemsize)
            if zlib.crc32(piece) != entry.samples_crc32:
                break
            written.append(entry)
            samples_end += len(piece)
            journal_end += len(line)
        samples.truncate(samples_end)
        journal.truncate(journal_end)
    return written


def _line(entry: Written) -> bytes:
    text = json.dumps(entry._asdict()).encode() + b"\n"
    return b"%08x %s" % (zlib.crc32(text), text)


def _read_line(line: bytes) -> Written | None:
    """None for a line that is not as it was written."""
    crc32, _, text = line.partition(b" ")
    return Written(**json.loads(text)) if crc32 == b"%08x" % zlib.crc32(text) and text else None


def _require_room(folder: Path, root: Path, clips: list[Clip], decoding: Decoding) -> None:
    """Raises BadInput where the disk has less room than `clips` will take: what the first good clip of each of their
    folders takes for a byte of its file, times the sizes of all files."""
    wanted = 0.0
    share: dict[tuple[str, str], float] = {}
    for clip in clips:
        kind = (os.path.dirname(clip.path), os.path.splitext(clip.path)[1])
        with suppress(OSError):  # a bad clip, of which nothing is written
            size = os.stat(root / clip.path).st_size
            if kind not in share and (takes := _decode(root / clip.path, decoding)[1].nbytes):
                share[kind] = takes / size
            wanted += share.get(kind, 0) * size
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise BadInput(
            f"{folder.parent}: {free / 1e6:,.0f} MB are free there, but the decoded clips of {root} take "
            f"{wanted / 1e6:,.0f} MB more; make room there, or name another folder with --cache"
        )


def _decode_all(
    root: Path, clips: list[Clip], decoding: Decoding, workers: int
) -> Iterator[tuple[Written, np.ndarray]]:
    """What was decoded of each clip, in their order. Threads do, for decoding, hashing and resampling release Python's
    lock."""
    waiting: deque[Future[tuple[Written, np.ndarray]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for clip in clips:
            waiting.append(pool.submit(_decode, root / clip.path, decoding))
            if len(waiting) == _DECODED_AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _decode(path: Path, decoding: Decoding) -> tuple[Written, np.ndarray]:
    """What the journal is to say of a clip, and its samples: none of a bad one."""
    try:
        wave, source_rate_hz = decode(path, decoding.sample_rate_hz, decoding.channel)
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        samples = _quantise(wave, decoding.dtype)
        return Written(None, len(samples), source_rate_hz, checksum, zlib.crc32(samples.data)), samples
    except Unusable as error:
        reason = str(error)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    return Written(reason), np.empty(0, dtype=decoding.dtype)


def _quantise(wave: np.ndarray, dtype: Literal["int16", "float16"]) -> np.ndarray:
    if dtype == "int16":
        return np.clip(np.rint(wave * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    if np.abs(wave).max() > np.finfo(np.float16).max:
        raise Unusable("holds samples that are too large for float16")
    return wave.astype(np.float16)
