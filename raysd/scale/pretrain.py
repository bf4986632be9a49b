"""A pretraining by several workers of Ray Train: on the cluster that RAY_ADDRESS names, or on a Ray of its own."""

from collections.abc import Callable

from raysd.pretrain import Job
from raysd.scale.connect import connected
from raysd.scale.room import groups_at_once, nodes
from raysd.scale.train import Workers
from raysd.train import Epoch
from raysd.trial import FailedOnWorkers


def on_workers(job: Job, on_epoch: Callable[[Epoch], None], say: Callable[[str], None]) -> str:
    """Does the job; where a worker or its node died, goes on from the last epoch, `scale.retries` times. Gives the key.

    Raises BadInput where there will never be room for the workers, FailedOnWorkers where they fail.
    """
    scale = job.place.scale
    with connected() as here:
        if here.dashboard:
            say(f"dashboard: {here.dashboard}")
        groups_at_once(scale, nodes())
        workers, left = Workers(scale), scale.retries
        while True:
            try:
                key = workers.run(job, on_epoch)
                break
            except FailedOnWorkers as error:
                if error.kind != "infrastructure" or not left:
                    raise
                say(f"a worker died; it goes on from the last epoch (attempts left: {left})")
                left -= 1
        workers.end()
        return key
