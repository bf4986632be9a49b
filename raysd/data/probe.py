"""The files of clips: their headers, or all their samples; which are unusable, unlike the others, or doubled."""

import hashlib
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from raysd.data.audio import Header, Unusable, decode, header
from raysd.data.counts import CHANNELS, RATE_HZ
from raysd.data.layouts import Clip
from raysd.data.tally import Finding

Progress = Callable[[int, int], None]
"""Takes the files done and those in all."""

LENGTH_TOLERANCE = 0.01
"""Clips of a machine may differ by this share of their usual length."""
USUAL_SHARE = 0.9
"""Where fewer clips of a machine have its most frequent length, it has no usual one."""
_PEEK_BYTES = 4096
_AT_ONCE = 1024  # files whose results wait in memory

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Probe(NamedTuple):
    """What was found in a file."""

    header: Header
    digest: tuple[int, int]
    """Its size and the CRC-32 of some bytes in its middle: equal files have equal ones."""


def probe(root: Path, clips: list[Clip], official: set[str], deep: bool, progress: Progress | None) -> list[Finding]:
    """Reads the header of each clip's file, or with `deep` all its samples; `official`: machines as published.

    Published machines have 16 kHz and one channel; others are compared with themselves. Memory grows by some hundred
    bytes a clip.
    """
    found: dict[str, Probe] = {}
    unusable: list[tuple[str, str]] = []
    for done, (clip, result) in enumerate(_each(lambda clip: _probe(root / clip.path, deep), clips), start=1):
        if isinstance(result, Probe):
            found[clip.path] = result
        else:
            unusable.append((clip.path, result))
        if progress:
            progress(done, len(clips))
    findings = []
    if unusable:
        what = f"{len(unusable):,} {'clip is' if len(unusable) == 1 else 'clips are'} unusable: download them again"
        findings.append(Finding("unreadable", True, what, tuple(unusable)))
    by_machine: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.path in found:
            by_machine[clip.machine].append(clip)
    for machine, own in sorted(by_machine.items()):
        headers = {clip.path: found[clip.path].header for clip in own}
        findings += _unlike(machine, headers, machine in official)
    return [*findings, *_doubled(root, clips, found)]


def _probe(path: Path, deep: bool) -> Probe | str:
    try:
        read = header(path)
        if deep:
            decode(path, read.rate_hz, "mean")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, (size - _PEEK_BYTES) // 2))
            return Probe(read, (size, zlib.crc32(file.read(_PEEK_BYTES))))
    except Unusable as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _unlike(machine: str, headers: dict[str, Header], official: bool) -> Iterator[Finding]:
    """What sets clips of a machine apart from what is published, or from most others of the machine."""
    rate_hz = RATE_HZ if official else _most_frequent(header.rate_hz for header in headers.values())
    other = tuple((path, f"{read.rate_hz} Hz") for path, read in headers.items() if read.rate_hz != rate_hz)
    if other:
        usual = "published" if official else "usual there"
        text = f"{machine}: {len(other):,} of {len(headers):,} clips have another rate than the {rate_hz} Hz {usual}"
        yield Finding("rate", True, text, other)
    channels = CHANNELS if official else _most_frequent(header.channels for header in headers.values())
    other = tuple((path, f"{read.channels} channels") for path, read in headers.items() if read.channels != channels)
    if other:
        text = f"{machine}: {len(other):,} of {len(headers):,} clips have not the {channels} channel(s) of the others"
        yield Finding("channels", True, text, other)
    seconds = {path: read.samples / read.rate_hz for path, read in headers.items()}
    usual_s = _most_frequent(seconds.values())
    near = LENGTH_TOLERANCE * usual_s
    other = tuple((path, f"{length:.3f} s") for path, length in seconds.items() if abs(length - usual_s) > near)
    if other and len(headers) - len(other) < USUAL_SHARE * len(headers):
        low, high = min(seconds.values()), max(seconds.values())
        yield Finding("length", False, f"{machine}: clips of {low:.2f} to {high:.2f} s; there is no usual length")
    elif other:
        text = f"{machine}: {len(other):,} of {len(headers):,} clips are not {usual_s:.2f} s long as the others are"
        yield Finding("length", True, text, other)


def _doubled(root: Path, clips: list[Clip], found: dict[str, Probe]) -> Iterator[Finding]:
    """Clips with the same bytes: only files that look alike are read whole."""
    alike: dict[tuple[int, int], list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.path in found:
            alike[found[clip.path].digest].append(clip)
    suspects = [clip for group in alike.values() if len(group) > 1 for clip in group]
    same: dict[str, list[Clip]] = defaultdict(list)
    for clip, checksum in _each(lambda clip: _checksum(root / clip.path), suspects):
        same[checksum].append(clip)
    groups = [group for checksum, group in same.items() if checksum and len(group) > 1]
    if groups:
        leaks = sum(len({clip.split for clip in group}) > 1 for group in groups)
        files = tuple((clip.path, f"the same as {group[0].path}") for group in groups for clip in group[1:])
        text = f"{len(files):,} {'clip is' if len(files) == 1 else 'clips are'} there under another name already"
        text += f"; {leaks:,} of them both in train and in test" if leaks else ""
        yield Finding("doubled", True, text, files)


def _checksum(path: Path) -> str:
    """Empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _each(function: Callable[[_In], _Out], things: Iterable[_In]) -> Iterator[tuple[_In, _Out]]:
    """(thing, result) in order. Threads do it: most of the time goes into waiting for the disk."""
    rest = iter(things)
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        while batch := list(islice(rest, _AT_ONCE)):
            yield from zip(batch, pool.map(function, batch), strict=True)


def _most_frequent(values: Iterable[_In]) -> _In:
    return Counter(values).most_common(1)[0][0]
