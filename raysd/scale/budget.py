"""What one run of a study may take, and whether a trial may still be started: the rules alone, without any Ray.

- A trial is started only if it is expected to end within what is left.
- A seed is begun only if all its trials are expected to fit, so that an unfinished study has as many seeds of one
  variant as of another. Only a seed that an earlier run has begun is continued trial by trial.
- What a trial is expected to take follows those of this run: of its variant, else of its shape; else the plan; else the
  mean of this run. Where nothing is known, it is started.
"""

import time
from collections.abc import Callable, Collection, Iterable
from statistics import mean

from raysd.study.cost import training_shape, wall_seconds
from raysd.study.design import Trial
from raysd.study.files import Study
from raysd.study.plan import Plan, PlannedTrial


class Budget:
    """Seconds by the clock, or GPU-seconds, of one run; it begins when this is made."""

    def __init__(
        self,
        seconds: float,
        planned: Iterable[PlannedTrial] = (),
        gpus: float | None = None,
        begun: Collection[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`planned` are the trials to run, as the plan has them; others may come, of a search.

        `gpus`: those that a trial holds, where the seconds are GPU-seconds. `begun`: seeds of which an earlier run left
        some trials undone.
        """
        self._seconds, self._gpus, self._clock = seconds, gpus, clock
        self._planned = {plan.key: plan for plan in planned}
        self._begun = set(begun)
        self._start = clock()
        self._running: dict[str, tuple[Trial, float]] = {}
        """Key of a trial -> the trial, and when it was started."""
        self._spent = 0.0
        """Seconds of attempts that are over."""
        self._took: dict[tuple[str, bool], list[float]] = {}
        self._all: list[float] = []

    def allows(self, trial: Trial, waiting: Iterable[Trial], at_once: int) -> bool:
        """Whether a trial may start now, beside those that run; `waiting` are all that have not, itself included."""
        if trial.seed in self._begun:
            wanted = [trial]
        else:
            wanted = [other for other in waiting if other.seed == trial.seed or other.seed in self._begun]
        times = [self._expected(other) or 0.0 for other in wanted]
        now = self._clock()
        under_way = [(now - start, self._expected(other) or 0.0) for other, start in self._running.values()]
        if self._gpus is not None:
            spent = self._gpus * (self._spent + sum(map(max, under_way)))
            return spent < self._seconds and spent + self._gpus * sum(times) <= self._seconds
        left = self._start + self._seconds - now
        if len(wanted) > 1:  # they share the places with what runs
            times = [*(max(0.0, expected - gone) for gone, expected in under_way), *times]
        return left > 0 and wall_seconds(times, at_once) <= left

    def started(self, trial: Trial) -> None:
        """It runs from now on."""
        self._begun.add(trial.seed)
        self._running[trial.key] = (trial, self._clock())

    def ended(self, trial: Trial, finished: bool) -> None:
        """An attempt at it is over."""
        seconds = self._clock() - self._running.pop(trial.key)[1]
        self._spent += seconds
        if finished:
            self._all.append(seconds)
            for kind in self._kinds(trial):
                self._took.setdefault(kind, []).append(seconds)

    def _kinds(self, trial: Trial) -> list[tuple[str, bool]]:
        """What it is like, the likest first; what only scores is not like what trains."""
        trains = trial.key not in self._planned or self._planned[trial.key].trains
        return [(trial.variant, trains), (training_shape(trial.recipe), trains)]

    def _expected(self, trial: Trial) -> float | None:
        for kind in self._kinds(trial):
            if kind in self._took:
                return mean(self._took[kind])
        seconds = self._planned[trial.key].seconds if trial.key in self._planned else None
        return mean(self._all) if seconds is None and self._all else seconds


def budget_of(study: Study, plan: Plan) -> Budget | None:
    """The budget of a run that starts now, of a study and its plan; None without one."""
    settings, scale = study.budget, study.scale
    if settings is None:
        return None
    begun = {trial.seed for trial in plan.missing[:1]} & set(plan.begun_seeds)
    if settings.hours is not None:
        return Budget(settings.hours * 3600, plan.missing, begun=begun)
    gpus = scale.workers * scale.gpus_per_worker
    return Budget((settings.gpu_hours or 0.0) * 3600, plan.missing, gpus, begun)
