"""Layers and reductions of torch that are slow on a CPU, with the same results in a fraction of the time.

Equal to the bit but for the sign of zeros, forward and backward; elsewhere than on a CPU they are torch's own.
tests/model/test_quick.py compares them with torch.

B items, C channels, F bands (rows), T frames (columns), N last axis of any tensor.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def _leave_to_torch(x: Tensor) -> bool:
    return x.device.type != "cpu" or torch.compiler.is_compiling()


def variance(x: Tensor) -> Tensor:
    """x.var(dim=-1, unbiased=False) of float32. Torch's takes one row after another, this all rows at once."""
    if _leave_to_torch(x) or len(x) == 0 or x.shape[-1] >= 1 << 15:  # torch splits longer rows
        return x.var(dim=-1, unbiased=False) if len(x) else x.mean(dim=-1)  # var warns of an empty batch
    return _Variance.apply(x)  # pyright: ignore[reportReturnType]


class _Variance(torch.autograd.Function):
    """Welford's recurrence (1962) in float64, as torch computes it, and torch's formula for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        mean = torch.zeros(x.shape[:-1], dtype=torch.float64, device=x.device)
        squares, change, rest = torch.zeros_like(mean), torch.empty_like(mean), torch.empty_like(mean)
        for count, value in enumerate(x.movedim(-1, 0).double().contiguous(), 1):
            torch.sub(value, mean, out=change)
            mean += torch.div(change, count, out=rest)
            squares += torch.sub(value, mean, out=rest).mul_(change)
        return squares.div_(x.shape[-1]).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (2.0 / x.shape[-1]) * grad[..., None] * (x - x.mean(dim=-1, keepdim=True))


def largest(x: Tensor, count: int) -> Tensor:
    """x.topk(count, dim=-1).values. Where no gradient is asked for, numpy sorts all of it in less time."""
    if _leave_to_torch(x) or (x.requires_grad and torch.is_grad_enabled()):
        return x.topk(count, dim=-1).values
    rising = np.sort(x.detach().numpy(), axis=-1)
    return torch.from_numpy(rising[..., ::-1][..., :count].copy())


class PReLU(nn.PReLU):
    """With one slope a channel. Torch's gradient on a CPU takes one value after another."""

    def forward(self, input: Tensor) -> Tensor:
        if _leave_to_torch(input) or not torch.is_grad_enabled():
            return super().forward(input)
        weight = self.weight.to(input.dtype)  # as autocast does
        return _PReLU.apply(input, weight.view(-1, *[1] * (input.ndim - 2)))  # pyright: ignore[reportReturnType]


class _PReLU(torch.autograd.Function):
    """The gradients are g and 0 where x > 0, elsewhere slope * g and x * g; each rounded once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope.flatten())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        if grad.stride() != x.stride():  # torch's gradients lie as x does, and the order of a sum follows from it
            grad = torch.empty_like(x).copy_(grad)
        grad_x = torch.ops.aten.threshold_backward(grad, x, 0)
        below = grad - grad_x
        grad_x.addcmul_(slope, below)
        return grad_x, below.mul_(x).sum([0, *range(2, x.ndim)], keepdim=True)[0]


def convolution(
    channels_in: int, channels: int, kernel: int, stride: int | tuple[int, int] = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution without a bias, that with stride 1 and an odd kernel keeps the size."""
    if (kernel, stride) == (3, 2) and channels_in == channels == groups:
        return DepthwiseConv2d(channels)
    return nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False)


class DepthwiseConv2d(nn.Conv2d):
    """A 3x3 convolution of each channel alone, with stride 2.

    The gradient of its input in bfloat16 falls back to a slow general matrix product in oneDNN, tens of times slower
    than with stride 1. That is what is computed here, of a gradient spread out with zeros.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, 2, 1, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        channels_last = input.is_contiguous(memory_format=torch.channels_last)
        if _leave_to_torch(input) or not (bf16 and channels_last and torch.is_grad_enabled()):
            return super().forward(input)
        return _Depthwise.apply(input.bfloat16(), self.weight.bfloat16())  # pyright: ignore[reportReturnType]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, None, 2, 1, groups=x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x)
            rows = max(1, _CHUNK_VALUES // x[0].numel())
            spread = torch.zeros_like(x[:rows])
            for start in range(0, len(x), rows):
                some = slice(start, start + rows)
                _grad_of_input(grad[some], weight, spread[: len(x[some])], grad_x[some])
        grad_weight = _convolution_backward(grad, x, weight, 2, [False, True, False])[1]
        return grad_x, grad_weight


_CHUNK_VALUES = 1 << 18  # stay in a core's cache


def _grad_of_input(grad: Tensor, weight: Tensor, spread: Tensor, grad_x: Tensor) -> None:
    """Four values meet in each second row and column. In what order they are added, rounding can tell: oneDNN adds
    those of a column first where the width is even."""
    spread[:, :, ::2, ::2] = grad
    grad_x.copy_(_convolution_backward(spread, spread, weight, 1, [True, False, False])[0])
    height, width = grad.shape[2:]
    if grad_x.shape[3] % 2 == 0 and height > 1 and width > 1:
        g, w = grad.float(), weight.float()[:, 0, :, :, None, None]
        left = (g[:, :, 1:, 1:] * w[:, 0, 0]).addcmul_(g[:, :, :-1, 1:], w[:, 2, 0])
        right = (g[:, :, 1:, :-1] * w[:, 0, 2]).addcmul_(g[:, :, :-1, :-1], w[:, 2, 2])
        grad_x[:, :, 1 : 2 * height - 1 : 2, 1 : 2 * width - 1 : 2] = left.add_(right)


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int, mask: list[bool]) -> list[Tensor]:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], x.shape[1], mask
    )
