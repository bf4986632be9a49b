"""A large corpus: the same recordings under many names. Slow: it writes more than a gigabyte."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from raysd.data.store import Data, open_store

BUILD = """
import os, resource, signal, sys
from pathlib import Path
import scipy.signal
from raysd.data.store import Data, open_store
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def progress(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    firsts.append(done)
firsts, before = [], peak()
open_store(Path(sys.argv[1]), Data(), Path(sys.argv[2]), progress=progress, workers=2)
print(firsts[0], peak() - before)
"""
RECORDINGS = 20


def repeated(root: Path, clips: int) -> Path:
    """A data root of so many ten-second clips."""
    (root / "recordings").mkdir(parents=True)
    for number in range(RECORDINGS):
        wave = np.random.default_rng(number).uniform(-0.5, 0.5, 160_000)
        sf.write(root / "recordings" / f"{number}.wav", wave, 16_000)
    for number in range(clips):
        folder = root / "data/dev_data/fan" / ("test" if number % 10 == 0 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        os.link(root / "recordings" / f"{number % RECORDINGS}.wav", folder / f"normal_id_00_{number:05d}.wav")
    return root / "data"


def build(root: Path, cache: Path, killed_after: int = 0) -> list[int]:
    """The first number that progress gave, and the bytes that the build took; nothing of one that was killed."""
    process = subprocess.run(
        [sys.executable, "-c", BUILD, str(root), str(cache), str(killed_after)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        timeout=600,
    )
    assert process.returncode == (-signal.SIGKILL if killed_after else 0)
    return [int(word) for word in process.stdout.split()]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    (_, small), (_, large) = (build(repeated(tmp_path / str(n), n), tmp_path / "cache") for n in (500, 4000))
    assert large < 200e6  # of 1.28 GB
    assert large - small < 3500 * 4000 + 10e6


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_build_goes_on(tmp_path: Path) -> None:
    root = repeated(tmp_path / "corpus", 3000)
    build(root, tmp_path / "cache", killed_after=2000)
    first, _ = build(root, tmp_path / "cache")
    assert 1900 < first <= 2000
    store = open_store(root, Data(), tmp_path / "cache")
    store.verify()
    for row in (0, 1234, 2999):
        read = sf.read(root / str(store.clips["path"].tolist()[row]), dtype="float32")[0]
        np.testing.assert_array_equal(store.waveforms(np.array([row]), np.array([0]), 160_000)[0], read)
    assert len(store.samples) == 3000 * 160_000
