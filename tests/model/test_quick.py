"""The quick forms against torch's own: equal to the bit, forward and backward."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from raysd.model import quick
from raysd.model.draws import Draws


def values(*shape: int, of: str = "x") -> Tensor:
    """Over 24 octaves, so that the order of a sum shows in it; every tenth is zero."""
    size = torch.Size(shape)
    draws = Draws(0, 0, torch.arange(1))
    octave = draws.uniform(f"{of}.octave", size.numel(), -12, 12).round().exp2()
    zero = draws.uniform(f"{of}.zero", size.numel()) < 0.1
    return (draws.normal(of, size.numel()) * octave).masked_fill(zero, 0.0).view(size)


def both(module: Callable[[Tensor], Tensor], x: Tensor, bf16: bool = False) -> list[Tensor]:
    """The output, and the gradients of the input and of the parameters."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = module(x)
    parameters = list(module.parameters()) if isinstance(module, nn.Module) else []
    return [y, *torch.autograd.grad(y, [x, *parameters], values(*y.shape, of="gradient").to(y.dtype))]


def assert_same(own: list[Tensor], torchs: list[Tensor]) -> None:
    assert len(own) == len(torchs)
    for one, other in zip(own, torchs, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(5, 16, 4, 7), (3, 24, 62), (2, 3, 1), (0, 8, 5)])
def test_variance(shape: tuple[int, ...]):
    x = values(*shape)
    assert_same(both(quick.variance, x), both(lambda x: x.var(dim=-1, unbiased=False) if len(x) else x.mean(-1), x))


@pytest.mark.parametrize("gradient", [True, False])
def test_largest(gradient: bool):
    x = values(6, 24, 40).requires_grad_(gradient)
    assert torch.equal(quick.largest(x, 9), x.topk(9, dim=-1).values)


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_prelu(bf16: bool, layout: torch.memory_format):
    x = values(6, 16, 9, 8).to(torch.bfloat16 if bf16 else torch.float32).to(memory_format=layout)
    assert_same(both(quick.PReLU(16), x, bf16), both(nn.PReLU(16), x, bf16))


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("size", [(16, 8), (9, 12), (16, 31), (7, 9), (2, 2), (1, 6), (6, 1)])
def test_depthwise_convolution(bf16: bool, size: tuple[int, int]):
    # Equal where oneDNN has the kernels that it has for bfloat16 on processors with AVX-512, to rounding elsewhere.
    own = quick.convolution(32, 32, 3, 2, groups=32).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    assert isinstance(own, quick.DepthwiseConv2d)
    torchs = nn.Conv2d(32, 32, 3, 2, 1, groups=32, bias=False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    torchs.load_state_dict(own.state_dict())
    x = values(9, 32, *size).to(memory_format=torch.channels_last)
    pairs = list(zip(both(own, x, bf16), both(torchs, x, bf16), strict=True))
    if torch.cpu.get_capabilities().get("avx512_bf16"):
        assert_same(*(list(side) for side in zip(*pairs, strict=True)))
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=2e-2, atol=1e-2 * float(other.detach().abs().max()))


def test_a_depthwise_convolution_is_as_it_was_drawn_before():
    weights = []
    for make in (quick.DepthwiseConv2d, lambda channels: nn.Conv2d(channels, channels, 3, 2, 1, groups=8, bias=False)):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(3)
            weights.append(make(8).weight)
    assert torch.equal(*weights)
