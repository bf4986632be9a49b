"""Clips decoded one after another into one file of samples, with a journal by which a killed build is continued.

`samples.bin` grows by some megabytes at a time, and then `journal` by a line for each clip in them: what was decoded,
or why the clip is bad, and the CRC-32 of its samples, all behind a CRC-32 of the line itself. Nothing waits for the
disk in between. So what a killed process, a full disk or a power cut left is read again before it is continued: the
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
from typing import Literal, NamedTuple

import numpy as np
from zlib_ng import zlib_ng  # the CRC-32 of zlib at many times its speed

from raysd.data.audio import Unusable, decode, plain_wav
from raysd.data.layouts import Clip
from raysd.errors import BadInput

SAMPLES, JOURNAL = "samples.bin", "journal"

_TOGETHER = 8  # clips that a worker takes at a time
_AHEAD = 4  # times as many, a worker, that are being decoded, or wait in memory to be written
_AHEAD_BYTES = 1 << 28  # of samples in them, as far as is known: fewer clips ahead where they are long
_STAGED_BYTES = 8 << 20  # samples that are written at once
_STAGES = 4  # as many are filled, or wait for the disk, at a time: no disk is as fast at one moment as at the next
_WHOLE_BYTES = 64 << 20  # a file up to this size is read into memory once, and not a second time for its checksum
_BLOCK_BYTES = 4096  # what is written past the page cache begins and ends at such a place


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
    with _appending(folder) as append:
        for entry, samples in _decode_all(root, clips[there:], expected_N, decoding, workers):
            append(entry, samples)
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
            if entry is None or (
                entry.bad is not None and entry != _decode(f"{root}/{clip.path}", decoding, bytearray()).entry
            ):
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
    file, times the size of its own. Raises BadInput where the disk has less room than all will take."""
    expected_N: list[int] = []
    share: dict[tuple[str, str], float] = {}
    for clip, num_bytes in zip(clips, bytes_N.tolist(), strict=True):
        kind = (clip.path.rpartition("/")[0], clip.path.rpartition(".")[2])
        if kind not in share and num_bytes > 0:
            decoded = _decode(f"{root}/{clip.path}", decoding, bytearray())
            if decoded.entry.bad is None:
                share[kind] = decoded.samples.nbytes / num_bytes
        expected_N.append(int(share.get(kind, 0) * max(num_bytes, 0)))  # nothing is written of a bad clip
    free, wanted = shutil.disk_usage(folder).free, sum(expected_N)
    if free < wanted:
        raise BadInput(
            f"{folder.parent}: {free / 1e6:,.0f} MB are free there, but the decoded clips of {root} take "
            f"{wanted / 1e6:,.0f} MB more; make room there, or name another folder with --cache"
        )
    return expected_N


class _Decoded(NamedTuple):
    entry: Written
    samples: np.ndarray
    """None of a bad clip. They may stand in the buffer, and are gone when that is used again."""
    buffer: bytearray


def _decode_all(
    root: Path, clips: list[Clip], expected_N: list[int], decoding: Decoding, workers: int
) -> Iterator[tuple[Written, np.ndarray]]:
    """What was decoded of each clip, in their order; the samples may be overwritten when the next is asked for.

    Threads do, for reading, hashing, decoding and resampling release Python's lock. Their buffers are used again and
    again: to get fresh memory from the system for each clip costs as much as to read it.
    """
    waiting: deque[tuple[int, Future[list[_Decoded]]]] = deque()
    buffers = [[bytearray()] * _TOGETHER for _ in range(_AHEAD * workers)]
    ahead_bytes = first = 0
    pool = ThreadPoolExecutor(workers)
    try:
        while first < len(clips) or waiting:
            last = min(first + _TOGETHER, len(clips))
            expected = sum(expected_N[first:last])
            if first < len(clips) and buffers and (not waiting or ahead_bytes + expected <= _AHEAD_BYTES):
                paths = [f"{root}/{clip.path}" for clip in clips[first:last]]
                waiting.append((expected, pool.submit(_decode_some, paths, decoding, buffers.pop())))
                ahead_bytes, first = ahead_bytes + expected, last
                continue
            expected, future = waiting.popleft()
            done = future.result()
            yield from (clip[:2] for clip in done)
            ahead_bytes -= expected
            buffers.append([clip.buffer for clip in done])
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_some(paths: list[str], decoding: Decoding, buffers: list[bytearray]) -> list[_Decoded]:
    return [_decode(path, decoding, buffer) for path, buffer in zip(paths, buffers, strict=False)]


def _decode(path: str, decoding: Decoding, buffer: bytearray) -> _Decoded:
    """What the journal is to say of a clip, and its samples; the file is read into `buffer`, or into a larger one."""
    samples, source_rate_hz = None, decoding.sample_rate_hz
    try:
        content, buffer = _read(path, buffer)
        if decoding.dtype == "int16":
            samples = plain_wav(content, decoding.sample_rate_hz, decoding.channel)
        if samples is None:
            wave, source_rate_hz = decode(Path(path), decoding.sample_rate_hz, decoding.channel)
            samples = _quantise(wave, decoding.dtype)
        checksum = _sha256(path, content)
        samples = np.ascontiguousarray(samples)
        entry = Written(None, len(samples), source_rate_hz, checksum, zlib_ng.crc32(samples.data))
        return _Decoded(entry, samples, buffer)
    except Unusable as error:
        reason = str(error)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    return _Decoded(Written(reason), np.empty(0, dtype=decoding.dtype), buffer)


def _read(path: str, buffer: bytearray) -> tuple[memoryview, bytearray]:
    """The bytes of a file, and the buffer in which they stand; none of a file that is too large to be read at once."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        if size > _WHOLE_BYTES:
            return memoryview(b""), buffer
        if size > len(buffer):
            buffer = bytearray(size)
        content, done = memoryview(buffer)[:size], 0
        while done < size and (read := os.readv(file, [content[done:]])):
            done += read
        return content[:done], buffer
    finally:
        os.close(file)


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
def _appending(folder: Path) -> Iterator[Callable[[Written, np.ndarray], None]]:
    """What appends a clip to the samples and the journal of `folder`; all is written when the context ends, however."""
    lines: deque[tuple[int, bytes]] = deque()
    samples = _Samples(folder / SAMPLES)
    with (folder / JOURNAL).open("ab", buffering=0) as journal:

        def append(entry: Written, wave: np.ndarray) -> None:
            lines.append((samples.end + wave.nbytes, _line(entry)))
            if samples.append(wave.view(np.uint8)):
                note()

        def note() -> None:
            """Only what the samples' file holds is noted."""
            whole = b"".join(lines.popleft()[1] for _ in range(sum(end <= samples.written for end, _ in lines)))
            if whole:
                journal.write(whole)

        try:
            yield append
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

    def __init__(self, path: Path) -> None:
        self._file = self._direct = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        with suppress(OSError):  # not every file system can
            self._direct = os.open(path, os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0))
        # maps begin with a page, as such writes ask; one is filled while the others are written
        self._staged, *others = (np.frombuffer(mmap.mmap(-1, _STAGED_BYTES), np.uint8) for _ in range(_STAGES))
        self.written = os.fstat(self._file).st_size
        """Where the file ends."""
        self._used = self.written % _BLOCK_BYTES
        self._at = self.written - self._used  # where in the file belongs what is staged
        self._staged[: self._used] = np.frombuffer(os.pread(self._file, self._used, self._at), np.uint8)
        self._writer = ThreadPoolExecutor(1)
        self._writing: deque[Future[np.ndarray]] = deque(map(_already, others))

    @property
    def end(self) -> int:
        """Where the file will end when all is written."""
        return self._at + self._used

    def append(self, data: np.ndarray) -> bool:
        """Whether something of what came before the bytes `data` was written meanwhile. Raises OSError where it could
        not be."""
        before = self._at
        while len(data):
            taken = min(len(data), _STAGED_BYTES - self._used)
            self._staged[self._used : self._used + taken] = data[:taken]
            self._used += taken
            data = data[taken:]
            if self._used == _STAGED_BYTES:
                self._writing.append(
                    self._writer.submit(self._write, self._staged, self._at, 0, self._used, self._direct)
                )
                self._staged = self._writing.popleft().result()
                self._at, self._used = self._at + self._used, 0
        return self._at != before

    def close(self) -> None:
        """Writes what is left."""
        blocks = self._used // _BLOCK_BYTES * _BLOCK_BYTES
        try:
            for writing in self._writing:
                writing.result()
            self._write(self._staged, self._at, 0, blocks, self._direct)
            self._write(self._staged, self._at, blocks, self._used, self._file)
        finally:
            self._writer.shutdown()
            for file in {self._file, self._direct}:
                os.close(file)

    def _write(self, staged: np.ndarray, at: int, done: int, end: int, file: int) -> np.ndarray:
        """Gives `staged` back, to be filled again."""
        while done < end:
            try:
                done += os.pwrite(file, staged[done:end].data, at + done)
            except OSError as error:
                if error.errno != EINVAL or file == self._file:
                    raise
                file = self._file  # it lets files be opened so, but not written
            self.written = max(self.written, at + done)
        return staged


def _already(staged: np.ndarray) -> Future[np.ndarray]:
    done: Future[np.ndarray] = Future()
    done.set_result(staged)
    return done
