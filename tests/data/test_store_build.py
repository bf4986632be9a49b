"""Building a store: several processes at once, and builds that do not finish."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from raysd.data.store import Data, known_fingerprint, open_store
from raysd.errors import BadInput

BUILD = """
import sys, time
from pathlib import Path
from raysd.data.store import Data, open_store
root, cache, sleep_after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def progress(done, total):
    print(done, flush=True)
    if done == sleep_after:
        time.sleep(600)
print("ready", flush=True)
sys.stdin.readline()
store = open_store(root, Data(), cache, progress=progress)
print(store.fingerprint, store.samples.sum(dtype="int64"), len(store.clips))
"""


def build(root: Path, cache: Path, sleep_after: int = 0) -> "subprocess.Popen[str]":
    """A process that builds the store as soon as it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(root), str(cache), str(sleep_after)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Forty training clips and a test clip that need resampling."""
    for split, count in (("train", 40), ("test", 1)):
        folder = tmp_path / "data/dev_data/fan" / split
        folder.mkdir(parents=True)
        for number in range(count):
            wave = np.random.default_rng(number).uniform(-0.5, 0.5, 44100)
            sf.write(folder / f"normal_id_00_{number}.wav", wave, 44100)
    return tmp_path / "data"


def visible(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix != ".lock" and not path.name.startswith(".")]


def test_processes_that_ask_at_once_share_one_build(root: Path, tmp_path: Path) -> None:
    processes = [build(root, tmp_path / "cache") for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert sorted(len(answer) for answer in answers) == [1, 1, 42]
    assert len({answer[-1] for answer in answers}) == 1
    assert answers[0][-1].endswith(" 41")
    assert len(visible(tmp_path / "cache")) == 1


def test_a_killed_build_shows_nothing_and_hinders_nobody(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with build(root, cache, sleep_after=2) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == ["1\n", "2\n"]
        process.kill()
    assert visible(cache) == []
    assert known_fingerprint(root, Data(), cache) is None
    assert len(open_store(root, Data(), cache).clips) == 41
    assert len(visible(cache)) == 1
    assert not list(cache.glob(".building-*"))


def test_a_cache_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file: the decoded clips cannot be written there"):
        open_store(root, Data(), tmp_path / "file")
