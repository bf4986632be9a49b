"""Batch norm over more rows than one process sees at once: the rows of all workers, or a batch taken in pieces.

Neither changes what a network computes, forward or backward, beyond rounding. B rows of this worker, C channels,
P parts (pieces, or workers), S = 1 + 2C numbers that sum a part up: the count of its values per channel, their means,
and the sums of their squared distances from the means. Parts are put together by the formula of Chan, Golub and
LeVeque (1979), in float64. `moments_2C` are mean and variance of the whole batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raysd.parallel import world


class SynchronisedBatchNorm(nn.SyncBatchNorm):
    """Batch norm whose training statistics are those of all workers' rows. Torch's own refuses tensors on a CPU.

    A worker may hold any number of rows, also none, but has to take part in every forward and backward pass.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.is_cuda or not (self.training and _is_shared(self)):
            return super().forward(input)
        return _Synchronised.apply(input, self.weight, self.bias, self)  # pyright: ignore[reportReturnType]


def synchronise(module: nn.Module) -> None:
    """Makes each batch norm below `module` one over the rows of all workers of torch.distributed's default group.

    Parameters, buffers and their names stay as they are. Without several workers nothing changes. The batch norms must
    have what torch gives them by default: weights, running statistics, a momentum.
    """
    if world() == 1:
        return
    for parent in list(module.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                shared = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum, device="meta")
                shared.weight, shared.bias = norm.weight, norm.bias
                shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
                shared.num_batches_tracked = norm.num_batches_tracked
                parent.register_module(name, shared.train(norm.training))


def keep_from_compiling() -> None:
    """torch.compile cannot see through what workers say to each other.

    To be called once, before there is a process group: to import torch's compiler beside the threads of one makes some
    processes abort at their end. Not done here, because that import takes a second, and most commands train nothing.
    """
    forward = torch.compiler.disable(SynchronisedBatchNorm.forward)
    SynchronisedBatchNorm.forward = forward  # pyright: ignore[reportAttributeAccessIssue]


class RowLayer(nn.Module):
    """A layer made of others that treats every row alone and draws nothing, which `Units` take as one."""


class Units(nn.Sequential):
    """Convolutions, each followed by its batch norm and by layers that treat every row alone and draw nothing.

    With a micro batch set, training computes them piece by piece, and each chain of `chain` units keeps nothing but its
    input for the backward pass, which computes the rest again. A longer chain takes less memory and more time.
    """

    micro_batch: int | None = None

    def __init__(self, *layers: nn.Module, chain: int = 1) -> None:
        super().__init__(*layers)
        self.chain = chain

    def forward(self, input: Tensor) -> Tensor:
        if self.micro_batch is None or not self.training:
            return super().forward(input)
        units = self._units()
        # if one worker goes in pieces all must: torch's own synchronised norm would meet in other collectives
        if len(input) <= self.micro_batch and not _is_shared(units[0].norm):
            return super().forward(input)
        for start in range(0, len(units), self.chain):
            chain = units[start : start + self.chain]
            input = _InPieces.apply(chain, self.micro_batch, input, *_parameters(chain))  # pyright: ignore[reportAssignmentType]
        return input

    def _units(self) -> "list[_Unit]":
        layers = list(_layers(self))
        starts = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
        parts = [layers[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
        return [_Unit(conv, norm, rest) for conv, norm, *rest in parts]


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Those that have no parts, or count as one."""
    if isinstance(module, RowLayer) or next(module.children(), None) is None:
        yield module
    else:
        for part in module.children():
            yield from _layers(part)


def set_micro_batch(module: nn.Module, rows: int | None) -> None:
    """In training, the `Units` below `module` work on at most `rows` rows at once. None: on all.

    Plain gradient accumulation would change the contrastive loss and the batch norms, which are functions of the whole
    batch. Here both still see the whole batch, and what is computed twice pays for the memory.
    """
    for part in module.modules():
        if isinstance(part, Units):
            part.micro_batch = rows


class _Unit(NamedTuple):
    conv: nn.Module
    norm: Any  # a batch norm, whose buffers nn.Module's types do not know
    rest: list[nn.Module]


class _Statistics(NamedTuple):
    """Of the whole batch. The variance is divided by the count."""

    count: Tensor
    moments_2C: Tensor


class _Synchronised(torch.autograd.Function):
    """Batch norm of this worker's rows with the statistics of all workers' rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor, bias_C: Tensor, norm: Any) -> Tensor:
        ctx.statistics = _settle(norm, [_measure(norm, x)])
        ctx.save_for_backward(x, weight_C)
        ctx.eps = norm.eps
        mean_C, var_C = ctx.statistics.moments_2C
        return F.batch_norm(x, mean_C, var_C, weight_C, bias_C, eps=norm.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_C = ctx.saved_tensors
        moments_2C = ctx.statistics.moments_2C
        grad_x, grad_2C, grad_weight_C, grad_bias_C = _normalise_backward(grad, x, moments_2C, weight_C, ctx.eps)
        dist.all_reduce(grad_2C)
        slope_C, shift_C = _through_statistics(ctx.statistics, grad_2C)
        # in place: fresh memory costs a CPU more than the arithmetic
        grad_x.addcmul_(x, _per_channel(slope_C, x)).add_(_per_channel(shift_C, x))
        return grad_x, grad_weight_C, grad_bias_C, None


class _Normalise(torch.autograd.Function):
    """Batch norm with given statistics, which get gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, moments_2C: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, moments_2C, weight_C)
        ctx.eps = eps
        mean_C, var_C = moments_2C
        return F.batch_norm(x, mean_C, var_C, weight_C, bias_C, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, moments_2C, weight_C = ctx.saved_tensors
        return *_normalise_backward(grad, x, moments_2C, weight_C, ctx.eps), None


class _InPieces(torch.autograd.Function):
    """Units on a batch, a piece at a time, with the batch norms' statistics of the whole batch.

    Forward, the statistics of one norm after another: a pass over the pieces each, through the norms before it; then a
    pass for the output. Backward, the gradients of the statistics, sums over all rows as well, from the last norm to
    the first: a pass each, through the norms behind it; then a pass for the gradients asked for. Nothing else is kept
    from pass to pass, and workers meet once a norm each way, whatever their numbers of pieces.
    """

    @staticmethod
    def forward(ctx: Any, units: list[_Unit], rows: int, x: Tensor, *parameters: Tensor) -> Tensor:
        device = x.device.type
        # without its cache, which would keep casts made here, without a graph, for layers that need one
        settings = {"enabled": torch.is_autocast_enabled(device), "dtype": torch.get_autocast_dtype(device)}
        ctx.autocast = {"device_type": device, "cache_enabled": False, **settings}
        statistics: list[_Statistics] = []
        with torch.autocast(**ctx.autocast):
            for number, unit in enumerate(units):
                pieces = (unit.conv(_run(units[:number], statistics, piece)[-1]) for piece in x.split(rows))
                statistics.append(_settle(unit.norm, [_measure(unit.norm, piece) for piece in pieces]))
            out = _joined((_run(units, statistics, piece)[-1] for piece in x.split(rows)), len(x))
        ctx.units, ctx.rows, ctx.statistics = units, rows, statistics
        ctx.save_for_backward(x)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        units, statistics = ctx.units, ctx.statistics
        pieces = list(zip(x.split(ctx.rows), grad.split(ctx.rows), strict=True))
        wanted = [p for p in _parameters(units) if p.requires_grad]
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[2] else None
        sums = [torch.zeros_like(parameter) for parameter in wanted]
        grads: list[Tensor] = []  # of the moments of a unit and of those behind it
        with torch.autocast(**ctx.autocast):
            for number in reversed(range(len(units))):
                grad_2C = torch.zeros_like(statistics[number].moments_2C)
                for piece, grad_piece in pieces:
                    before = _run(units[:number], statistics, piece)[-1]
                    moments_2C = statistics[number].moments_2C.detach().requires_grad_()
                    behind = statistics[number + 1 :]
                    with torch.enable_grad():
                        own = statistics[number]._replace(moments_2C=moments_2C)
                        _, *ys = _run(units[number:], [own, *behind], before)
                    grad_2C += _pull(ys, behind, grads, grad_piece, [moments_2C])[0]
                if _is_shared(units[number].norm):
                    dist.all_reduce(grad_2C)
                grads.insert(0, grad_2C)
            done = 0
            for piece, grad_piece in pieces:
                piece = piece.detach().requires_grad_(grad_x is not None)
                with torch.enable_grad():
                    ys = _run(units, statistics, piece)
                inputs = wanted if grad_x is None else [*wanted, piece]
                got = _pull(ys, statistics, grads, grad_piece, inputs)
                for total, part in zip(sums, got, strict=False):
                    total += part
                if grad_x is not None:
                    grad_x[done : done + len(piece)] = got[-1]
                done += len(piece)
        found = iter(sums)
        return None, None, grad_x, *(next(found) if p.requires_grad else None for p in _parameters(units))


def _run(units: Sequence[_Unit], statistics: Sequence[_Statistics], x: Tensor) -> list[Tensor]:
    """What each unit's convolution gives, which its statistics are of, and last the output of all."""
    ys: list[Tensor] = []
    for unit, (_, moments_2C) in zip(units, statistics, strict=False):
        ys.append(unit.conv(x))
        x = _Normalise.apply(ys[-1], moments_2C, unit.norm.weight, unit.norm.bias, unit.norm.eps)  # pyright: ignore[reportAssignmentType]
        for layer in unit.rest:
            x = layer(x)
    return [*ys, x]


def _pull(
    ys: list[Tensor], statistics: Sequence[_Statistics], grads: Sequence[Tensor], grad: Tensor, inputs: list[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of `inputs`, to which the loss is tied by the output and, through `ys`, by the units' statistics."""
    ends, heads = [ys[-1]], [grad]
    for y, own, grad_2C in zip(ys[:-1], statistics, grads, strict=True):
        if y.requires_grad:  # not so behind frozen layers alone
            slope_C, shift_C = _through_statistics(own, grad_2C)
            head = torch.addcmul(_per_channel(shift_C, y), y.detach(), _per_channel(slope_C, y))
            ends, heads = [*ends, y], [*heads, head.to(y.dtype)]
    return torch.autograd.grad(ends, inputs, heads)


def _parameters(units: Sequence[_Unit]) -> list[Tensor]:
    return [p for unit in units for layer in (unit.conv, unit.norm, *unit.rest) for p in layer.parameters()]


def _joined(pieces: Iterable[Tensor], num_rows: int) -> Tensor:
    """The pieces along axis 0, each copied as it comes, so that no two of everything are held."""
    joined, done = None, 0
    for piece in pieces:
        if joined is None:
            joined = torch.empty_like(piece[:1].expand(num_rows, *piece.shape[1:]))
        joined[done : done + len(piece)] = piece
        done += len(piece)
    assert joined is not None
    return joined


def _measure(norm: Any, x: Tensor) -> Tensor:
    """(S,) float64."""
    if x.numel() == 0:
        return x.new_zeros(1 + 2 * x.shape[1], dtype=torch.float64)
    # handing over running statistics makes the kernel answer in their type where x is bfloat16
    scratch_2C = torch.zeros(2, x.shape[1], dtype=norm.running_mean.dtype, device=x.device)
    mean_C, var_C = torch.batch_norm_update_stats(x, scratch_2C[0], scratch_2C[1], 0.0)
    count = x.numel() // x.shape[1]
    return torch.cat([mean_C.new_full((1,), count, dtype=torch.float64), mean_C.double(), var_C.double() * count])


def _settle(norm: Any, parts: list[Tensor]) -> _Statistics:
    """The batch's statistics from those of all its parts; moves the running ones, as torch does."""
    part_S = _combine(parts)
    if _is_shared(norm):
        parts = [torch.empty_like(part_S) for _ in range(world())]
        dist.all_gather(parts, part_S)
        part_S = _combine(parts)
    count, (mean_C, m2_C) = part_S[0], part_S[1:].view(2, -1)
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean_C.to(norm.running_mean), norm.momentum)
        norm.running_var.lerp_((m2_C / (count - 1)).to(norm.running_var), norm.momentum)
    return _Statistics(count, torch.stack([mean_C, m2_C / count]).to(norm.running_mean))


def _combine(parts: list[Tensor]) -> Tensor:
    """(S,): what all parts hold together."""
    if len(parts) == 1:
        return parts[0]
    part_PS = torch.stack(parts)
    count_P1, mean_PC, m2_PC = part_PS[:, :1], *part_PS[:, 1:].chunk(2, dim=1)
    count_1 = count_P1.sum(0)
    mean_C = (count_P1 * mean_PC).sum(0) / count_1.clamp(min=1)
    m2_C = (m2_PC + count_P1 * (mean_PC - mean_C).square()).sum(0)
    return torch.cat([count_1, mean_C, m2_C])


def _normalise_backward(
    grad: Tensor, x: Tensor, moments_2C: Tensor, weight_C: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, with fixed statistics, and of the statistics, the weight and the bias."""
    mean_C, var_C = moments_2C
    if x.numel() == 0:  # torch's kernel divides by the number of rows
        return torch.zeros_like(x), torch.zeros_like(moments_2C), torch.zeros_like(weight_C), torch.zeros_like(weight_C)
    grad_x, grad_weight_C, grad_bias_C = torch.ops.aten.native_batch_norm_backward(
        grad, x, weight_C, mean_C, var_C, None, None, False, eps, [True, True, True]
    )
    scale_C = (var_C + eps).rsqrt()
    grad_mean_C = -weight_C * scale_C * grad_bias_C
    grad_var_C = -0.5 * weight_C * scale_C.square() * grad_weight_C
    return grad_x, torch.stack([grad_mean_C, grad_var_C]), grad_weight_C, grad_bias_C


def _through_statistics(statistics: _Statistics, grad_2C: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and shift per channel: a value x moves the loss, by way of mean and variance, by slope * x + shift."""
    (mean_C, _), (grad_mean_C, grad_var_C) = statistics.moments_2C, grad_2C / statistics.count.to(grad_2C)
    return 2 * grad_var_C, grad_mean_C - 2 * grad_var_C * mean_C


def _per_channel(value_C: Tensor, x: Tensor) -> Tensor:
    return value_C.view(-1, *[1] * (x.ndim - 2))


def _is_shared(norm: nn.Module) -> bool:
    return isinstance(norm, SynchronisedBatchNorm) and world() > 1
