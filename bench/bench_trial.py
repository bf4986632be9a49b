"""Seconds of a warm study's trial beyond its training, against the seconds of its training; of one worker and of two.

Scoring, metrics, writing and all that Ray does from one trial to the next count as beyond. Then the memory that an idle
process of each kind holds, its share of what it shares with others (PSS).
"""

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from corpus import corpus, report
from rich.console import Console

from raysd.parallel import Scale
from raysd.progress import StudyProgress
from raysd.results.store import Results
from raysd.scale.tune import run_trials
from raysd.session import Session
from raysd.study.design import Trial, load_study

TRIALS = 10


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
    """Of each kind of Ray's Python processes, what each one holds."""
    held: dict[str, list[float]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_text(encoding="utf-8").split("\0")[0]
            if name.startswith("ray::"):
                rollup = (process / "smaps_rollup").read_text(encoding="utf-8")
                pss = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
                held.setdefault(name.removeprefix("ray::").split(".")[0], []).append(int(pss.split()[1]) / 1024)
        except OSError:
            continue
    return held


def measure(scale: Scale) -> None:
    study = load_study("augmentation", {"train.epochs": 2}, profile="cpu", seeds=tuple(range(TRIALS)))
    clock = Clock()
    with corpus() as (folder, root), clock:
        session = Session(study, Results(folder / "results"), root, folder / "cache")
        session.decode()
        baselines = [trial for trial in session.missing() if trial.role == "baseline"]
        run_trials(baselines, session.place(), scale, clock)
    wall = [after - before for before, after in zip(clock.ended, clock.ended[1:], strict=False)]
    beyond = [seconds - trained for seconds, trained in zip(wall, clock.trained[1:], strict=True)]
    goal = "<= 0.3 s beyond" if scale.workers == 1 else "<= 1 s beyond"
    report(f"a warm trial of {scale.workers} workers beyond its training", "s", beyond, clock.trained[1:], goal)
    held = {kind: [len(each), round(median(each))] for kind, each in sorted(clock.held.items())}
    print(json.dumps({"name": f"processes of {scale.workers} workers: number and MB of each", "ours": held}))


def main() -> None:
    measure(Scale(cpus_per_worker=2))
    measure(Scale(workers=2))


if __name__ == "__main__":
    main()
