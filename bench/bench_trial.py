"""Seconds of a warm study's trial beyond its training, against the seconds of its training.

Scoring, metrics, writing and all that Ray Tune does from one trial to the next count as beyond.
"""

import time
from typing import Any

from corpus import corpus, report
from rich.console import Console

from raysd.progress import StudyProgress
from raysd.results.store import Results
from raysd.scale.tune import run_trials
from raysd.session import Session
from raysd.study.design import Trial, load_study

TRIALS = 10


class Clock(StudyProgress):
    """Notes when each trial ended and how long it trained."""

    def __init__(self) -> None:
        super().__init__(Console(stderr=True), TRIALS)
        self.ended: list[float] = []
        self.trained: list[float] = []

    def finished(self, trial: Trial, summary: dict[str, Any]) -> None:
        super().finished(trial, summary)
        self.ended.append(time.perf_counter())
        self.trained.append(summary["train_seconds"])


def main() -> None:
    changes = {"train.epochs": 2, "scale.cpus_per_worker": 2}
    study = load_study("augmentation", changes, profile="cpu", seeds=tuple(range(TRIALS)))
    clock = Clock()
    with corpus() as (folder, root), clock:
        session = Session(study, Results(folder / "results"), root, folder / "cache")
        session.decode()
        baselines = [trial for trial in session.missing() if trial.role == "baseline"]
        run_trials(baselines, session.place(), study.study.scale, clock)
    wall = [after - before for before, after in zip(clock.ended, clock.ended[1:], strict=False)]
    beyond = [seconds - trained for seconds, trained in zip(wall, clock.trained[1:], strict=True)]
    report("a warm trial beyond its training", "s", beyond, clock.trained[1:], "<= 0.3 s beyond")


if __name__ == "__main__":
    main()
