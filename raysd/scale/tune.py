"""Runs the trials of a study with Ray Tune, in warm actors that keep their process, imports and data between trials.

What is run, in which order and what is kept are raysd's own: Tune is given the missing trials only, one by one, and
every result lies in the results root before Tune hears of it. So a study that was killed is continued by running it
again, from each unfinished trial's last epoch, whatever became of Ray.
"""

import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

# read when ray is imported: no usage reports; Tune's own progress boxes and log files are not wanted
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune
from ray.tune.search import Searcher

from raysd.errors import BadInput
from raysd.results.store import Results
from raysd.study.design import Trial
from raysd.study.files import Scale
from raysd.train import Epoch
from raysd.trial import Place, Run, failure_kind, run_trial

RETRIES = 2
"""How often a trial whose process died is started again before it counts as failed."""


class Watcher(Protocol):
    """What is told of a study under way; all calls come from the driver's thread."""

    def started(self, trial: Trial) -> None: ...
    def epoch(self, trial: Trial, epoch: dict[str, Any]) -> None: ...
    def finished(self, trial: Trial, summary: dict[str, Any]) -> None: ...
    def failed(self, trial: Trial, kind: str, message: str) -> None: ...


@dataclass
class Outcome:
    """How a run ended."""

    done: int = 0
    failed: list[str] = field(default_factory=list)
    """Keys of the trials that failed."""
    canary_failed: bool = False
    """The first trial failed, and the study was stopped."""
    interrupted: bool = False
    """The user stopped it; the same command goes on."""


def run_trials(trials: Sequence[Trial], place: Place, scale: Scale, watch: Watcher) -> Outcome:
    """Runs `trials`, in order as far as there is room, and reports what became of them."""
    place = replace(
        place, device="cuda" if scale.gpus_per_worker else "cpu", threads=max(1, int(scale.cpus_per_worker))
    )
    by_key = {trial.key: trial for trial in trials}
    with _connected(), tempfile.TemporaryDirectory(prefix="raysd-tune-") as scratch:
        _check_placeable(scale)
        queue, outcome = _Queue(trials), Outcome()
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_run_in_worker, trials=by_key, place=place),
                {"CPU": scale.cpus_per_worker, "GPU": scale.gpus_per_worker},
            ),
            tune_config=tune.TuneConfig(search_alg=queue, num_samples=len(trials), reuse_actors=True),
            run_config=tune.RunConfig(
                name="study",
                storage_path=scratch,
                verbose=0,
                stop=_StopAfterFailedCanary(queue),
                callbacks=[_Reports(by_key, queue, outcome, place, watch)],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            outcome.interrupted = True
    outcome.canary_failed = queue.canary_failed
    settled = outcome.done + len(outcome.failed)
    outcome.interrupted |= not outcome.canary_failed and settled < len(trials)
    return outcome


def _run_in_worker(config: dict[str, str], trials: dict[str, Trial], place: Place) -> None:
    """One trial in an actor. A failure is reported, not raised: only a process that died is worth starting again."""
    try:
        record = run_trial(trials[config["key"]], place, on_epoch=_report_epoch)
    except Exception as error:
        tune.report({"state": "failed", "kind": failure_kind(error), "message": f"{type(error).__name__}: {error}"})
        return
    official = {
        row["part"]: row["value"] for row in record.metrics if row["machine"] == "all" and row["metric"] == "official"
    }
    tune.report(
        {"state": "done", "official": official, "seconds": record.total_seconds, "train_seconds": record.train_seconds}
    )


def _report_epoch(epoch: Epoch) -> None:
    tune.report({"state": "training", **asdict(epoch)})


class _Queue(Searcher):
    """Hands out the trials in order: the first alone until it has shown an epoch, no two of one training at once."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        super().__init__(metric="state", mode="max")  # Tune wants to be told one; nothing here compares it
        self._waiting = list(trials)
        self._running: dict[str, Trial] = {}
        self._canary: str | None = None
        self._canary_alive = False
        self.canary_failed = False

    def suggest(self, trial_id: str) -> dict[str, str] | str | None:
        if self.canary_failed or not self._waiting:
            return Searcher.FINISHED
        if self._canary is not None and not self._canary_alive:
            return None
        trained_now = {trial.training_key for trial in self._running.values()}
        for trial in self._waiting:
            if trial.training_key not in trained_now:
                self._waiting.remove(trial)
                self._running[trial_id] = trial
                self._canary = self._canary or trial_id
                return {"key": trial.key}
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if result.get("state") == "failed" and trial_id == self._canary:
            self.canary_failed = True
        self._canary_alive = True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._running.pop(trial_id, None)
        if error and trial_id == self._canary:
            self.canary_failed = True
        self._canary_alive = True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is missing is read from the results."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


class _StopAfterFailedCanary(tune.Stopper):
    """A mistake in the first trial is most likely one in all: those under way are stopped, and can be continued."""

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._queue.canary_failed


class _Reports(tune.Callback):
    """Tells the watcher and the outcome what Tune says; writes the failures that only the driver sees."""

    def __init__(self, trials: dict[str, Trial], queue: _Queue, outcome: Outcome, place: Place, watch: Watcher) -> None:
        self._trials, self._queue, self._outcome, self._place, self._watch = trials, queue, outcome, place, watch

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that raysd has no use for."""
        return {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._watch.started(self._trials[trial.config["key"]])

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        known = self._trials[trial.config["key"]]
        match result.get("state"):
            case "done":
                self._outcome.done += 1
                self._watch.finished(known, result)
            case "failed":
                self._outcome.failed.append(known.key)
                self._watch.failed(known, result["kind"], result["message"])
            case _:
                self._watch.epoch(known, result)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        known = self._trials[trial.config["key"]]
        said = trial.get_error()
        run = Run(known, self._place, datetime.now(UTC))
        Results(self._place.results_root).write_failure(run.failed("infrastructure", str(said)))
        self._outcome.failed.append(known.key)
        message = f"its process died {RETRIES + 1} times; its last checkpoint is kept"
        self._watch.failed(known, "infrastructure", message)


@contextmanager
def _connected():
    """A Ray to run on: the cluster of RAY_ADDRESS where that is set (as in a job), else one of our own."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", **quiet)
    else:
        # "local" never joins a cluster that happens to run on this machine
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ray.init(address="local", num_cpus=cores, include_dashboard=False, object_store_memory=200 << 20, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _check_placeable(scale: Scale) -> None:
    """A trial that no node could ever hold would wait for ever."""
    for name, wanted in (("CPU", scale.cpus_per_worker), ("GPU", scale.gpus_per_worker)):
        largest = max((node["Resources"].get(name, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
        if wanted > largest:
            raise BadInput(
                f"scale.{name.lower()}s_per_worker is {wanted:g}, but no machine here has more than {largest:g} {name}s"
            )
