"""Runs the trials of a study with Ray Tune, in warm actors that keep their process, imports and data between trials.

What is run, in which order and what is kept are raysd's own: Tune is given the missing trials only, one by one, or what
a search suggests, and every result lies in the results root before Tune hears of it. So a study that was killed is
continued by running it again, from each unfinished trial's last epoch, whatever became of Ray.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from raysd.errors import BadInput
from raysd.parallel import Scale
from raysd.recipe import Recipe
from raysd.results.patience import Notes, StorageError, log
from raysd.results.store import Results
from raysd.scale.budget import Budget
from raysd.scale.connect import connected
from raysd.scale.loggers import Loggers
from raysd.scale.queue import Queue
from raysd.scale.room import groups_at_once, nodes
from raysd.scale.train import Workers, release
from raysd.study.design import Trial
from raysd.study.search import StudySearch
from raysd.train import Epoch
from raysd.trial import Place, Run, failure_kind, run_trial

RAY_OUT_OF_MEMORY = "due to the node running low on memory"
"""Ray says so of a process that it ended to keep its node from swapping."""


LOOK_SECONDS = 10
"""How often the cluster is looked at: nodes come and go."""


class Watcher(Protocol):
    """What is told of a study under way; all calls come from the driver's thread."""

    def note(self, line: str) -> None: ...
    def started(self, trial: Trial) -> None: ...
    def epoch(self, trial: Trial, epoch: dict[str, Any]) -> None: ...
    def finished(self, trial: Trial, summary: dict[str, Any]) -> None: ...
    def failed(self, trial: Trial, kind: str, message: str) -> None: ...
    def given_up(self, trial: Trial, message: str) -> None: ...


@dataclass
class Outcome:
    """How a run ended."""

    done: int = 0
    failed: list[str] = field(default_factory=list)
    """Keys of the trials that failed."""
    given_up: int = 0
    """Trials that a search gave up after few epochs."""
    canary_failed: bool = False
    """The first trial failed, and the study was stopped."""
    interrupted: bool = False
    """The user stopped it; the same command goes on."""
    left: int = 0
    """Trials that were not started for want of budget; the same command goes on."""
    lost: StorageError | None = None
    """Nothing can be written to the results any more, and the study was stopped."""


def run_trials(
    trials: Sequence[Trial],
    place: Place,
    scale: Scale,
    watch: Watcher,
    search: StudySearch | None = None,
    budget: Budget | None = None,
) -> Outcome:
    """Runs `trials`, then what `search` suggests, in order as far as there is room; reports what became of them.

    Raises StorageError where it had to be stopped because nothing can be written to the results any more.
    """
    place = replace(place, device="cuda" if scale.gpus_per_worker else "cpu", scale=scale)
    queue, outcome = Queue(trials, scale.retries, search and search.next, budget), Outcome()
    wanted = len(trials) + (search.left if search else 0)
    loggers = [Loggers(place, _of_config, watch)] if scale.tensorboard or scale.mlflow else []
    try:
        with connected() as here:
            if here.dashboard:
                watch.note(f"dashboard: {here.dashboard}")
            resources = {"CPU": scale.cpus_per_worker, "GPU": scale.gpus_per_worker}
            if scale.workers > 1:
                # Ray Train's to ask for, beside what Tune does. The actor that feeds them takes no core from them, and
                # stands on the one node that a cluster cannot lose.
                resources = {HEAD_NODE_RESOURCE_NAME: 0.001}
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(_run_in_actor, place=place), resources),
                tune_config=tune.TuneConfig(
                    search_alg=_Search(queue, outcome, scale),
                    scheduler=_WarmFirst(),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="study",
                    storage_path=str(here.folder / "tune"),
                    verbose=0,
                    stop=_StopEarly(queue, outcome),
                    callbacks=[_Reports(queue, outcome, place, watch, search), *loggers],
                    failure_config=tune.FailureConfig(max_failures=0),
                ),
            )
            tuner.fit()
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C or SIGTERM while Ray starts or ends; Tune takes it in between
        outcome.interrupted = True
    if outcome.lost:
        raise outcome.lost
    outcome.canary_failed = queue.canary_failed
    settled = outcome.done + len(outcome.failed) + outcome.given_up
    outcome.left = wanted - settled if queue.out_of_budget else 0
    outcome.interrupted |= not outcome.canary_failed and settled + outcome.left < wanted
    return outcome


_workers: Workers | None = None
"""This actor's workers, where a trial has several; they stay for its next trials."""


def _as_config(trial: Trial) -> dict[str, Any]:
    """A trial in the plain values that Tune takes."""
    return {name: getattr(trial, name) for name in _PLAIN} | {"recipe": trial.recipe.model_dump_json()}


def _of_config(config: dict[str, Any]) -> Trial:
    return Trial(recipe=Recipe.model_validate_json(config["recipe"]), **{name: config[name] for name in _PLAIN})


_PLAIN = ("variant", "role", "seed", "fingerprint")


def _run_in_actor(config: dict[str, Any], place: Place) -> None:
    """One trial in an actor. A failure is reported, not raised: only a process that died is worth starting again."""
    global _workers
    log.handlers = [Notes(lambda message: tune.report({"state": "note", "message": message}))]
    if place.scale.workers > 1 and _workers is None:
        _workers = Workers(place.scale, _report_group)
    try:
        record = run_trial(_of_config(config), place, _report_epoch, _workers and _workers.train_and_embed)
    except Exception as error:
        # the error of several workers is the traceback of one of them
        message = f"{type(error).__name__}: {error}".strip().splitlines()[-1 if _workers else 0]
        tune.report({"state": "failed", "kind": failure_kind(error), "message": message})
        return
    official = {
        row["part"]: row["value"] for row in record.metrics if row["machine"] == "all" and row["metric"] == "official"
    }
    tune.report(
        {"state": "done", "official": official, "seconds": record.total_seconds, "train_seconds": record.train_seconds}
    )


def _report_epoch(epoch: Epoch) -> None:
    tune.report({"state": "training", **asdict(epoch)})


def _report_group(group: str) -> None:
    tune.report({"state": "placed", "group": group})


class _Search(Searcher):
    """Gives Tune one attempt at a trial after another, never more than there is room for.

    One that is tried again is a new trial to Tune. Raises BadInput where there will never be room for one.
    """

    def __init__(self, queue: Queue, outcome: Outcome, scale: Scale) -> None:
        super().__init__(metric="state", mode="max")  # Tune wants to be told one; nothing here compares it
        self._queue, self._outcome, self._scale = queue, outcome, scale
        self._queue.room, self._looked = groups_at_once(scale, nodes()), time.monotonic()
        self._given: set[str] = set()
        """Those that have an actor, or wait for one."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        with _noticed(self._outcome):
            return self._suggest(trial_id)
        return Searcher.FINISHED

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._queue.settled:
            return Searcher.FINISHED
        if time.monotonic() > self._looked + LOOK_SECONDS:
            with suppress(BadInput):  # a node is lost; wait for another
                self._queue.room = groups_at_once(self._scale, nodes())
            self._looked = time.monotonic()
        trial = self._queue.next(trial_id) if len(self._given) < self._queue.room else None
        if trial is None:
            return None
        self._given.add(trial_id)
        return _as_config(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Its actor is free; what became of the trial the callbacks hear."""
        self._given.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is missing is read from the results."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


class _WarmFirst(FIFOScheduler):
    """Gives an actor that has become free to the trial asked for just then.

    Tune's own choice is the trial that waits longest: one for which an actor is being started, which is then stopped.
    Where trials take no longer than the start of an actor, all of them would run in the first, one after another.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        return None


@contextmanager
def _noticed(outcome: Outcome) -> Iterator[None]:
    """The driver cannot write to the results, though what passes was waited for: whatever else is run would be lost."""
    try:
        yield
    except StorageError as error:
        outcome.lost = error


class _StopEarly(tune.Stopper):
    """A mistake in the first trial is most likely one in all, and without results nothing is kept: those under way are
    stopped, and can be continued."""

    def __init__(self, queue: Queue, outcome: Outcome) -> None:
        self._queue, self._outcome = queue, outcome

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._queue.canary_failed or self._outcome.lost is not None


class _Reports(tune.Callback):
    """Tells the queue, the outcome and the watcher what Tune says; writes the failures that only the driver sees."""

    def __init__(
        self, queue: Queue, outcome: Outcome, place: Place, watch: Watcher, search: StudySearch | None
    ) -> None:
        self._queue, self._outcome, self._place, self._watch = queue, outcome, place, watch
        self._search = search
        self._trials: dict[str, Trial] = {}
        """By Tune's name of an attempt."""
        self._groups: dict[str, str] = {}
        """Of each attempt, the placement group that its workers are in."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that raysd has no use for."""
        return {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._watch.started(self._known(trial))

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        with _noticed(self._outcome):
            self._heard(trial, self._known(trial), result)

    def _heard(self, trial: Any, known: Trial, result: dict[str, Any]) -> None:
        match result.get("state"):
            case "note":
                self._watch.note(f"{known.variant} seed {known.seed}  {result['message']}")
            case "done":
                if self._queue.done(trial.trial_id):
                    self._outcome.done += 1
                    if self._search:
                        self._search.done(known.key)
                    self._watch.finished(known, result)
            case "failed" if result["kind"] == "given_up":
                if self._search and self._queue.done(trial.trial_id):
                    self._outcome.given_up += 1
                    self._search.pruned(known.key)
                    self._watch.given_up(known, result["message"].removeprefix("GivenUp: "))
            case "placed":
                self._groups[trial.trial_id] = result["group"]
            case "failed":
                self._failed(trial, result["kind"], result["message"])
            case _:
                self._queue.lives(trial.trial_id)
                self._watch.epoch(known, result)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Its process died; of want of memory where Ray says that it ended it for that."""
        release(self._groups.pop(trial.trial_id, None))
        said = Path(trial.error_file).read_text(encoding="utf-8")  # of an error of this kind Tune keeps no more
        with _noticed(self._outcome):
            if RAY_OUT_OF_MEMORY in said:
                self._failed(trial, "oom", "Ray ended its process for want of memory, also when it ran alone", said)
            else:
                self._failed(trial, "infrastructure", f"its process died {self._place.scale.retries + 1} times", said)

    def _known(self, trial: Any) -> Trial:
        if trial.trial_id not in self._trials:
            self._trials[trial.trial_id] = _of_config(trial.config)
        return self._trials[trial.trial_id]

    def _failed(self, trial: Any, kind: str, message: str, said: str | None = None) -> None:
        """Tells of a trial that is given up. One whose process could not write so itself is written as failed here."""
        if not self._queue.failed(trial.trial_id, kind):
            return
        known = self._known(trial)
        self._outcome.failed.append(known.key)
        unwritten = said is not None or kind == "infrastructure"
        self._watch.failed(known, kind, message + "; its last checkpoint is kept" * unwritten)
        if self._search:
            self._search.failed(known.key, kind)
        if unwritten:
            run = Run(known, self._place, datetime.now(UTC))
            Results(self._place.results_root).write_failure(run.failed(kind, said or message))
