"""Seconds of a warm trial beyond its training, against the pattern that Ray documents; of one worker and of two.

Embedding, scoring, metrics, writing and all that Ray does from one trial to the next count as beyond. The reference
does the same trial in the documented way (docs.ray.io, "Hyperparameter Tuning with Ray Tune"): Tune runs a function
that starts a TorchTrainer for each trial and passes its reports on. Then the memory that an idle process of each kind
holds, its share of what it shares with others (PSS).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from corpus import corpus, report
from rich.console import Console

from raysd.parallel import Scale
from raysd.progress import StudyProgress
from raysd.results.store import Results
from raysd.session import Session
from raysd.study.design import Trial, load_study
from raysd.trial import run_trial

TRIALS, REFERENCE_TRIALS = 10, 4
SCALE = Scale(cpus_per_worker=2)


class Clock(StudyProgress):
    """Notes when each trial ended, how long it trained, and in the end what Ray's processes hold."""

    def __init__(self) -> None:
        super().__init__(Console(stderr=True), TRIALS)
        self.ended: list[float] = []
        self.trained: list[float] = []
        self.held: dict[str, list[float]] = {}

    def finished(self, trial: Trial, summary: dict[str, Any]) -> None:
        super().finished(trial, summary)
        self.ended.append(time.perf_counter())
        self.trained.append(summary["train_seconds"])
        if len(self.ended) == TRIALS:
            self.held = memory_mb()


def memory_mb() -> dict[str, list[float]]:
    """Of each kind of this session's Python processes of Ray, what each one holds."""
    held: dict[str, list[float]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) != os.getsid(0):
                continue
            name = (process / "cmdline").read_text(encoding="utf-8").split("\0")[0]
            if name.startswith("ray::"):
                rollup = (process / "smaps_rollup").read_text(encoding="utf-8")
                pss = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
                held.setdefault(name.removeprefix("ray::").split(".")[0], []).append(int(pss.split()[1]) / 1024)
        except OSError:
            continue
    return held


def baselines(folder: Path, root: Path, results: str, trials: int) -> tuple[Session, list[Trial]]:
    """As many trials of the baseline, of one seed each, and where they are at home."""
    study = load_study("augmentation", {"train.epochs": 2}, profile="cpu", seeds=tuple(range(trials)))
    session = Session(study, Results(folder / results), root, folder / "cache")
    session.decode()
    return session, [trial for trial in session.missing() if trial.role == "baseline"]


def measure(folder: Path, root: Path, scale: Scale) -> Clock:
    from raysd.scale.tune import run_trials  # here: it sets what the reference has to leave as Ray has it

    session, trials = baselines(folder, root, f"results{scale.workers}", TRIALS)
    clock = Clock()
    with clock:
        run_trials(trials, session.place(), scale, clock)
    held = {kind: [len(each), round(median(each))] for kind, each in sorted(clock.held.items())}
    print(json.dumps({"name": f"processes of {scale.workers} workers: number and MB of each", "ours": held}))
    return clock


def beyond(ended: list[float], trained: list[float]) -> float:
    """Median seconds from the end of a trial to the end of the next, without what that trained."""
    wall = (after - before for before, after in pairwise(ended))
    return median(seconds - own for seconds, own in zip(wall, trained[1:], strict=True))


def documented(folder: Path, root: Path) -> float:
    """The same of Tune trials that start a TorchTrainer each, in a process of its own, with Ray's own settings."""
    words = [sys.executable, __file__, str(folder), str(root)]
    said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(said.splitlines()[-1])


def as_documented(folder: Path, root: Path) -> float:
    """What that process does."""
    import ray
    import ray.train
    import ray.train.torch
    import ray.tune
    from ray.tune.integration.ray_train import TuneReportCallback

    session, trials = baselines(folder, root, "documented", REFERENCE_TRIALS)
    place = session.place()
    ended: list[float] = []

    class Ends(ray.tune.Callback):
        def on_trial_complete(self, *args: Any, **info: Any) -> None:
            ended.append(time.perf_counter())

    def train_fn_per_worker(config: dict[str, Any]) -> None:
        run_trial(trials[config["number"]], place, lambda epoch: ray.train.report(asdict(epoch)))

    def train_driver_fn(config: dict[str, Any]) -> None:
        run_config = ray.train.RunConfig(
            name=f"train-{ray.tune.get_context().get_trial_id()}",
            storage_path=str(folder / "train"),
            callbacks=[TuneReportCallback()],
        )
        ray.train.torch.TorchTrainer(
            train_fn_per_worker,
            train_loop_config=config,
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": cores - 1}),
            run_config=run_config,
        ).fit()

    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="rr", dir="/tmp", ignore_cleanup_errors=True) as ray_folder:
        ray.init(address="local", num_cpus=cores, _temp_dir=ray_folder, log_to_driver=False)
        ray.tune.Tuner(
            ray.tune.with_resources(train_driver_fn, {"CPU": 1}),
            param_space={"number": ray.tune.grid_search(list(range(len(trials))))},
            tune_config=ray.tune.TuneConfig(max_concurrent_trials=1),
            run_config=ray.tune.RunConfig(
                name="documented", storage_path=str(folder / "tune"), verbose=0, callbacks=[Ends()]
            ),
        ).fit()
        ray.shutdown()
    trained = [session.results.read(trial.key).train_seconds for trial in trials]
    return beyond(ended, trained)


def main() -> None:
    with corpus() as (folder, root):
        theirs = documented(folder, root)
        one = measure(folder, root, SCALE)
        two = measure(folder, root, Scale(workers=2))
    ours = beyond(one.ended, one.trained)
    report("a warm trial beyond its training", "s", [ours], [theirs], "<= 0.3 s, and a ratio <= 0.05")
    ours = beyond(two.ended, two.trained)
    report("the same by two workers", "s", [ours], [theirs], "<= 1 s, against one worker as documented")


if __name__ == "__main__":
    print(as_documented(*map(Path, sys.argv[1:]))) if len(sys.argv) > 1 else main()
