"""Ray Train: a group of workers that stays up and does one job after another: trials, or a pretraining.

The documented pattern starts a TorchTrainer for every training and pays for its start and end each time. Here one
TorchTrainer runs for as long as jobs of its shape come: its training function asks a post for the next job, does it,
tells the post what became of it, and asks again. The post is a small actor beside the driver:

    Tune's actor --- the job ----> post --- the job ----> every worker: train.py -> results
                 <-- epochs, end -- post <-- epochs, end -- worker 0

A group that lost a worker ends as a whole, and the next job starts another.
"""

import asyncio
import logging
import os
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

# read when a group is started: workers stay in the folder where they are; what raysd does not read is not measured; the
# end of a group, and the death of a worker, are seen within half a second; a cluster that grows has time to grow
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "86400")

import pyarrow as pa
import ray
import ray.train
import torch
from ray._raylet import PlacementGroupID
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.placement_group import PlacementGroup, get_current_placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysd.parallel import Scale, lost_worker, rank
from raysd.results.patience import Notes, log
from raysd.results.store import Results
from raysd.study.design import Trial
from raysd.train import Epoch, GivenUp, NonFiniteLoss
from raysd.trial import FailedOnWorkers, Place, failure_kind, train_and_embed

_PATIENCE_S = 1.0  # how long a question to the post waits for an answer before it is asked again

Job = Callable[[str, Callable[[Epoch], None]], Any]
"""What all workers of a group do together: each is given its device, and what hears of the epochs. It is pickled, and
leaves what it makes in the results root; the driver gets what worker 0 returns."""


class Workers:
    """A group of workers of one scale, seen from the process that gives it jobs."""

    def __init__(self, scale: Scale, on_placed: Callable[[str], None] = lambda group: None) -> None:
        """`on_placed` hears the placement group that a job's workers are in."""
        self.scale = scale
        self._on_placed = on_placed
        self._jobs = 0
        self._group: _Group | None = None

    def train_and_embed(self, trial: Trial, place: Place, on_epoch: Callable[[Epoch], None]) -> pa.Table:
        """As `raysd.trial.train_and_embed`, but by all workers together. Raises as `run` does."""
        self.run(_TrialJob(trial, place), on_epoch)
        results = Results(place.results_root)
        embeddings = results.read_embeddings(trial.training_key)
        if embeddings is None:
            raise RuntimeError(f"{results}: the embeddings that the workers wrote are not to be seen here")
        return embeddings

    def run(self, job: Job, on_epoch: Callable[[Epoch], None]) -> Any:
        """Does a job; gives what worker 0 returns.

        Raises FailedOnWorkers: of kind `infrastructure` where the group ended under the job; the next call starts a
        new one, and the same training goes on from its last epoch.
        """
        if self._group is None or self._group.ended:
            self.end()
            self._group = _Group(self.scale)
        self._jobs += 1
        return self._group.run(self._jobs, job, on_epoch, self._on_placed)

    def end(self) -> None:
        """Ends the group, if there is one, and gives back what it holds."""
        if self._group is not None:
            self._group.end()
            self._group = None


@dataclass(frozen=True)
class _TrialJob:
    """The training of a trial; its embeddings go to the results root."""

    trial: Trial
    place: Place

    def __call__(self, device: str, on_epoch: Callable[[Epoch], None]) -> None:
        torch.set_num_threads(self.place.threads)
        embeddings = train_and_embed(self.trial, replace(self.place, device=device), on_epoch)
        if rank() == 0:
            Results(self.place.results_root, patient=True).write_embeddings(self.trial.training_key, embeddings)


class _Group:
    """One TorchTrainer under way, in a thread of its own."""

    def __init__(self, scale: Scale) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._post = _Post.options(num_cpus=0, scheduling_strategy=here).remote()
        self._placed: str | None = None
        self.said = ""
        """What Ray Train said of the end."""
        # Ray Train wants a folder, though nothing is ever reported to it; checkpoints go to the results root
        self._folder = tempfile.TemporaryDirectory(prefix="raysd-train-", ignore_cleanup_errors=True)
        resources = {"CPU": scale.cpus_per_worker, **({"GPU": scale.gpus_per_worker} if scale.gpus_per_worker else {})}
        self._trainer = TorchTrainer(
            _serve,
            train_loop_config={"post": self._post, "scale": scale},
            torch_config=TorchConfig(backend="nccl" if scale.gpus_per_worker else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=scale.workers, use_gpu=scale.gpus_per_worker > 0, resources_per_worker=resources
            ),
            # what is tried again, and how often, is the queue's to say; by itself Ray Train would try for ever
            run_config=ray.train.RunConfig(
                name="workers",
                storage_path=self._folder.name,
                failure_config=ray.train.FailureConfig(
                    max_failures=0, controller_failure_limit=0, max_preemption_failures=0
                ),
            ),
        )
        self._thread = threading.Thread(target=self._run, daemon=True, name="raysd-workers")
        self._thread.start()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def run(self, number: int, job: Job, on_epoch: Callable[[Epoch], None], on_placed: Callable[[str], None]) -> Any:
        """What worker 0 returns; raises FailedOnWorkers where it fails, or the group ended before."""
        ray.get(self._post.give.remote(number, job))
        heard = 0
        while True:
            ended = self.ended  # before the last words are asked for, so that none is missed
            for event in ray.get(self._post.heard.remote(number, heard, 0.0 if ended else _PATIENCE_S)):
                heard += 1
                match event:
                    case ("epoch", epoch):
                        on_epoch(epoch)
                    case ("note", message):
                        log.warning(message)
                    case ("placed", group):
                        self._placed = group
                        on_placed(group)
                    case ("done", result):
                        return result
                    case ("failed", "given_up", said):
                        raise GivenUp(said.splitlines()[-1].rpartition(": ")[2])
                    case ("failed", kind, said):
                        raise FailedOnWorkers(kind, said)
            if ended:
                raise FailedOnWorkers("infrastructure", f"its workers ended: {self.said}")

    def end(self) -> None:
        ray.get(self._post.give.remote(-1, None))
        self._thread.join(timeout=30)
        release(self._placed)
        ray.kill(self._post)  # pyright: ignore[reportArgumentType]
        self._folder.cleanup()

    def _run(self) -> None:
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        try:
            self._trainer.fit()
        except Exception as error:  # whatever ends a group, the trial is tried with a new one
            self.said = " ".join(str(error).split())[:2000]


def release(group: str | None) -> None:
    """Removes a placement group, if it is still there.

    Ray Train's controller does that. Where it died with its group, the group would hold its resources until the job's
    end: Ray's own watch over that needs the dashboard, which an embedded Ray has not.
    """
    if group is not None:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))


@ray.remote
class _Post:
    """Holds the one job to be done and what is said of it; every question waits for its answer a while."""

    def __init__(self) -> None:
        self._number, self._job = 0, None
        self._settled = 0
        self._events: list[tuple] = []
        self._news = asyncio.Condition()

    async def give(self, number: int, job: Job | None) -> None:
        """The driver's: a job to do under a new number; number -1 sends the workers home."""
        async with self._news:
            self._number, self._job, self._events = number, job, []
            self._news.notify_all()

    async def take(self, seen: int, patience_s: float) -> tuple[int, Job | None]:
        """A worker's: the job after number `seen`, unless it is settled; number 0 when there is none yet."""
        async with self._news:
            done = max(seen, self._settled)
            await _wait(self._news, lambda: self._number < 0 or self._number > done, patience_s)
            return (self._number, self._job) if self._number < 0 or self._number > done else (0, None)

    async def tell(self, number: int, *event: Any) -> None:
        """A worker's: an event of a job. The first end counts."""
        async with self._news:
            if number == self._number and number > self._settled:
                self._events.append(event)
                if event[0] in ("done", "failed"):
                    self._settled = number
                self._news.notify_all()

    async def heard(self, number: int, after: int, patience_s: float) -> list[tuple]:
        """The driver's: the events of a job after the first `after`."""
        async with self._news:
            await _wait(self._news, lambda: len(self._events) > after, patience_s)
            return self._events[after:] if number == self._number else []


async def _wait(news: asyncio.Condition, ready: Callable[[], bool], patience_s: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(news.wait_for(ready), patience_s)


def _serve(config: dict[str, Any]) -> None:
    """The training function of each worker: does what the post has, until it is sent home."""
    post, scale, seen = config["post"], config["scale"], 0
    while True:
        number, job = ray.get(post.take.remote(seen, 30.0))
        if number < 0:
            return
        if job is None:
            continue
        seen = number
        _do(post, number, job, scale)


def _do(post: Any, number: int, job: Job, scale: Scale) -> None:
    def tell(*event: Any) -> None:
        ray.get(post.tell.remote(number, *event))

    def on_epoch(epoch: Epoch) -> None:
        if rank() == 0:
            tell("epoch", epoch)

    log.handlers = [Notes(lambda message: tell("note", message))]
    if rank() == 0:
        group = get_current_placement_group()
        tell("placed", group.id.hex() if group else None)
    device = "cpu"
    if scale.gpus_per_worker:
        device = str(get_device())
        torch.cuda.set_device(device)
    try:
        result = job(device, on_epoch)
        if rank() == 0:
            tell("done", result)
    except Exception as error:
        if lost_worker(error):
            raise  # another's death is no fault of the job's
        tell("failed", failure_kind(error), traceback.format_exc())
        if not isinstance(error, NonFiniteLoss | GivenUp):  # which all workers see at once, so that all can go on
            raise
