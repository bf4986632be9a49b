"""The loop over epochs: plain torch and torch.distributed, knowing nothing of Ray.

All randomness comes from draws by (seed, epoch, item): nothing but the checkpoint's content is needed to go on as if
never interrupted, and several workers, each on its share of every batch, compute what one would. G items of a batch, B
of a worker's share, N training clips, F bands, T frames, D embedding.
"""

import io
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pickle import UnpicklingError
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from raysd.items import TrainingSet, num_batches
from raysd.model.augment import AugmentBatch, apply
from raysd.model.draws import Draws
from raysd.model.encoding import build_encoder
from raysd.model.features import EfficientATMel
from raysd.model.losses import build_objective
from raysd.model.norms import keep_from_compiling, set_micro_batch, synchronise
from raysd.model.perturb import alike, perturb
from raysd.model.pretrained import LoadReport, Weights, depth_groups, load, set_trained
from raysd.model.segments import num_frames, score_starts, train_starts
from raysd.model.spectra import FRAMES_AT_ONCE, Spectra
from raysd.parallel import Scale, average_gradients, from_first, gather, rank, share
from raysd.prefetch import prefetched
from raysd.recipe import Recipe, Training

keep_from_compiling()
log = logging.getLogger("raysd")


class NonFiniteLoss(ArithmeticError):
    """The loss, or the embeddings that came of it, became NaN or infinite; such a model's scores would mean nothing."""


class GivenUp(Exception):
    """A search gave a training up after some epochs; no error."""


@dataclass(frozen=True)
class Epoch:
    """One epoch's means: the losses are weighted as in the total, the learning rate is the last step's."""

    epoch: int
    loss: float
    contrastive: float | None
    classification: float | None
    learning_rate: float
    grad_norm: float
    clips_per_second: float
    seconds: float


class Checkpoint(Protocol):
    """Where a training is kept between epochs."""

    def read(self) -> bytes | None: ...
    def write(self, content: bytes) -> None:
        """Replaces what was there, whole or not at all."""


@dataclass(frozen=True)
class Batch:
    """This worker's share of a batch of `num_items` items: two augmented views of each (spec_BFT), and its class."""

    num_items: int
    views: tuple[Tensor, Tensor]
    draws: tuple[Draws, Draws]
    label_B: Tensor

    def tensors(self) -> list[Tensor]:
        return [*self.views, *(draws.item_B for draws in self.draws), self.label_B]


class Detector(nn.Module):
    """What training makes: the encoder, its objective, and the normalisation of the log-mel."""

    def __init__(
        self, recipe: Recipe, spectra: Spectra, data: TrainingSet, seed: int, weights: Weights | None = None
    ) -> None:
        """`weights` are those that recipe.pretrained names. Raises BadInput where they do not fit the encoder."""
        super().__init__()
        bands = spectra.log_mel.num_bands
        self.encoder = build_encoder(recipe.encoder, bands, seed)
        self.loaded: LoadReport | None = None
        if weights is not None:
            self.loaded = load(self.encoder, weights, recipe.features, recipe.encoder.head, recipe.tuning.partial)
        set_trained(self.encoder, self.loaded, recipe.tuning.mode == "frozen", recipe.encoder.head)
        self.objective = build_objective(recipe.loss, self.encoder, data.num_classes, seed)
        mean_F1, std_F1 = torch.zeros(bands, 1), torch.ones(bands, 1)
        if recipe.features.normalise == "fixed":
            mean_F1, std_F1 = mean_F1 + EfficientATMel.MEAN, std_F1 * EfficientATMel.STD
        elif recipe.features.normalise != "none":
            mean_F1, std_F1 = data.statistics(spectra, recipe.features.normalise == "band")
        self.register_buffer("mean_F1", mean_F1)
        self.register_buffer("std_F1", std_F1)
        self.mean_F1: Tensor
        self.std_F1: Tensor

    def normalise(self, spec_BFT: Tensor) -> Tensor:
        """The log-mel in units of the training clips' standard deviation."""
        return (spec_BFT - self.mean_F1).div_(self.std_F1)


def train(
    recipe: Recipe,
    spectra: Spectra,
    data: TrainingSet,
    seed: int,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    scale: Scale = Scale(),
    keeps: Callable[[int, Detector], bool] = lambda epochs, detector: True,
    weights: Weights | None = None,
) -> tuple[Detector, list[Epoch]]:
    """A detector trained on the clips of `data`, from `weights` if there are some, and its history.

    After every epoch but the last `keeps` is asked, with the number of epochs and the detector as it would score,
    whether to go on; where it says no, GivenUp is raised. Its answer has to be the same on every worker.

    With `checkpoint`, each epoch is kept there, and training goes on from what is there already; on a CPU the result
    is the same to the bit. Where torch.distributed has a process group, all its workers call this with equal arguments,
    and get equal results. Raises NonFiniteLoss.
    """
    settings, device = recipe.train, spectra.device
    data = data.to(device)
    detector = Detector(recipe, spectra, data, seed, weights).to(device)
    synchronise(detector)
    set_micro_batch(detector, scale.micro_batch and 2 * scale.micro_batch)  # two views of each item
    if not recipe.trains:
        return detector.eval(), []
    if settings.channels_last:
        detector.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    averaged = None
    if settings.ema is not None:
        averaged = AveragedModel(detector, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
    groups = parameter_groups(detector, recipe)
    optimiser = torch.optim.AdamW([group for _, group in groups], lr=settings.learning_rate)
    if scale.compile:
        detector.encoder.compile()
    state = nn.ModuleDict({"detector": detector, **({"averaged": averaged} if averaged else {})})
    history = _restore(checkpoint, state, optimiser)

    num_items = data.num_items(recipe.segments.train_count)
    steps = num_batches(num_items, settings.batch_size)
    scoring = cast(Detector, averaged.module) if averaged else detector
    epochs = range(len(history), settings.epochs)
    with coming(recipe, detector, spectra, data, seed, epochs) as made:
        for epoch in epochs:
            if history and not keeps(epoch, scoring):
                raise GivenUp(f"after {epoch} epochs")
            began, losses, norm = time.perf_counter(), [], 0.0
            detector.train()
            only_new = recipe.tuning.only_new(epoch)
            set_trained(detector.encoder, detector.loaded, only_new, recipe.encoder.head)
            for step, batch in enumerate(islice(made, steps)):
                rate = learning_rate(settings, epoch * steps + step, steps)
                for group, (factor, _) in zip(optimiser.param_groups, groups, strict=True):
                    group["lr"] = rate * factor
                loss, parts = batch_loss(recipe, detector, batch)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                average_gradients(detector)
                limit = settings.clip_grad_norm or math.inf
                norm = nn.utils.clip_grad_norm_(detector.parameters(), limit)
                losses.append(torch.stack([loss.detach(), *(part.detach() for part in parts.values())]))
                if not bool(torch.isfinite(losses[-1][0]) & torch.isfinite(norm)):
                    raise NonFiniteLoss(
                        f"loss {loss.item()} and gradient norm {float(norm)} in epoch {epoch + 1}, step {step + 1}"
                    )
                optimiser.step()
                detector.objective.after_step(detector.encoder)
                if averaged:
                    averaged.update_parameters(detector)
            mean = dict(zip(["loss", *parts], torch.stack(losses).mean(0).tolist(), strict=True))
            seconds = time.perf_counter() - began
            history.append(
                Epoch(
                    epoch=epoch + 1,
                    loss=mean["loss"],
                    contrastive=mean.get("contrastive"),
                    classification=mean.get("classification"),
                    learning_rate=rate,
                    grad_norm=float(norm),
                    clips_per_second=num_items / seconds,
                    seconds=seconds,
                )
            )
            _keep(checkpoint, state, optimiser, history)
            on_epoch(history[-1])
    return scoring.eval(), history


def batch_loss(recipe: Recipe, detector: Detector, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of all items of a batch, computed from this worker's share, and its parts, weighted as in the sum."""
    with autocast(recipe.train, batch.label_B.device):
        loss, parts = detector.objective(
            detector.encoder, batch.views, batch.label_B, batch.draws, gather(batch.num_items)
        )
    return loss, {name: getattr(recipe.loss, name).weight * part for name, part in parts.items()}


@contextmanager
def coming(
    recipe: Recipe, detector: Detector, spectra: Spectra, data: TrainingSet, seed: int, epochs: Iterable[int]
) -> Iterator[Iterator[Batch]]:
    """The batches of `epochs`, one after another, made in the background where that may have to wait for a disk."""
    segments, batch_size = recipe.segments.train_count, recipe.train.batch_size
    items = (
        make_batch(recipe, detector, spectra, data, seed, epoch, item_G.to(spectra.device))
        for epoch in epochs
        for item_G in data.batches(seed, epoch, segments, batch_size)
    )
    if spectra.on_device:
        yield items
    else:
        with prefetched(items, Batch.tensors, spectra.device) as made:
            yield made


def make_batch(
    recipe: Recipe, detector: Detector, spectra: Spectra, data: TrainingSet, seed: int, epoch: int, item_G: Tensor
) -> Batch:
    """This worker's share of the items of a batch."""
    item_B = share(item_G)
    one, other = Draws(seed, epoch, item_B, 0), Draws(seed, epoch, item_B, 1)
    views = (
        augmented_view(recipe, detector, spectra, data, one),
        augmented_view(recipe, detector, spectra, data, other),
    )
    return Batch(len(item_G), views, (one, other), data.labels(item_B // recipe.segments.train_count))


@torch.no_grad()
def augmented_view(recipe: Recipe, detector: Detector, spectra: Spectra, data: TrainingSet, draws: Draws) -> Tensor:
    """spec_BFT, normalised: one augmented view of a segment of each item's clip."""
    clip_B = draws.item_B // recipe.segments.train_count
    frames = num_frames(recipe.segments.train_seconds, spectra.log_mel.rate_hz, spectra.log_mel.hop_samples)

    def cut(row_B: Tensor, stream: str) -> Tensor:
        start_B = train_starts(recipe.segments, draws, spectra.frames_N[row_B], stream, frames)
        return detector.normalise(spectra.cut(row_B, start_B, frames))

    def partner(stream: str) -> Tensor:
        return cut(data.partners(draws, f"{stream}.clip", clip_B), f"{stream}.start")

    spec_BFT = cut(data.rows(clip_B), "segment")
    batch = AugmentBatch(draws, partner, spectra.band_hz_F)
    return apply(recipe.augment, spec_BFT, batch)


@torch.no_grad()
def embed(
    recipe: Recipe,
    detector: Detector,
    spectra: Spectra,
    row_M: Tensor,
    own_MC: Tensor,
    perturbation_M: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Embeddings z_MD of the clips in rows `row_M`, and the log-probability (M,) of the clip's own section.

    `own_MC` (bool) says which of the C classes are of a clip's own section; both results are means over the scoring
    segments. Without a trained classification there are no probabilities. `perturbation_M` (int64): where it is not
    negative, a copy of the clip is embedded that is perturbed in the kind of that number.
    """
    detector.eval()
    segments, device = recipe.segments, spectra.device
    classified = recipe.trains and detector.objective.classification is not None
    frames_M = spectra.frames_N[row_M.to(device)].cpu()
    perturbation_M = torch.full_like(row_M, -1) if perturbation_M is None else perturbation_M
    z_MD, log_probability_M, order = [], [], []
    for length, kind, places in alike(frames_M, perturbation_M):
        frames = length
        if segments.score_seconds is not None:
            frames = num_frames(segments.score_seconds, spectra.log_mel.rate_hz, spectra.log_mel.hop_samples)
        start_K = score_starts(segments, length, frames).to(device)
        num_starts = len(start_K)
        at_once = max(1, FRAMES_AT_ONCE // (frames * num_starts))
        for chosen_B in places.split(at_once):
            row_B = row_M[chosen_B].to(device).repeat_interleave(num_starts)
            spec_BFT = spectra.cut(row_B, start_K.repeat(len(chosen_B)), frames)
            if kind:
                spec_BFT = perturb(kind, spec_BFT, spectra.band_hz_F, row_B)
            spec_BFT = detector.normalise(spec_BFT)
            with autocast(recipe.train, device):
                z_BD = detector.encoder(spec_BFT).float()
            z_MD.append(z_BD.unflatten(0, (-1, num_starts)).mean(1).cpu())
            if classified:
                own_BC = own_MC[chosen_B].to(device).repeat_interleave(num_starts, dim=0)
                log_BC = detector.objective.log_probabilities(z_BD).masked_fill(~own_BC, -torch.inf)
                log_probability_M.append(log_BC.logsumexp(1).unflatten(0, (-1, num_starts)).mean(1).cpu())
            order.append(chosen_B)
    back_M = torch.cat(order).argsort()
    return torch.cat(z_MD)[back_M], torch.cat(log_probability_M)[back_M] if classified else None


def learning_rate(settings: Training, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then half a cosine that would reach zero one step after the last."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(settings.epochs * steps_per_epoch - warmup, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def parameter_groups(detector: Detector, recipe: Recipe) -> list[tuple[float, dict]]:
    """AdamW's groups, each with the factor of its learning rate.

    Weight decay for matrices and kernels, none for biases, norms and other vectors.
    """
    layers = [(1.0, list(detector.parameters()))]
    if recipe.tuning.depth_decay < 1:
        own = list(detector.objective.parameters())
        layers = [*depth_groups(detector.encoder, recipe.tuning.depth_decay), (1.0, own)]
    groups = []
    for factor, parameters in layers:
        trained = [p for p in parameters if p.requires_grad]
        decayed, plain = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups.append((factor, {"params": decayed, "weight_decay": recipe.train.weight_decay}))
        groups.append((factor, {"params": plain, "weight_decay": 0.0}))
    return groups


def precision(settings: Training, device: torch.device) -> str:
    """The arithmetic that a device really uses for a recipe: "bf16" only where it computes bfloat16 fast."""
    if settings.precision == "fp32":
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"


def autocast(settings: Training, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the encoder runs."""
    if precision(settings, device) == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def _keep(
    checkpoint: Checkpoint | None, state: nn.Module, optimiser: torch.optim.Optimizer, history: list[Epoch]
) -> None:
    if checkpoint is None or rank() > 0:
        return
    content = io.BytesIO()
    torch.save(
        {
            "state": state.state_dict(),
            "optimiser": optimiser.state_dict(),
            "history": [asdict(e) for e in history],
        },
        content,
    )
    checkpoint.write(content.getvalue())


def _restore(checkpoint: Checkpoint | None, state: nn.Module, optimiser: torch.optim.Optimizer) -> list[Epoch]:
    # read by one for all, so that workers never start from different epochs
    kept = from_first(checkpoint.read() if checkpoint is not None and rank() == 0 else None)
    if kept is None:
        return []
    try:
        content = torch.load(io.BytesIO(kept), map_location="cpu", weights_only=True)
        history = [Epoch(**epoch) for epoch in content["history"]]
        fits = _outline(content["state"], content["optimiser"]) == _outline(state.state_dict(), optimiser.state_dict())
    except (UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError):
        fits = False
    if not fits:
        if rank() == 0:
            log.warning(
                "begins at its first epoch: its checkpoint is damaged, of another version of raysd, or holds Python "
                "objects, which are never loaded"
            )
        return []
    state.load_state_dict(content["state"])
    optimiser.load_state_dict(content["optimiser"])
    return history


def _outline(state: dict[str, Tensor], optimiser: dict[str, Any]) -> object:
    """What has to be the same, before any of it is taken: a state that is taken in part is neither old nor new."""
    groups = [len(group["params"]) for group in optimiser["param_groups"]]
    return groups, {name: value.shape for name, value in state.items()}
