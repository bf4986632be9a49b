"""A small corpus of made-up machines in the official layout, for demonstrations and tests.

A section is recognised by the balance of its shaft's harmonics, by the pattern and the ring of the impacts in a turn of
its slow shaft, and by the band in which its bearing hisses. From clip to clip vary speed, load, gain, and level and
colour of the background noise; they move a spectrum further than a fault does, so that a distance between spectra
finds little. A fault disturbs what makes the section: an added tone, a missing impact, a hissing bearing, or an
amplitude that drifts.

T samples of a clip, H harmonics, P places in a turn of the slow shaft, F frequencies of a clip's spectrum.
"""

import csv
import io
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import soundfile as sf
from pydantic import Field

from raysd.data.layouts import YEARS, Domain, Label, Name, Split, clip_name, clip_path
from raysd.errors import BadInput, nearest
from raysd.settings import Settings

HARMONICS = 12
PLACES = 8
GEAR = 10  # turns of the shaft for one of the slow shaft
FAULTS = ("tone", "missing_impact", "bearing", "drift")
TARGET_SHARE = 0.1  # of a section's training clips, at least one; in the data of 2022 it is 0.01

_LEVEL = 0.04  # root mean square of a section's own sound, before gain


class Synthetic(Settings):
    """A corpus to be made."""

    year: Literal[2020, 2021, 2022, 2023, 2024] = 2020
    """Layout and file names; from 2021 on with a source and a target domain, and attributes in the names."""
    machines: Annotated[int, Field(ge=1)] | Annotated[tuple[str, ...], Field(min_length=1)] = 2
    """How many of the year's machine types, or which."""
    sections: Annotated[int, Field(ge=1)] = 2
    """Sections of each machine; from 2023 on there is but one."""
    train_clips: Annotated[int, Field(ge=2)] = 30
    """Training clips of a section, all normal."""
    test_clips: Annotated[int, Field(ge=4)] = 24
    """Test clips of a section, half of them normal; half of either from each domain where there are domains."""
    clip_seconds: Annotated[float, Field(ge=0.5)] = 2.0
    sample_rate_hz: Annotated[int, Field(ge=8000)] = 16_000
    difficulty: Annotated[float, Field(ge=0, le=3)] = 1.0
    """0: clips of a section hardly differ but in their faults. The larger, the more they differ, and the weaker the
    faults are."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


QUICKSTART = Synthetic()
"""The corpus of the demonstration."""


@dataclass(frozen=True)
class _Section:
    """What all normal clips of a section share."""

    turns_hz: float
    order_H: np.ndarray
    """Frequencies of the harmonics, in turns of the shaft; the same in all sections of a machine."""
    harmonic_db_H: np.ndarray
    impact_P: np.ndarray
    """Amplitudes of the impacts at the places of a turn."""
    ring_hz: float
    whine_hz: float
    hiss_hz: float
    """Centre of the bearing's band."""


@dataclass(frozen=True)
class _Condition:
    """What differs from clip to clip."""

    speed_percent: int
    load_percent: int
    gain_db: float
    noise_db: float
    """Background noise against the section's own sound."""
    colour: float
    """The noise's power falls with this power of the frequency."""
    room_db_K: np.ndarray
    """Colouring by the room and the place of the microphone, at K frequencies."""
    swell_db_K: np.ndarray
    """Level of the background at K moments of the clip."""


def synthesise(out: Path, corpus: Synthetic = QUICKSTART) -> None:
    """Writes a corpus as 16-bit wav into `out`, whole or not at all; the same settings give the same bytes.

    Raises BadInput for machines or sections that the year lacks, and where `out` is there already and is not an empty
    folder.
    """
    chosen = _machines(corpus)
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out}: is there already; give an empty or a new folder")
    making = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        for machine, sections in chosen.items():
            for place, number in enumerate(sections):
                _write_section(making, corpus, machine, place, number)
        if out.is_dir():
            out.rmdir()
        making.rename(out)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _machines(corpus: Synthetic) -> dict[str, tuple[str, ...]]:
    """Machine -> numbers of its sections."""
    table = {machine: sections for machine, sections in YEARS[corpus.year].machines.items() if sections[0]}
    names = corpus.machines if isinstance(corpus.machines, tuple) else tuple(table)[: corpus.machines]
    if isinstance(corpus.machines, int) and corpus.machines > len(table):
        raise BadInput(f"machines: {corpus.year} has {len(table)} machine types, not {corpus.machines}")
    for machine in names:
        if machine not in table:
            raise BadInput(f"machines: '{machine}' is no machine of {corpus.year}; {nearest(machine, table)}")
        if corpus.sections > len(table[machine][0]):
            raise BadInput(f"sections: {machine} has {len(table[machine][0])} in {corpus.year}, not {corpus.sections}")
    return {machine: table[machine][0][: corpus.sections] for machine in names}


def _rng(corpus: Synthetic, *words: object) -> np.random.Generator:
    """Every clip has draws of its own, so that more clips leave the others as they are."""
    return np.random.default_rng([corpus.seed, zlib.crc32(repr((corpus.year, *words)).encode())])


def _write_section(root: Path, corpus: Synthetic, machine: str, place: int, number: str) -> None:
    section = _section(corpus, machine, place)
    other = _section(corpus, machine, (place + 1) % max(2, corpus.sections))  # a fault sounds a little like another
    rows: list[list[object]] = []
    for split, domain, label, count in _kinds(corpus):
        for clip in range(count):
            rng = _rng(corpus, machine, number, split, domain, label, clip)
            condition = _condition(rng, corpus.difficulty, domain)
            fault = FAULTS[clip % len(FAULTS)] if label else None
            wave = _sound(rng, corpus, section, condition, fault, other)
            name = Name(
                section=number,
                number=f"{clip:04d}" if domain else f"{clip + (0 if split == 'train' else corpus.train_clips):08d}",
                label=label,
                domain=domain,
                split=split if domain else None,
                attributes=f"spd_{condition.speed_percent}_load_{condition.load_percent}" if domain else "",
            )
            path = root / clip_path(corpus.year, "dev", machine, split, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()  # written at once: soundfile would sync every file to the disk
            sf.write(buffer, wave, corpus.sample_rate_hz, format="WAV", subtype="PCM_16")
            path.write_bytes(buffer.getbuffer())
            file_name = f"{machine}/{split}/{clip_name(corpus.year, name)}"
            rows.append([file_name, "spd", condition.speed_percent, "load", condition.load_percent])
    if YEARS[corpus.year].attribute_lists:
        with (root / "dev_data" / machine / f"attributes_{number}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([["file_name", "d1p", "d1v", "d2p", "d2v"], *rows])


def _kinds(corpus: Synthetic) -> list[tuple[Split, Domain | None, Label, int]]:
    """Split, domain, label and number of clips of each kind in a section."""
    normal = corpus.test_clips // 2
    anomaly = corpus.test_clips - normal
    if not YEARS[corpus.year].domains:
        return [("train", None, 0, corpus.train_clips), ("test", None, 0, normal), ("test", None, 1, anomaly)]
    target = max(1, round(TARGET_SHARE * corpus.train_clips))
    return [
        ("train", "source", 0, corpus.train_clips - target),
        ("train", "target", 0, target),
        ("test", "source", 0, normal - normal // 2),
        ("test", "target", 0, normal // 2),
        ("test", "source", 1, anomaly - anomaly // 2),
        ("test", "target", 1, anomaly // 2),
    ]


def _section(corpus: Synthetic, machine: str, place: int) -> _Section:
    """The section at a place in the machine's list. Sections of a machine differ in what its faults disturb."""
    shared = _rng(corpus, machine)
    turns_hz = shared.uniform(20, 40)
    order_H = np.sort(shared.choice(np.arange(1, 60), HARMONICS, replace=False))
    ring_hz = corpus.sample_rate_hz * shared.uniform(0.1, 0.2)
    # bands enough for the most sections that a machine has, and for faults that sound like none of them
    whine_hz, hiss_hz = corpus.sample_rate_hz * np.array(
        [shared.permutation(np.geomspace(low, high, 6)) for low, high in ((0.12, 0.35), (0.15, 0.45))]
    )
    own = _rng(corpus, machine, place)
    return _Section(
        turns_hz=turns_hz,
        order_H=order_H,
        harmonic_db_H=-0.25 * order_H + own.uniform(-8, 8, HARMONICS),
        impact_P=own.permutation([1.0, 0.3, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ring_hz=ring_hz * own.uniform(0.8, 1.25),
        whine_hz=whine_hz[place % 6],
        hiss_hz=hiss_hz[place % 6],
    )


def _condition(rng: np.random.Generator, difficulty: float, domain: Domain | None) -> _Condition:
    spread = rng.uniform(-difficulty, difficulty, 5)
    room_db_K, swell_db_K = difficulty * rng.normal(0, 5, (2, 7))
    moved = domain == "target"  # another speed and another background
    return _Condition(
        speed_percent=round(100 + 10 * spread[0] + 15 * moved),
        load_percent=round(100 + 30 * spread[1]),
        gain_db=6 * spread[2],
        noise_db=-8 + 7 * spread[3] + 3 * moved,
        colour=1.0 + 0.7 * spread[4] - 0.5 * moved,
        room_db_K=room_db_K,
        swell_db_K=swell_db_K,
    )


def _sound(
    rng: np.random.Generator,
    corpus: Synthetic,
    section: _Section,
    condition: _Condition,
    fault: str | None,
    other: _Section,
) -> np.ndarray:
    """(T,) float32: one clip."""
    rate_hz, samples = corpus.sample_rate_hz, round(corpus.clip_seconds * corpus.sample_rate_hz)
    strength = 2.0 ** (1 - corpus.difficulty)
    freq_F = np.fft.rfftfreq(samples, 1 / rate_hz)
    wander_T = _line(rng.normal(0, 0.004, 9), samples)
    turn_T = np.cumsum(section.turns_hz * condition.speed_percent / 100 * (1 + wander_T)) / rate_hz + rng.uniform()

    load_db_H = (condition.load_percent - 100) / 100 * np.linspace(-15, 15, HARMONICS)
    own_T = np.zeros(samples, dtype=np.float32)
    for harmonic, order in enumerate(section.order_H):
        level_db_K = section.harmonic_db_H[harmonic] + load_db_H[harmonic] + rng.normal(0, 2.5 * corpus.difficulty, 7)
        if fault == "drift":
            change_db = other.harmonic_db_H[harmonic] - section.harmonic_db_H[harmonic]
            level_db_K += 1.4 * strength * change_db * np.linspace(0, 1, 7)
        own_T += _line(10 ** (level_db_K / 20), samples) * _cosine(order * turn_T + rng.uniform())
    own_T /= np.sqrt(np.sum(10 ** (section.harmonic_db_H / 10)) / 2)

    impact_P = section.impact_P.copy()
    if fault == "missing_impact":
        impact_P[np.argmax(impact_P)] *= max(0.0, 1 - strength)
    step_T = np.floor(turn_T / GEAR * PLACES).astype(int)
    at = np.flatnonzero(np.diff(step_T))
    struck_T = np.zeros(samples)
    struck_T[at] = impact_P[step_T[at + 1] % PLACES] * rng.uniform(0.8, 1.2, len(at))
    own_T += 3 * np.fft.irfft(np.fft.rfft(struck_T) * _ring(freq_F, section.ring_hz, rate_hz), samples)

    whine_T = (condition.speed_percent / 100) ** 0.3 * np.arange(samples) / rate_hz
    own_T += 0.4 * _cosine(section.whine_hz * whine_T)
    if fault == "tone":
        own_T += 0.4 * strength * _cosine(other.whine_hz * whine_T)
    own_T += 0.4 * _band(rng, freq_F, samples, section.hiss_hz)
    if fault == "bearing":
        own_T += 0.3 * strength * _band(rng, freq_F, samples, other.hiss_hz) * (1 + _cosine(0.37 * turn_T))

    background_T = _noise(rng, np.maximum(freq_F, 60) ** (-condition.colour / 2), samples)
    background_T *= _line(10 ** ((condition.noise_db + condition.swell_db_K) / 20), samples)
    room_F = 10 ** ((condition.gain_db + _line(condition.room_db_K, len(freq_F), octaves=True)) / 20)
    wave_T = _LEVEL * np.fft.irfft(np.fft.rfft(own_T + background_T) * room_F, samples)
    return np.clip(wave_T, -1, 1).astype(np.float32)


def _cosine(turn_T: np.ndarray) -> np.ndarray:
    """(T,) float32 cosine of a phase in turns."""
    return np.cos((2 * np.pi * (turn_T % 1)).astype(np.float32))


def _line(knots_K: np.ndarray, points: int, octaves: bool = False) -> np.ndarray:
    """(points,) a line through values at K even places from the first point to the last, or over the last 6 octaves."""
    at = np.arange(points) / points
    if octaves:
        at = np.log2(np.maximum(at, 1 / 64)) / 6 + 1
    return np.interp(at, np.linspace(0, 1, len(knots_K)), knots_K)


def _ring(freq_F: np.ndarray, hz: float, rate_hz: int) -> np.ndarray:
    """Response of a lightly damped resonance that an impulse of 1 makes ring with an amplitude of about 1."""
    width_hz = 0.015 * hz
    return 1j * freq_F * rate_hz / (2 * np.pi) / (hz**2 - freq_F**2 + 1j * freq_F * width_hz)


def _band(rng: np.random.Generator, freq_F: np.ndarray, samples: int, hz: float) -> np.ndarray:
    """(T,) Gaussian noise around a frequency, with a root mean square of 1."""
    return _noise(rng, np.exp(-0.5 * (np.log2(np.maximum(freq_F, 1) / hz) / 0.12) ** 2), samples)


def _noise(rng: np.random.Generator, amplitude_F: np.ndarray, samples: int) -> np.ndarray:
    """(T,) Gaussian noise with this spectrum and a root mean square of 1."""
    real_F, imaginary_F = rng.standard_normal((2, len(amplitude_F)))
    noise_T = np.fft.irfft(amplitude_F * (real_F + 1j * imaginary_F), samples)
    return noise_T / np.sqrt(np.mean(np.square(noise_T)))
