"""One audio file -> samples at the wanted rate, or the reason why the file cannot be used."""

import math
import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import soundfile as sf

_UNKNOWN_LENGTH = 0x7FFF0000  # a wav written to a pipe announces about this, or more: it could not know its length
_OGG_HEADER = 27
_OGG_LAST_PAGE = 0x04


class Unusable(Exception):
    """The reason why a file cannot be used."""


class Header(NamedTuple):
    """What a file says of its samples."""

    rate_hz: int
    samples: int
    channels: int


def header(path: Path) -> Header:
    """The header of a file, none of whose samples is read; raises Unusable for what `decode` would find there."""
    try:
        if path.stat().st_size == 0:
            raise Unusable("empty file")
        _require_whole(path)
        with sf.SoundFile(path) as file:
            found = Header(file.samplerate, file.frames, file.channels)
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror or error}") from None
    except sf.LibsndfileError as error:
        raise Unusable(f"not audio, or damaged: {error.error_string.strip().rstrip('.')}") from None
    if not found.samples:
        raise Unusable("holds no samples")
    return found


def decode(path: Path, rate_hz: int, channel: int | Literal["mean"]) -> tuple[np.ndarray, int]:
    """Samples (length,) float32 of one channel at `rate_hz`, full scale at 1.0, and the rate of the file in Hz.

    Resampling is polyphase with scipy's default Kaiser window. Raises Unusable for a file that is empty, truncated, not
    audio, holds non-finite samples or lacks the channel, and for one that cannot be opened.
    """
    try:
        if path.stat().st_size == 0:
            raise Unusable("empty file")
        _require_whole(path)
        with sf.SoundFile(path) as file:
            source_rate_hz, announced = file.samplerate, file.frames
            wave = file.read(dtype="float32", always_2d=True)
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror or error}") from None
    except sf.LibsndfileError as error:
        raise Unusable(f"not audio, or damaged: {error.error_string.strip().rstrip('.')}") from None
    except (MemoryError, ValueError) as error:
        raise Unusable(f"damaged: {error}") from None
    if len(wave) < announced:
        raise Unusable(f"truncated: {len(wave)} of {announced} samples are there")
    if not len(wave):
        raise Unusable("holds no samples")
    if channel != "mean" and channel >= wave.shape[1]:
        raise Unusable(f"has {wave.shape[1]} channel(s), so none with number {channel} (counted from 0)")
    mono = wave.mean(axis=1) if channel == "mean" else wave[:, channel]
    if not np.isfinite(mono).all():
        raise Unusable(f"holds {np.count_nonzero(~np.isfinite(mono))} non-finite samples")
    if source_rate_hz != rate_hz:
        from scipy.signal import resample_poly  # late: it takes long to import, and most commands need none of it

        common = math.gcd(rate_hz, source_rate_hz)
        up, down = rate_hz // common, source_rate_hz // common
        mono = resample_poly(mono, up, down, window=_low_pass(max(up, down)))
    return np.asarray(mono, dtype=np.float32), source_rate_hz


def plain_wav(content: memoryview, rate_hz: int, channel: int | Literal["mean"]) -> np.ndarray | None:
    """int16 samples (length,) of one channel of a 16-bit wav file of that rate, as they stand in its bytes `content`.

    They are what `decode` gives, times 2**15, at a fifth of its cost. None for every other file, and for one whose
    header is not as plain as can be: that one is for `decode` to look at.
    """
    if channel == "mean" or len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return None
    channels, at = 0, 12
    while at + 24 <= len(content):
        name, length = struct.unpack_from("<4sI", content, at)
        at += 8
        if name == b"fmt ":
            tag, channels, rate, bytes_a_second, bytes_a_frame, bits = struct.unpack_from("<HHIIHH", content, at)
            wanted = (1, rate_hz, rate_hz * 2 * channels, 2 * channels, 16)
            if (tag, rate, bytes_a_second, bytes_a_frame, bits) != wanted or length != 16:
                return None
        elif name == b"data":
            if channel >= channels or not length or length % (2 * channels) or at + length > len(content):
                return None
            return np.frombuffer(content, "<i2", length // 2, at).reshape(-1, channels)[:, channel]
        elif name not in (b"LIST", b"JUNK"):
            return None
        at += length + length % 2
    return None


@lru_cache
def _low_pass(rate: int) -> np.ndarray:
    """The filter that scipy's `resample_poly` designs for every call again; `rate` is the larger of its two factors."""
    from scipy.signal import firwin

    window: Any = ("kaiser", 5.0)
    return np.asarray(firwin(20 * rate + 1, 1 / rate, window=window), dtype=np.float32)


def _require_whole(path: Path) -> None:
    """Raises Unusable where a wav or ogg file ends too early, which the decoder does not say."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF" and start[8:] == b"WAVE":
            while len(header := file.read(8)) == 8:
                length: int = struct.unpack("<I", header[4:])[0]
                if header[:4] == b"data":
                    there = size - file.tell()
                    if there < length < _UNKNOWN_LENGTH:
                        raise Unusable(f"truncated: {there} of {length} bytes of samples are there")
                    return
                file.seek(length + length % 2, os.SEEK_CUR)
            raise Unusable("truncated: the wav header announces no samples")
        if start[:4] == b"OggS":
            file.seek(max(0, size - 2**17))  # a page is at most 65,307 bytes long
            tail = file.read()
            page = tail[max(tail.rfind(b"OggS"), 0) :]
            lengths = page[_OGG_HEADER : _OGG_HEADER + page[_OGG_HEADER - 1]] if len(page) >= _OGG_HEADER else b""
            if not lengths or not page[5] & _OGG_LAST_PAGE or len(page) < _OGG_HEADER + len(lengths) + sum(lengths):
                raise Unusable("truncated: the last page of the ogg stream is missing")
