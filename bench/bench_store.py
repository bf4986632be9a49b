"""Building and opening the store of a large corpus of ten-second clips, and the memory that a build takes.

Building is set against bare decoding: soundfile.read into float32 on all cores, nothing kept, by threads or by
processes, whichever is faster. Some hundred recordings stand under many names, so both read them from memory. Opening
is `open_store` with all its checks, set against bare os.stat of the same files; it does not depend on how long the
clips are, so they are short there. A clip takes 320 kB: `--clips 40000` builds 13 GB.
"""

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile as sf
from corpus import report

from raysd.data.listed import Listed
from raysd.data.shards import Shard
from raysd.data.store import Data, Store, open_store

RATE_HZ, RECORDINGS, PER_FOLDER = 16_000, 200, 1000
DATA = Data(sample_rate_hz=RATE_HZ)


def repeated(root: Path, clips: int, seconds: float) -> list[str]:
    """A data root of so many clips, and their paths: the same recordings of noise under other names."""
    (root / "recordings").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(RECORDINGS):
        wave = rng.uniform(-0.5, 0.5, int(seconds * RATE_HZ))
        sf.write(root / "recordings" / f"{number}.wav", wave, RATE_HZ)
    paths = []
    for number in range(clips):
        machine, split = number // PER_FOLDER, "test" if number % 5 == 0 else "train"
        folder = root / "data/dev_data" / f"machine{machine:03d}" / split
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(str(folder / f"normal_id_00_{number:08d}.wav"))
        os.link(root / "recordings" / f"{number % RECORDINGS}.wav", paths[-1])
    return paths


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def bare(path: str) -> int:
    return len(sf.read(path, dtype="float32")[0])


def build(folder: Path, clips: int, runs: int) -> None:
    """Clips a second, and the microseconds of CPU time a clip, which other work on the machine changes less."""
    paths, cache = repeated(folder, clips, 10.0), folder / "cache"
    workers = os.cpu_count() or 1

    def decode(pool: Executor) -> float:
        return clips / seconds(lambda: list(pool.map(bare, paths, chunksize=32)))

    def spent_us() -> float:
        times = os.times()
        return (times.user + times.system) / clips * 1e6

    ours, reference, ours_us, reference_us = [], [], [], []
    with ProcessPoolExecutor(workers, get_context("fork")) as processes, ThreadPoolExecutor(workers) as threads:
        decode(processes)
        for _ in range(runs):
            began = spent_us()
            by_threads = decode(threads)
            decoded = spent_us()
            reference.append(max(decode(processes), by_threads))
            called = spent_us()
            ours.append(clips / seconds(lambda: open_store(folder / "data", DATA, cache)))
            ours_us.append(spent_us() - called)
            reference_us.append(decoded - began)
            shutil.rmtree(cache)
    report(f"building a store of {clips:,} ten-second clips", "clips/s", ours, reference, ">= 0.8")
    report("CPU time of it, the reference in threads", "us/clip", ours_us, reference_us, "<= 1.25")


def opening(folder: Path, clips: int, runs: int) -> None:
    """Seconds, by one process that has opened it before."""
    paths, cache = repeated(folder, clips, 0.01), folder / "cache"
    while not list(cache.glob(".listings/*")):  # a data root that was changed just now is listed again
        store = open_store(folder / "data", DATA, cache)
    whole, alone, frame, stats = [], [], [], []
    for _ in range(runs):
        stats.append(seconds(lambda: [os.stat(path) for path in paths]))
        whole.append(seconds(lambda: open_store(folder / "data", DATA, cache)))
        alone.append(seconds(lambda: Store(folder / "data", DATA, store.folder)))
        frame.append(seconds(lambda: Store(folder / "data", DATA, store.folder).clips))
    goal = "<= 0.1 s; the reference is a bare os.stat of each file"
    report(f"open_store of {clips:,} clips, files checked", "s", whole, stats, goal)
    report(f"Store(...) of {clips:,} clips alone", "s", alone, stats, goal)
    report(f"Store(...).clips of {clips:,} clips", "s", frame, stats, goal)


def memory(folder: Path) -> None:
    """What a process holds at most that builds a store, and what a clip adds to it."""
    peaks = []
    for clips in (2000, 40_000):
        repeated(folder / str(clips), clips, 0.01)
        arguments = (folder / str(clips) / "data", DATA, folder / "cache")
        child = get_context("spawn").Process(target=open_store, args=arguments)
        child.start()
        child.join()
        peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)  # the most of all so far
    report("peak memory of a build of 40,000 clips", "MB", [peaks[1] / 1e6], None, "told only")
    report("memory that a clip adds to a build", "bytes", [(peaks[1] - peaks[0]) / 38_000], None, "<= 3,000 bytes")


def shards(folder: Path, clips: int, num_shards: int = 8) -> None:
    """Seconds to find one shard of a corpus, against listing its folders: the first time, and again."""
    repeated(folder, clips, 0.01)
    data, shard, cache = folder / "data", Shard(DATA, 0, num_shards), folder / "cache"
    listing = seconds(lambda: [os.listdir(place) for place, _, _ in os.walk(data)])
    first = seconds(lambda: Listed.of(Shard(DATA, 0, num_shards).scan(data)).states(data))
    while not list(cache.glob(".listings/*")):
        open_store(data, shard, cache)
    again = seconds(lambda: open_store(data, shard, cache))
    report(f"finding 1 of {num_shards} shards of {clips:,} clips, listed anew", "s", [first], [listing], "told only")
    report(f"finding 1 of {num_shards} shards of {clips:,} clips again", "s", [again], [listing], "told only")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--clips", type=int, default=20_000)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--names", type=int, default=40_000, help="clips of the corpus in shards")
    options.add_argument("--folder", type=Path, help="where the files are made; on the disk that is to be measured")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="raysd-bench-", dir=asked.folder) as folder:
        memory(Path(folder) / "memory")
        build(Path(folder) / "build", asked.clips, asked.runs)
        opening(Path(folder) / "open", 40_000, asked.runs)
        shards(Path(folder) / "shards", asked.names)


if __name__ == "__main__":
    main()
