"""Clips decoded one after another into one file of samples, with a journal by which a killed build is continued.

`samples.bin` grows by some megabytes at a time, and then `journal` by a line for each clip in them: what was decoded,
or why the clip is bad, and the CRC-32 of its samples, all behind a CRC-32 of the line itself. Nothing waits for the
disk in between, and the samples of a plain recording are not copied: they are read to where they are hashed and written
from. So what a killed process, a full disk or a power cut left is read again before it is continued: the
first line that is torn, or whose samples are torn, damaged or missing, ends what is kept. A killed build has lost what
was in its memory, a fraction of a second of decoding. Bad clips are tried again, as a right to read or a network may
have come back. The journal does not name the clips: the folder is named after the listing (see `store`), whose n-th
clip the n-th line is about.
"""

import hashlib
import json
import mmap
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from errno import EINVAL
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, NamedTuple

import numpy as np
from zlib_ng import zlib_ng  # the CRC-32 of zlib at many times its speed

from raysd.data.audio import Unusable, decode, plain_wav
from raysd.data.layouts import Clip
from raysd.errors import BadInput

SAMPLES, JOURNAL = "samples.bin", "journal"

_TOGETHER = 16  # clips that a worker takes at a time, and that are written at once
_AHEAD = 3  # times as many, a worker, that are being decoded, or wait for those before them
_WRITTEN = 3  # times as many that wait for the disk: none is as fast at one moment as at the next
_AHEAD_BYTES = 1 << 28  # of samples being decoded, as far as is known: fewer clips ahead where they are long
_WHOLE_BYTES = 64 << 20  # a file up to this size is read into memory once, and not a second time for its checksum
_HEADER_BYTES = 44  # that a plain wav has before its samples
_BLOCK_BYTES = 4096  # what is written past the page cache begins and ends at such a place, in memory and in the file
_PAGE_BYTES = 2 << 20  # of a huge page: from those the disk takes large pieces, half as fast again as small ones

_Memories = SimpleQueue[memoryview]
"""Memory into which clips may be decoded."""


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
    bytes_N: np.ndarray,
    decoding: Decoding,
    progress: Callable[[int, int], None] | None,
    workers: int,
) -> list[Written]:
    """Decodes `clips` of `root` in their order into `folder`, by `workers` threads; gives what became of each.

    `bytes_N` (N,) are the sizes of the clips' files, -1 where there is none. Continues what the folder holds already,
    which must have been begun for the same listing and decoding, and by no process that is still at it. `progress` gets
    (clips done, clips in all) after each, and once before for those that were there already. Raises BadInput before
    anything is decoded where the disk has too little room, OSError for a folder that cannot be written.
    """
    folder.mkdir(exist_ok=True)
    written = _resume(folder, root, clips, decoding)
    there = len(written)
    expected_N = _require_room(folder, root, clips[there:], bytes_N[there:], decoding)
    if written and progress:
        progress(there, len(clips))
    memories = _Memories()
    for _ in range(_AHEAD * workers + _WRITTEN):
        memories.put(memoryview(b""))
    with _appending(folder, memories) as (samples, append):
        for some in _decode_all(root, clips[there:], expected_N, decoding, workers, memories, samples):
            samples.take(some.memory, some.start, some.end)
            for entry in some.entries:
                append(entry, entry.length * np.dtype(decoding.dtype).itemsize)
                written.append(entry)
                if progress:
                    progress(len(written), len(clips))
            samples.flush()
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
            if entry is None or (entry.bad is not None and entry != _decode_one(f"{root}/{clip.path}", decoding)):
                break
            piece = samples.read(entry.length * np.dtype(decoding.dtype).itemsize)
            if zlib_ng.crc32(piece) != entry.samples_crc32:
                break
            written.append(entry)
            samples_end += len(piece)
            journal_end += len(line)
        samples.truncate(samples_end)
        journal.truncate(journal_end)
    return written


def _line(entry: Written) -> bytes:
    text = json.dumps(entry._asdict()).encode() + b"\n"
    return b"%08x %s" % (zlib_ng.crc32(text), text)


def _read_line(line: bytes) -> Written | None:
    """None for a line that is not as it was written."""
    crc32, _, text = line.partition(b" ")
    return Written(**json.loads(text)) if crc32 == b"%08x" % zlib_ng.crc32(text) and text else None


def _require_room(folder: Path, root: Path, clips: list[Clip], bytes_N: np.ndarray, decoding: Decoding) -> list[int]:
    """The bytes that each clip is expected to take: what the first good clip of its folder takes for a byte of its
    file behind the header, times the size of its own. Of plain recordings that is exact. Raises BadInput where the disk
    has less room than all will take."""
    expected_N: list[int] = []
    share: dict[tuple[str, str], float] = {}
    for clip, num_bytes in zip(clips, bytes_N.tolist(), strict=True):
        kind, num_bytes = (clip.path.rpartition("/")[0], clip.path.rpartition(".")[2]), num_bytes - _HEADER_BYTES
        if kind not in share and num_bytes > 0:
            entry = _decode_one(f"{root}/{clip.path}", decoding)
            if entry.bad is None:
                share[kind] = entry.length * np.dtype(decoding.dtype).itemsize / num_bytes
        expected_N.append(round(share.get(kind, 0) * max(num_bytes, 0)))  # nothing is written of a bad clip
    free, wanted = shutil.disk_usage(folder).free, sum(expected_N)
    if free < wanted:
        raise BadInput(
            f"{folder.parent}: {free / 1e6:,.0f} MB are free there, but the decoded clips of {root} take "
            f"{wanted / 1e6:,.0f} MB more; make room there, or name another folder with --cache"
        )
    return expected_N


class _Decoded(NamedTuple):
    entries: list[Written]
    memory: memoryview
    start: int
    end: int
    """Where in memory the samples of the clips stand, one after another."""


def _decode_all(
    root: Path,
    clips: list[Clip],
    expected_N: list[int],
    decoding: Decoding,
    workers: int,
    memories: _Memories,
    samples: "_Samples",
) -> Iterator[_Decoded]:
    """What was decoded, in the order of the clips, in some of the `memories`.

    Threads do, for reading, hashing, decoding and resampling release Python's lock. Their memory is used again and
    again: to get fresh memory from the system for each clip costs as much as to read it. Clips are put where they can
    be written from: as far behind the begin of a block as they will come to stand in the file.
    """
    waiting: deque[tuple[int, Future[_Decoded]]] = deque()
    ahead_bytes = first = 0
    pool = ThreadPoolExecutor(workers)
    try:
        while first < len(clips) or waiting:
            last = min(first + _TOGETHER, len(clips))
            expected, room = sum(expected_N[first:last]), len(waiting) < _AHEAD * workers
            if first < len(clips) and room and (not waiting or ahead_bytes + expected <= _AHEAD_BYTES):
                paths = [f"{root}/{clip.path}" for clip in clips[first:last]]
                start = _BLOCK_BYTES + (samples.end + ahead_bytes) % _BLOCK_BYTES
                memory = memories.get()
                waiting.append((expected, pool.submit(_decode_some, paths, decoding, memory, start, start + expected)))
                ahead_bytes, first = ahead_bytes + expected, last
                continue
            expected, future = waiting.popleft()
            yield future.result()
            ahead_bytes -= expected
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_some(paths: list[str], decoding: Decoding, memory: memoryview, start: int, end: int) -> _Decoded:
    """Decodes clips into memory from byte `start` on, up to about byte `end`."""
    memory, at, entries = _grown(memory, 0, end), start, list[Written]()
    for path in paths:
        entry, memory = _decode(path, decoding, memory, at)
        entries.append(entry)
        at += entry.length * np.dtype(decoding.dtype).itemsize
    return _Decoded(entries, memory, start, at)


def _decode_one(path: str, decoding: Decoding) -> Written:
    return _decode(path, decoding, memoryview(bytearray(_HEADER_BYTES)), _HEADER_BYTES)[0]


def _decode(path: str, decoding: Decoding, memory: memoryview, at: int) -> tuple[Written, memoryview]:
    """What the journal is to say of a clip, and the memory in which its samples stand from byte `at` on: that given, or
    a larger one with what stood before them."""
    before = at - _HEADER_BYTES
    kept = bytes(memory[before:at])  # the file is read so that the samples of a plain one stand at their place
    samples, source_rate_hz, entry = None, decoding.sample_rate_hz, None
    try:
        content, memory = _read(path, memory, before)
        checksum = _sha256(path, content)
        if decoding.dtype == "int16":
            samples = plain_wav(content, decoding.sample_rate_hz, decoding.channel)
        if samples is None:
            wave, source_rate_hz = decode(Path(path), decoding.sample_rate_hz, decoding.channel)
            samples = _quantise(wave, decoding.dtype)
        memory = _grown(memory, at, at + samples.nbytes)
        place = np.frombuffer(memory, decoding.dtype, len(samples), at)
        if samples.ctypes.data != place.ctypes.data or samples.strides != place.strides:
            place[:] = samples
        entry = Written(None, len(place), source_rate_hz, checksum, zlib_ng.crc32(place.data))
    except Unusable as error:
        entry = Written(str(error))
    except OSError as error:
        entry = Written(f"cannot be read: {error.strerror or error}")
    memory[before:at] = kept
    return entry, memory


def _read(path: str, memory: memoryview, at: int) -> tuple[memoryview, memoryview]:
    """The bytes of a file, read to byte `at` of the memory, and that memory, or a larger one; no bytes of a file that
    is too large to be read at once."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        if size > _WHOLE_BYTES:
            return memoryview(b""), memory
        memory = _grown(memory, at, at + size)
        content, done = memory[at : at + size], 0
        while done < size and (read := os.readv(file, [content[done:]])):
            done += read
        return content[:done], memory
    finally:
        os.close(file)


def _grown(memory: memoryview, used: int, size: int) -> memoryview:
    """The memory, or where it is smaller than `size` a larger one, with the same in its first `used` bytes."""
    if size <= len(memory):
        return memory
    pages = mmap.mmap(-1, -(-size // _PAGE_BYTES) * _PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # not every system has huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    grown = memoryview(pages)
    grown[:used] = memory[:used]
    return grown


def _sha256(path: str, content: memoryview) -> str:
    if content:
        return hashlib.sha256(content).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quantise(wave: np.ndarray, dtype: Literal["int16", "float16"]) -> np.ndarray:
    if dtype == "int16":
        scaled = wave * 2.0**15
        np.rint(scaled, out=scaled)
        return np.clip(scaled, -(2**15), 2**15 - 1, out=scaled).astype(np.int16)
    if np.abs(wave).max() > np.finfo(np.float16).max:
        raise Unusable("holds samples that are too large for float16")
    return wave.astype(np.float16)


@contextmanager
def _appending(folder: Path, memories: _Memories) -> Iterator[tuple["_Samples", Callable[[Written, int], None]]]:
    """The file of samples of `folder`, and what appends a clip of so many bytes, which stands in the memory that the
    file took, to it and to the journal; all is written when the context ends, however."""
    lines: deque[tuple[int, bytes]] = deque()
    samples = _Samples(folder / SAMPLES, memories)
    with (folder / JOURNAL).open("ab", buffering=0) as journal:

        def append(entry: Written, num_bytes: int) -> None:
            samples.end += num_bytes
            lines.append((samples.end, _line(entry)))
            note()

        def note() -> None:
            """Only what the samples' file holds is noted."""
            whole = []
            while lines and lines[0][0] <= samples.written:
                whole.append(lines.popleft()[1])
            if whole:
                journal.write(b"".join(whole))

        try:
            yield samples, append
        finally:
            try:
                samples.close()
            finally:
                note()


class _Samples:
    """Appends to the file of samples, past the page cache where the file system lets it, by a thread of its own.

    What goes through the page cache is copied once more, and a disk that writes back gigabytes of it stops whoever
    writes on; on the disks seen it was several times slower.
    """

    def __init__(self, path: Path, memories: _Memories) -> None:
        self._file = self._direct = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        with suppress(OSError):  # not every file system can
            self._direct = os.open(path, os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0))
        self.written = self.end = os.fstat(self._file).st_size
        """Where the file ends, and where it will end when all is written."""
        used = self.end % _BLOCK_BYTES
        self._at = self.end - used  # where in the file belongs what stands in memory from `_begin` on
        self._tail = os.pread(self._file, used, self._at)  # of the last block, which is not whole
        self._memory, self._begin = memoryview(b""), 0
        self._memories = memories
        self._writer = ThreadPoolExecutor(1)
        self._writing: deque[Future[None]] = deque()

    def take(self, memory: memoryview, start: int, end: int) -> None:
        """The clips that are appended next stand in `memory`, from byte `start` to `end`; a block or more is before."""
        moved = start - (start - len(self._tail)) % _BLOCK_BYTES
        if moved != start:  # the sizes of the files did not say how long the clips before are
            memory[moved : moved + end - start] = memory[start:end]
        self._memory, self._begin = memory, moved - len(self._tail)
        memory[self._begin : moved] = self._tail

    def flush(self) -> None:
        """Writes the whole blocks of what was appended, some time. Raises OSError where earlier ones could not be."""
        begin = self._begin
        whole = (self.end - self._at) // _BLOCK_BYTES * _BLOCK_BYTES
        self._tail = bytes(self._memory[begin + whole : begin + self.end - self._at])
        writing = self._writer.submit(self._write_and_free, self._memory, begin, begin + whole, self._at)
        self._writing.append(writing)
        self._memory, self._begin = memoryview(self._tail), 0
        self._at += whole
        while self._writing and self._writing[0].done():
            self._writing.popleft().result()

    def close(self) -> None:
        """Writes what is left."""
        try:
            self.flush()
            for writing in self._writing:
                writing.result()
            self._write(memoryview(self._tail), self._at, self._file)
        finally:
            self._writer.shutdown()
            for file in {self._file, self._direct}:
                os.close(file)

    def _write_and_free(self, memory: memoryview, begin: int, end: int, at: int) -> None:
        try:
            self._write(memory[begin:end], at, self._direct)
        finally:
            self._memories.put(memory)

    def _write(self, data: memoryview, at: int, file: int) -> None:
        """Nothing where what comes before could not be written."""
        done = 0
        while done < len(data) and at <= self.written:
            try:
                done += os.pwrite(file, data[done:], at + done)
            except OSError as error:
                if error.errno != EINVAL or file == self._file:
                    raise
                file = self._file  # it lets files be opened so, but not written
            self.written = max(self.written, at + done)
