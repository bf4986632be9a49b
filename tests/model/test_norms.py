"""Run as a script, this file is one of the workers of a test: RANK FOLDER."""

import copy
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raysd.model.classification import ArcFace
from raysd.model.contrastive import CONTRASTIVE
from raysd.model.draws import Draws
from raysd.model.encoders import (
    CNN,
    ENCODERS,
    AudioNTT2020,
    MobileFaceNet,
    Pooling,
    Spectrum,
)
from raysd.model.encoding import EncoderModule, EncoderSettings, build_encoder
from raysd.model.losses import Loss, build_objective
from raysd.model.norms import SynchronisedBatchNorm, set_micro_batch, synchronise
from raysd.settings import with_changes

ROWS, BANDS, FRAMES = 7, 16, 12
SHARES: dict[int, list[tuple[int, ...]]] = {3: [(2, 4, 1), (0, 5, 2)], 2: [(3, 4), (7, 0)]}
TRAINED = [name for name, settings in ENCODERS.items() if settings.trains]
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}  # all else is computed in float64
Results = dict[str, Tensor]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def perturbed(module: nn.Module) -> nn.Module:
    """With weights and biases of batch norms unlike those at the start, where some gradients are zero."""
    for number, norm in enumerate(module.modules()):
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.weight.data += 0.3 * random(norm.num_features, seed=number).to(norm.weight)
            norm.bias.data += 0.3 * random(norm.num_features, seed=number + 1).to(norm.bias)
    return module


def convolutions(name: str) -> nn.Module:
    """The part of an encoder that has batch norms between convolutions, in float64."""
    encoder = build_encoder(ENCODERS[name].tiny(), BANDS, seed=1)
    part = "features" if hasattr(encoder, "features") else "body"
    return perturbed(encoder.get_submodule(part)).double()


class Whole(nn.Module):
    """An encoder with draws that are a function of the row."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.encoder: EncoderModule = build_encoder(settings, BANDS, seed=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x[:, 0], Draws(1, 2, (x[:, 0, 0, 0] * 1000).long()))


def image(dtype: torch.dtype = torch.float64, channels: int = 1) -> Tensor:
    return random(ROWS, channels, BANDS, FRAMES, dtype=dtype) * 2 + 5


# what several workers compute, each on its share of the rows: a module, its input, and the rows of a micro batch
CASES: dict[str, Callable[[], tuple[nn.Module, Tensor, int | None]]] = {
    "1d": lambda: (perturbed(nn.Sequential(nn.BatchNorm1d(5))).double(), random(ROWS, 5) * 3 + 100, None),
    "2d": lambda: (perturbed(nn.Sequential(nn.BatchNorm2d(4))).double(), image(channels=4), None),
    "2d float32": lambda: (perturbed(nn.Sequential(nn.BatchNorm2d(4))), image(torch.float32, 4), None),
    "2d bfloat16": lambda: (perturbed(nn.Sequential(nn.BatchNorm2d(4))), image(torch.bfloat16, 4), None),
    "2d channels last": lambda: (
        perturbed(nn.Sequential(nn.BatchNorm2d(4))).double(),
        image(channels=4).contiguous(memory_format=torch.channels_last),
        None,
    ),
    "cnn float32": lambda: (
        Whole(CNN(width=0.125, embedding_dim=8, spectrum=Spectrum(embedding_dim=4), pooling=Pooling(time="mean_std"))),
        image(torch.float32),
        None,
    ),
    "audiontt2020 float32": lambda: (Whole(AudioNTT2020.tiny()), image(torch.float32), 4),
    "mobilefacenet float32": lambda: (Whole(MobileFaceNet.tiny()), image(torch.float32), None),
    **{name: (lambda name=name: (convolutions(name), image(), None)) for name in TRAINED},
    **{f"{name} in pieces": (lambda name=name: (convolutions(name), image(), 2)) for name in TRAINED},
}


def gradients(module: nn.Module) -> Results:
    return {f"grad of {name}": p.grad for name, p in module.named_parameters() if p.grad is not None}


def results(module: nn.Module, x: Tensor, first: int = 0) -> Results:
    """Output and gradients of a sum over the rows, which are the whole batch's from row `first`, and what changed."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = module.train()(x)
    numbered = (torch.arange(len(x), dtype=x.dtype) + first + 1).view(-1, *[1] * (out.ndim - 1))
    (numbered * (out + 0.1 * out[:, :1]).square()).sum().backward()
    assert x.grad is not None
    found = {"out": out.detach(), "x's grad": x.grad, **gradients(module)}
    found |= {name: buffer.clone() for name, buffer in module.named_buffers()}
    with torch.no_grad():
        found["out without gradients"] = module(x)
        found["out in eval mode"] = module.eval()(x)
    return found


def worker(rank: int, folder: Path) -> None:
    """Trains with the others, then, but for the last one, with fewer: starting processes costs more than the work."""
    for world, ways in SHARES.items():
        if rank >= world:
            break
        dist.init_process_group("gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world)
        for shares, name in itertools.product(ways, CASES):
            module, x, micro_batch = CASES[name]()
            before = [dict(module.named_parameters()), dict(module.named_buffers())]
            synchronise(module)
            assert any(isinstance(part, SynchronisedBatchNorm) for part in module.modules())
            for old, new in zip(before, (module.named_parameters(), module.named_buffers()), strict=True):
                assert [(key, id(value)) for key, value in old.items()] == [(key, id(value)) for key, value in new]
            set_micro_batch(module, micro_batch)
            first = sum(shares[:rank])
            found = results(copy.deepcopy(module), x[first : first + shares[rank]], first)
            for key, value in found.items():
                if key.startswith("grad of"):
                    dist.all_reduce(value)
            torch.save(found, folder / f"{shares} {name} {rank}.pt")
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where each worker left what it computed."""
    folder = tmp_path_factory.mktemp("workers")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], env=environment)
        for rank in range(max(SHARES))
    ]
    try:
        assert [process.wait(timeout=240) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return folder


def assert_equal(actual: Results, expected: Results, tolerance: float, statistics: float | None = None) -> None:
    """Every tensor within `tolerance` (running statistics: `statistics`) of its largest value.

    Gradients of parameters: of the largest among all. Some are zero but for rounding, a bias before a norm say.
    """
    assert actual.keys() == expected.keys()
    steepest = max((float(value.abs().max()) for name, value in expected.items() if "grad of" in name), default=0.0)
    for name, value in expected.items():
        allowed = statistics if statistics is not None and "running" in name else tolerance
        error = float((actual[name].double() - value.double()).abs().max())
        # a mean, too, can be zero but for rounding
        assert error <= allowed * (steepest if "grad of" in name else max(float(value.abs().max()), 0.01)), name
        assert actual[name].dtype == value.dtype, name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shares", [shares for ways in SHARES.values() for shares in ways], ids=str)
def test_workers_compute_what_one_process_does_on_all_rows(workers: Path, shares: tuple[int, ...], case: str) -> None:
    module, x, _ = CASES[case]()
    found = [torch.load(workers / f"{shares} {case} {rank}.pt", weights_only=True) for rank in range(len(shares))]
    of_rows = {"out", "out without gradients", "out in eval mode", "x's grad"}
    joined = {
        name: torch.cat([each[name] for each in found]) if name in of_rows else value
        for name, value in found[0].items()
    }
    # whatever the input, statistics are computed in float32
    assert_equal(joined, results(module, x), TOLERANCE.get(case.split()[-1], 1e-10), 1e-5)
    for each in found:
        assert all(torch.equal(each[name], value) for name, value in found[0].items() if "running" in name)


def test_nothing_is_replaced_without_other_workers() -> None:
    encoder = build_encoder(MobileFaceNet.tiny(), BANDS, seed=0)
    before = list(encoder.modules())
    synchronise(encoder)
    assert all(old is new for old, new in zip(before, encoder.modules(), strict=True))


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("rows", [1, 3, 6])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pieces_compute_what_the_whole_does(name: str, rows: int, memory_format: torch.memory_format) -> None:
    module = convolutions(name).to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
    in_pieces = copy.deepcopy(module)
    set_micro_batch(in_pieces, rows)
    assert_equal(results(in_pieces, image()), results(module, image()), 1e-10)


LOSSES = {
    **{name: Loss(contrastive=kind.tiny(), classification=None) for name, kind in CONTRASTIVE.items()},  # type: ignore[arg-type]
    "arcface": Loss(contrastive=None, classification=ArcFace.tiny()),
}


def trained(name: str, loss: Loss, rows: int | None) -> tuple[Tensor, Results]:
    """The loss of six items, and all gradients and buffers, with a spectrum branch where the encoder can have one."""
    settings = ENCODERS[name].tiny()
    if name == "mobilefacenet":
        settings = with_changes(settings, {"spectrum": Spectrum(embedding_dim=4).model_dump()}, "test")
    encoder = build_encoder(settings, BANDS, seed=3)
    objective = build_objective(loss, encoder, num_classes=3, seed=3)
    network = nn.ModuleDict({"encoder": encoder, "objective": objective})
    set_micro_batch(network, rows)
    views = random(6, BANDS, FRAMES, seed=1).float(), random(6, BANDS, FRAMES, seed=2).float()
    draws = Draws(7, 1, torch.arange(6), view=0), Draws(7, 1, torch.arange(6), view=1)
    total, _ = objective(encoder, views, torch.tensor([0, 1, 1, 2, 0, 1]), draws)
    total.backward()
    return total.detach(), gradients(network) | dict(network.named_buffers())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", TRAINED)
def test_pieces_leave_every_loss_and_its_gradients_unchanged(name: str, loss: str) -> None:
    expected, whole = trained(name, LOSSES[loss], None)
    for rows in (1, 5):
        total, in_pieces = trained(name, LOSSES[loss], rows)
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=0)
        assert_equal(in_pieces, whole, 1e-4, 1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_a_batch_no_larger_than_a_piece_is_computed_as_ever(name: str) -> None:
    expected, whole = trained(name, LOSSES["byol"], None)
    total, same = trained(name, LOSSES["byol"], 12)  # two views of six items
    assert torch.equal(total, expected)
    assert all(torch.equal(same[key], value) for key, value in whole.items())


@pytest.mark.parametrize("name", TRAINED)
def test_convolutions_never_see_more_rows_than_a_piece_and_keep_little(name: str) -> None:
    def kept_bytes(rows: int | None) -> int:
        module, seen, kept = convolutions(name), [], {}
        set_micro_batch(module, rows)
        for conv in module.modules():
            if isinstance(conv, nn.Conv2d):
                conv.register_forward_hook(lambda conv, inputs, y: seen.append(len(y)))

        def keep(x: Tensor) -> Tensor:
            kept[x.data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            out = module(image().repeat(4, 1, 1, 1))
        out.sum().backward()
        assert max(seen) == (rows or 4 * ROWS)
        return sum(kept.values())

    assert kept_bytes(5) < 0.5 * kept_bytes(None)


@pytest.mark.parametrize("name", TRAINED)
def test_under_autocast_pieces_are_computed_in_bf16_both_ways_and_lose_no_digits(name: str) -> None:
    def computed(rows: int | None, autocast: bool = True) -> tuple[Tensor, set[torch.dtype]]:
        """Output and all gradients as one vector, and what convolutions gave, in the forward and backward pass."""
        module, seen = convolutions(name).float(), set()
        set_micro_batch(module, rows)
        for conv in module.modules():
            if isinstance(conv, nn.Conv2d):
                conv.register_forward_hook(lambda conv, inputs, y: seen.add(y.dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = module(image(torch.float32)).float()
        (out * torch.arange(ROWS)[:, None, None, None]).sum().backward()
        return torch.cat([value.detach().flatten() for value in (out, *gradients(module).values())]), seen

    (exact, _), (whole, _), (in_pieces, seen) = computed(None, autocast=False), computed(None), computed(3)
    assert seen == {torch.bfloat16}
    assert 0 < (in_pieces - exact).norm() < 1.2 * (whole - exact).norm()


def test_frozen_layers_get_no_gradient_in_pieces() -> None:
    module = convolutions("cnn")
    module[0].requires_grad_(False)  # pyright: ignore[reportIndexIssue]
    in_pieces = copy.deepcopy(module)
    set_micro_batch(in_pieces, 2)
    for each in (module, in_pieces):
        each(image()).square().sum().backward()
    assert_equal(gradients(in_pieces), gradients(module), 1e-10)


if __name__ == "__main__":
    worker(int(sys.argv[1]), Path(sys.argv[2]))
