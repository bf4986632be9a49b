"""What training waits for its batches, and what reading them takes, against the time of a step; of ten-second clips.

`bench_read.py 40000` takes as many clips (13 GB of samples and 7 GB of log-mels in the temporary folder) instead of
4,000. Log-mels are kept as on any CPU, in a memory-mapped file: first they lie in memory, then they come from the disk,
page by page. The last lines are of a training that keeps none (`scale.device_cache: false`), which has no goal. Reading
is done in the background; where all cores are busy it takes its time from the training all the same.
"""

import gc
import os
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from corpus import report

from raysd.data.store import Data, Store, open_store
from raysd.model.spectra import Spectra
from raysd.parallel import Scale
from raysd.recipe import Recipe
from raysd.study.design import load_study
from raysd.train import Detector, TrainingSet, batch_loss, coming, parameter_groups

RUNS = 2
STEPS = {"cpu": 20, None: 8}
"""Steps of a run with the recipe's profile; without one it trains MobileFaceNet."""
RECORDINGS = 50


def make(root: Path, clips: int) -> None:
    """A corpus in the layout of 2020: recordings of noise, each under many names."""
    rng = np.random.default_rng(0)
    for i in range(clips):
        split = "test" if i < RECORDINGS else "train"
        file = root / "fan" / split / f"normal_id_00_{i:08}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        if i < RECORDINGS:
            sf.write(file, rng.integers(-3000, 3000, 160_000, dtype=np.int16), 16_000)
        else:
            os.link(root / "fan" / "test" / f"normal_id_00_{i % RECORDINGS:08}.wav", file)


def forget(store: Store) -> None:
    """Lets the system forget what it has of a store's files in memory; they may not be mapped."""
    gc.collect()
    for path in store.folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def trained(recipe: Recipe, detector: Detector, spectra: Spectra, data: TrainingSet, steps: int) -> list[float]:
    """Seconds a step waits for its batch, seconds in which segments are read, and seconds of the step."""
    cut, reading = spectra.cut, [0.0]

    def timed(row_B: torch.Tensor, start_B: torch.Tensor, frames: int) -> torch.Tensor:
        began = time.perf_counter()
        spec_BFT = cut(row_B, start_B, frames)
        reading.append(time.perf_counter() - began)
        return spec_BFT

    spectra.cut = timed
    optimiser = torch.optim.AdamW([group for _, group in parameter_groups(detector, recipe)], lr=0.0)
    waited = 0.0
    with coming(recipe, detector, spectra, data, 0, count()) as made:
        for step in range(-1, steps):
            if step == 0:  # the one before fills the queue
                began, waited = time.perf_counter(), 0.0
                reading.clear()
            asked = time.perf_counter()
            batch = next(made)
            waited += time.perf_counter() - asked
            loss, _ = batch_loss(recipe, detector, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        return [waited / steps, sum(reading) / steps, (time.perf_counter() - began) / steps]


def measure(store: Store, profile: str | None) -> None:
    recipe = load_study("augmentation", profile=profile).baseline.recipe
    row_N = torch.tensor(store.clips.query("split == 'train'").index.to_numpy())
    data, cpu = TrainingSet(row_N, torch.zeros_like(row_N), 1), torch.device("cpu")
    detector = Detector(recipe, Spectra(store, recipe.features, cpu), data, seed=0).train()
    for state, scale in (("in memory", Scale()), ("on disk", Scale()), ("not kept", Scale(device_cache=False))):
        runs = []
        for _ in range(RUNS):
            if state != "in memory":
                forget(store)
            runs.append(trained(recipe, detector, Spectra(store, recipe.features, cpu, scale), data, STEPS[profile]))
        waited, reading, step = (list(column) for column in zip(*runs, strict=True))
        goal = "none: it computes whole clips" if state == "not kept" else "<= 0.05 of a step"
        what = f"a step of {recipe.encoder.name}, {len(store.clips):,} clips, log-mels {state}"
        report(f"waits of {what}", "s", waited, step, goal)
        report(f"reading for {what}", "s", reading, step, goal)


def main() -> None:
    torch.set_num_threads(2)
    clips = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    with tempfile.TemporaryDirectory(prefix="raysd-bench-") as folder:
        make(Path(folder) / "data", clips)
        store = open_store(Path(folder) / "data", Data(), Path(folder) / "cache")
        for profile in STEPS:
            measure(store, profile)


if __name__ == "__main__":
    main()
