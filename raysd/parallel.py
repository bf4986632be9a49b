"""How one training is spread over workers: its settings, and what the workers say to each other.

Every worker holds the whole network, a share of each batch, and the loss of the whole batch. With one worker (no
process group of torch.distributed) every function here gives back what it was given.

G items of the whole batch, B of this worker.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field, model_validator
from torch import Tensor, nn

from raysd.settings import Settings


class Scale(Settings):
    """How a trial is run. Never part of its key: the numbers are the same to rounding."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that train one trial together, each on its share of every batch."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """Processor cores of a worker."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of a worker. A fraction lets several trials of one worker share a GPU."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """Items whose activations a worker holds at once; smaller needs less memory and more time. null: all of a batch."""
    compile: bool = False
    """Compile the encoder with torch.compile (needs a C++ compiler); pays for long trainings on a GPU."""
    precision: Literal["fp32", "bf16"] | None = None
    """The encoder's arithmetic instead of the recipe's `train.precision`; records say so. null: the recipe's."""
    device_cache: Literal["auto"] | bool = "auto"
    """Keep the log-mels of all clips ready: in the GPU's memory, or on a CPU in one memory-mapped file of the cache
    that all trials of a node share. auto: on a GPU only if they fit into half of a trial's share of it. false: compute
    those of each batch from its samples, in the background; the numbers are the same."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial is started again whose process or node died; it goes on from its last epoch."""
    tensorboard: str | None = None
    """A folder, on the machine that runs the study, to which the loss of each epoch and the metrics of each trial are
    written for TensorBoard too. Of studies alone. null: none."""
    mlflow: str | None = None
    """The same for MLflow: its tracking URI, or a folder for a database (needs `pip install 'raysd[mlflow]'`). Give
    credentials in MLflow's environment variables. Of studies alone. null: none."""

    @model_validator(mode="after")
    def _possible(self) -> "Scale":
        if self.workers > 1 and self.gpus_per_worker % 1:
            raise ValueError(
                f"gpus_per_worker {self.gpus_per_worker:g} with {self.workers} workers: NCCL wants a GPU for each; "
                "give whole GPUs, or one worker"
            )
        if self.compile and self.micro_batch is not None:
            raise ValueError("compile and micro_batch exclude each other; leave one out")
        if self.tensorboard and "://" in self.tensorboard:
            raise ValueError(f"tensorboard {self.tensorboard}: expected a folder of this machine")
        if self.mlflow and re.search(r"://[^/]*@", self.mlflow):
            raise ValueError(
                "mlflow: leave the credentials out; MLflow reads them from MLFLOW_TRACKING_USERNAME and so on"
            )
        return self

    def recorded(self) -> dict[str, Any]:
        """As records keep it: without the places of logs, which say nothing of the numbers and may name folders."""
        return self.model_dump(mode="json", exclude={"tensorboard", "mlflow"})


class LostWorker(RuntimeError):
    """Another worker of the training is gone."""


def world() -> int:
    """The number of workers that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0; worker 0 writes."""
    return dist.get_rank() if world() > 1 else 0


def share(x_G: Tensor) -> Tensor:
    """This worker's rows, an equal part as far as can be; joined in the order of ranks the parts are the whole."""
    return x_G.tensor_split(world())[rank()]


def gather(num_rows: int) -> Callable[[Tensor], Tensor]:
    """A function that joins the shares (axis 0) of `num_rows` rows in the order of ranks; every worker gets all.

    Its backward pass gives the gradient of the sum of all workers' results. As each worker computes the same loss from
    the same rows, that is its own gradient times the number of workers, and nothing need be sent.
    """
    return (lambda x: x) if world() == 1 else (lambda x: _Gather.apply(x, num_rows))  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, num_rows: int) -> Tensor:
        sizes = [len(rows) for rows in torch.empty(num_rows, 0).tensor_split(world())]
        ctx.own = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x
        joined = [torch.empty_like(padded) for _ in sizes]
        with _watched():
            dist.all_gather(joined, padded)
        return torch.cat([rows[:size] for rows, size in zip(joined, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        return grad[0][ctx.own] * world(), None


@torch.no_grad()
def average_gradients(module: nn.Module) -> None:
    """Replaces every gradient by its mean over the workers, in one message."""
    if world() == 1:
        return
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    with _watched():
        dist.all_reduce(flat)
    for grad, mean in zip(grads, (flat / world()).split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def from_first(value: Any) -> Any:
    """What worker 0 has, on every worker."""
    if world() == 1:
        return value
    box = [value]
    with _watched():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: Any) -> list[Any]:
    """What each worker has, in the order of ranks, on every worker."""
    if world() == 1:
        return [value]
    found = [None] * world()
    with _watched():
        dist.all_gather_object(found, value)
    return found


def lost_worker(error: BaseException) -> bool:
    """Whether `error` only says that another worker is gone (which torch.distributed has no type of its own for)."""
    if isinstance(error, (LostWorker, dist.DistBackendError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "Connection"))


@contextmanager
def _watched() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostWorker(f"worker {rank()} of {world()} no longer reaches the others: {error}") from error
