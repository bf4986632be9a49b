"""Samples that are taken from a wav file's bytes are those that the decoder gives."""

import io
import struct

import numpy as np
import pytest
import soundfile as sf

from raysd.data.audio import decode, plain_wav

WAVE = np.random.default_rng(0).integers(-(2**15), 2**15, (501, 2), dtype=np.int16)
WAVE[:2] = [[-(2**15), 2**15 - 1], [0, -1]]


def wav(wave: np.ndarray, format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    sf.write(file, wave, 16000, format=format, subtype=subtype)
    return file.getvalue()


def with_chunk(content: bytes, at: int, name: bytes, body: bytes) -> bytes:
    chunk = struct.pack("<4sI", name, len(body)) + body + bytes(len(body) % 2)
    content = content[:at] + chunk + content[at:]
    return content[:4] + struct.pack("<I", len(content) - 8) + content[8:]


def patched(content: bytes, at: int, format: str, value: int) -> bytes:
    return content[:at] + struct.pack(format, value) + content[at + struct.calcsize(format) :]


MONO, STEREO = wav(WAVE[:, 0]), wav(WAVE)
PLAIN = {
    "mono": MONO,
    "stereo": STEREO,
    "a_chunk_before_the_samples": with_chunk(MONO, 36, b"LIST", b"INFOxyz"),
    "a_chunk_after_the_samples": with_chunk(STEREO, len(STEREO), b"LIST", b"INFO"),
}
OTHER = {
    "float": wav(WAVE / 2.0**15, subtype="FLOAT"),
    "24_bit": wav(WAVE, subtype="PCM_24"),
    "8_bit": wav(WAVE, subtype="PCM_U8"),
    "extensible": wav(WAVE, format="WAVEX"),
    "flac": wav(WAVE, format="FLAC"),
    "big_endian": wav(WAVE, format="AIFF"),
    "another_rate": patched(patched(MONO, 24, "<I", 8000), 28, "<I", 16000),
    "a_wrong_frame": patched(MONO, 32, "<H", 4),
    "truncated": MONO[:-1],
    "half_a_frame": patched(STEREO, 40, "<I", len(STEREO) - 46),
    "no_samples": wav(WAVE[:0]),
    "an_unknown_chunk": with_chunk(MONO, 36, b"abcd", b"12"),
    "no_format": MONO[:12] + MONO[36:],
    "half_a_header": MONO[:30],
    "nothing": b"",
}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("channel", [0, 1])
def test_they_are_the_same(kind: str, channel: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("plain") / "clip.wav"
    path.write_bytes(PLAIN[kind])
    samples = plain_wav(memoryview(PLAIN[kind]), 16000, channel)
    if channel and kind in ("mono", "a_chunk_before_the_samples"):
        assert samples is None
    else:
        assert samples is not None
        decoded, rate_hz = decode(path, 16000, channel)
        np.testing.assert_array_equal(samples, decoded * 2**15)
        np.testing.assert_array_equal(samples, WAVE[:, channel])
        assert rate_hz == 16000


@pytest.mark.parametrize("kind", OTHER)
def test_all_that_is_not_plain_is_left_to_the_decoder(kind: str) -> None:
    assert plain_wav(memoryview(OTHER[kind]), 16000, 0) is None


def test_so_is_the_mean_of_channels() -> None:
    assert plain_wav(memoryview(STEREO), 16000, "mean") is None
