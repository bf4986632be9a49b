import pytest
import torch
from torch import Tensor, nn

from raysd.errors import BadInput
from raysd.model.draws import Draws
from raysd.model.encoders import (
    CNN,
    ENCODERS,
    AudioNTT2020,
    Dropout,
    Encoder,
    MobileFaceNet,
    Pooling,
    SpectralMean,
    pool_time,
)
from raysd.model.encoding import build_encoder
from raysd.settings import Settings, parse, with_changes

BANDS = 16


class Part(Settings):
    encoder: Encoder = CNN()


def spectrogram(items: int = 4, frames: int = 24, bands: int = BANDS) -> Tensor:
    return torch.randn(items, bands, frames, generator=torch.Generator().manual_seed(5))


def draws(items: int = 4) -> Draws:
    return Draws(seed=1, epoch=2, item_B=torch.arange(10, 10 + items))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", ENCODERS)
def test_registry_name_is_the_name_in_a_recipe(name: str) -> None:
    assert type(parse(Part, {"encoder": {"name": name}}, "test").encoder) is ENCODERS[name]


def test_unknown_encoder_is_named_with_the_nearest_one() -> None:
    with pytest.raises(BadInput, match=r"encoder\.name: unknown name 'mobilfacenet'; did you mean 'mobilefacenet'"):
        parse(Part, {"encoder": {"name": "mobilfacenet"}}, "test")


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("frames", [8, 31])
def test_gives_one_finite_embedding_per_item_for_any_length(name: str, frames: int) -> None:
    encoder = build_encoder(ENCODERS[name].tiny(), BANDS, seed=0)
    z_BD = encoder(spectrogram(frames=frames), draws())
    assert z_BD.shape == (4, encoder.embedding_dim)
    assert z_BD.dtype == torch.float32
    assert z_BD.isfinite().all()


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_and_outputs_are_a_function_of_the_seed_and_leave_the_global_generator_alone(name: str) -> None:
    settings = ENCODERS[name].tiny()
    before = torch.get_rng_state()
    first, again, other = (build_encoder(settings, BANDS, seed) for seed in (3, 3, 4))
    z_first, z_again, z_other = (encoder(spectrogram(), draws()) for encoder in (first, again, other))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(z_first, z_again)
    assert torch.equal(z_first, z_other) != settings.trains


@pytest.mark.parametrize("name", ENCODERS)
def test_scoring_treats_each_item_alone(name: str) -> None:
    encoder = build_encoder(ENCODERS[name].tiny(), BANDS, seed=0).eval()
    z_BD = encoder(spectrogram())
    torch.testing.assert_close(encoder(spectrogram()[2:3]), z_BD[2:3])


@pytest.mark.parametrize("name", ENCODERS)
def test_gradient_reaches_every_parameter_if_it_trains(name: str) -> None:
    settings = ENCODERS[name].tiny()
    encoder = build_encoder(settings, BANDS, seed=0)
    if not settings.trains:
        assert parameters(encoder) == 0
        return
    (encoder(spectrogram(), draws()) * torch.linspace(-1, 1, encoder.embedding_dim)).square().sum().backward()
    for path, parameter in encoder.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.any(), path


@pytest.mark.parametrize("name", ENCODERS)
def test_channels_last_and_bf16_stay_close(name: str) -> None:
    encoder = build_encoder(ENCODERS[name].tiny(), BANDS, seed=0).eval()
    expected = encoder(spectrogram())
    encoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(encoder(spectrogram()), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z_BD = encoder(spectrogram())
    assert z_BD.dtype == torch.float32
    torch.testing.assert_close(z_BD, expected, rtol=0.05, atol=0.05 * expected.abs().max().item())


@pytest.mark.parametrize("settings", [MobileFaceNet.tiny(), CNN.tiny()], ids=lambda settings: settings.name)
@pytest.mark.parametrize("time", ["mean", "max", "mean_max", "mean_std", "gwrp"])
@pytest.mark.parametrize("frequency", ["mean", "flatten"])
def test_every_pooling_fits_every_stem_and_band_count(settings: CNN, time: str, frequency: str) -> None:
    changes = {"pooling.time": time, "pooling.frequency": frequency, "stem_stride": [3, 1], "width": 0.25}
    encoder = build_encoder(with_changes(settings, changes, "test"), num_bands=21, seed=0)
    assert encoder(spectrogram(bands=21)).shape == (4, encoder.embedding_dim)
    assert encoder.embedding_dim == 16 + (settings.spectrum.embedding_dim if settings.spectrum else 0)


def test_pooling_values() -> None:
    x = torch.tensor([[[4.0, 0.0, 2.0]]])
    assert pool_time(x, "mean", 1.0).tolist() == [[2.0]]
    assert pool_time(x, "max", 1.0).tolist() == [[4.0]]
    assert pool_time(x, "mean_max", 1.0).tolist() == [[6.0]]
    torch.testing.assert_close(pool_time(x, "mean_std", 1.0), torch.tensor([[2.0, (8 / 3) ** 0.5]]))
    # ranked 4, 2, 0 with weights 1, 1/2, 1/4
    torch.testing.assert_close(pool_time(x, "gwrp", 0.5), torch.tensor([[5 / 1.75]]))
    torch.testing.assert_close(pool_time(x, "gwrp", 1.0), torch.tensor([[2.0]]))
    torch.testing.assert_close(pool_time(x, "gwrp", 0.0), torch.tensor([[4.0]]))


def test_standard_deviation_of_a_constant_has_a_finite_gradient() -> None:
    x = torch.ones(1, 2, 5, requires_grad=True)
    pool_time(x, "mean_std", 1.0).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_flatten_keeps_the_band_and_mean_does_not() -> None:
    low, high = torch.zeros(1, 1, 4, 3), torch.zeros(1, 1, 4, 3)
    low[0, 0, 0], high[0, 0, 3] = 1.0, 1.0
    assert not torch.equal(Pooling(frequency="flatten").pool(low), Pooling(frequency="flatten").pool(high))
    assert torch.equal(Pooling(frequency="mean").pool(low), Pooling(frequency="mean").pool(high))


def test_width_multiplies_channels_in_steps_of_eight() -> None:
    encoder = build_encoder(MobileFaceNet(width=0.3), BANDS, seed=0)
    channels = {module.out_channels for module in encoder.modules() if isinstance(module, nn.Conv2d)}
    assert {16, 40, 152} <= channels  # 0.3 x 64 = 19.2, 0.3 x 128 = 38.4, 0.3 x 512 = 153.6
    assert all(count % 8 == 0 for count in channels)


def test_mobilefacenet_has_the_published_blocks() -> None:
    # the published network has 512 weights a pooled position in place of our linear map: compare what comes before
    body = build_encoder(MobileFaceNet(), 128, seed=0).get_submodule("body")

    def conv(weights: int, channels: int, activation: bool = True) -> int:
        return weights + channels * (3 if activation else 2)  # convolution; batch norm's two, PReLU's one

    expected = conv(9 * 64, 64) + conv(9 * 64, 64) + conv(128 * 512, 512)
    for channels_in, expansion in ((64, 2), (128, 2), (128, 4), (128, 4), (128, 4), (128, 4)):
        wide = channels_in * expansion
        expected += conv(channels_in * wide, wide) + conv(9 * wide, wide) + conv(wide * 128, 128, activation=False)
    assert parameters(body) == expected
    assert body(torch.zeros(1, 1, 128, 313)).shape == (1, 512, 8, 20)  # the map its global convolution was made for


@pytest.mark.parametrize(("embedding_dim", "expected"), [(512, 600_192), (1024, 1_649_792), (2048, 5_321_856)])
def test_audiontt2020_has_the_published_parameter_counts(embedding_dim: int, expected: int) -> None:
    assert parameters(build_encoder(AudioNTT2020(embedding_dim=embedding_dim), 64, seed=0)) == expected


def test_audiontt2020_has_the_published_state_dict() -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    for index, channels_in in ((0, 1), (4, 64), (8, 64)):
        shapes |= {f"features.{index}.weight": (64, channels_in, 3, 3), f"features.{index}.bias": (64,)}
        shapes |= {f"features.{index + 1}.{name}": (64,) for name in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"features.{index + 1}.num_batches_tracked"] = ()
    shapes |= {"fc.0.weight": (512, 512), "fc.0.bias": (512,), "fc.3.weight": (512, 512), "fc.3.bias": (512,)}
    state = build_encoder(AudioNTT2020(), 64, seed=0).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == shapes


def test_audiontt2020_feeds_the_linear_layer_band_by_band_channels_fastest() -> None:
    encoder = build_encoder(AudioNTT2020(width=0.125, embedding_dim=16), BANDS, seed=0).eval()
    spec_BFT = spectrogram(items=1, frames=8)
    x_CF = encoder.get_submodule("features")(spec_BFT[:, None])[0, :, :, 0]  # one time step: max and mean are equal
    order = torch.stack([x_CF[channel, band] for band in range(2) for channel in range(8)])
    fc = encoder.get_submodule("fc")
    step_D = fc.get_submodule("3")(fc.get_submodule("0")(order).relu()).relu()
    torch.testing.assert_close(encoder(spec_BFT)[0], 2 * step_D)


def test_audiontt2020_names_too_few_frames_and_bands() -> None:
    with pytest.raises(BadInput, match="at least 8 mel bands"):
        build_encoder(AudioNTT2020.tiny(), 7, seed=0)
    with pytest.raises(BadInput, match=r"segments\.train_seconds"):
        build_encoder(AudioNTT2020.tiny(), BANDS, seed=0).eval()(spectrogram(frames=7))


def test_dropout_is_a_function_of_the_draws_alone() -> None:
    dropout, x_BD = Dropout(0.3), torch.ones(64, 500)
    everything = dropout(x_BD, draws(64))
    halves = [Draws(1, 2, item_B) for item_B in draws(64).item_B.chunk(2)]
    assert torch.equal(torch.cat([dropout(x_BD[:32], half) for half in halves]), everything)
    assert not torch.equal(dropout(x_BD, Draws(1, 3, draws(64).item_B)), everything)
    # 32,000 values: five standard errors of a share of 0.7 are 0.013
    assert float((everything > 0).float().mean()) == pytest.approx(0.7, abs=0.013)
    assert float(everything.max()) == pytest.approx(1 / 0.7)


def test_dropout_needs_draws_in_training_and_rests_at_scoring() -> None:
    dropout, x_BD = Dropout(0.3), torch.ones(2, 5)
    with pytest.raises(ValueError, match="draws"):
        dropout(x_BD, None)
    assert torch.equal(dropout.eval()(x_BD, None), x_BD)


def test_spectral_mean_is_pooled_log_mel() -> None:
    spec_BFT = spectrogram()
    mean = build_encoder(SpectralMean(), BANDS, seed=0)
    assert torch.equal(mean(spec_BFT), spec_BFT.mean(dim=2))
    mean_std = build_encoder(SpectralMean(pooling="mean_std"), BANDS, seed=0)
    expected = torch.cat([spec_BFT.mean(dim=2), spec_BFT.std(dim=2, correction=0)], dim=1)
    torch.testing.assert_close(mean_std(spec_BFT), expected)
    loudest = build_encoder(SpectralMean(pooling="gwrp", gwrp_decay=0.0), BANDS, seed=0)
    torch.testing.assert_close(loudest(spec_BFT), spec_BFT.amax(dim=2))
