"""Contracts of every augmentation, and the definition of each."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raysd.errors import BadInput
from raysd.model.augment import (
    AUGMENTATIONS,
    Augment,
    Augmentation,
    AugmentBatch,
    HighFrequency,
    LinearFader,
    LogMixupExp,
    RandomResizeCrop,
    SpecMask,
    TimeShift,
    apply,
)
from raysd.model.draws import Draws
from raysd.model.features import Features, LogMel
from raysd.settings import parse, with_changes

BANDS, FRAMES = 24, 20
HF_MODES = ("noise", "gain", "mask", "mix")
CASES: list[Augmentation] = [
    *(kind.tiny() for kind in AUGMENTATIONS.values()),
    *(HighFrequency(cutoff_hz=500, strength=(0.5, 1.0), mode=mode) for mode in HF_MODES),
]


def _spec(items: Tensor, bands: int = BANDS, frames: int = FRAMES, of: str = "clip") -> Tensor:
    return Draws(0, 0, items).normal(of, bands * frames).view(-1, bands, frames)


def _batch(items: Tensor, view: int = 0, epoch: int = 0, seed: int = 0, frames: int = FRAMES) -> AugmentBatch:
    draws = Draws(seed, epoch, items, view)
    return AugmentBatch(
        draws=draws,
        partner=lambda stream: _spec(draws.integers(stream, 1000), frames=frames, of="partner"),
        band_hz_F=torch.linspace(100, 8000, BANDS),
    )


@pytest.fixture
def items() -> Tensor:
    return torch.arange(16)


@pytest.mark.parametrize("augmentation", CASES, ids=str)
class TestEvery:
    def test_keeps_shape_and_type_and_input(self, augmentation: Augmentation, items: Tensor):
        spec_BFT = _spec(items)
        before = spec_BFT.clone()
        after = augmentation(spec_BFT, _batch(items))
        assert after.shape == before.shape
        assert after.dtype == torch.float32
        assert after.isfinite().all()
        assert torch.equal(spec_BFT, before)
        assert not torch.equal(after, before)

    def test_repeats_and_uses_no_global_generator(self, augmentation: Augmentation, items: Tensor):
        state = torch.get_rng_state()
        first = augmentation(_spec(items), _batch(items))
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(1)
        assert torch.equal(first, augmentation(_spec(items), _batch(items)))

    def test_views_epochs_and_seeds_differ(self, augmentation: Augmentation, items: Tensor):
        spec_BFT = _spec(items)
        results = [
            augmentation(spec_BFT, _batch(items, **where))
            for where in ({}, {"view": 1}, {"epoch": 1}, {"seed": 1})  # each by itself
        ]
        for i, one in enumerate(results):
            assert all(not torch.equal(one, other) for other in results[:i])

    def test_an_item_does_not_depend_on_its_batch(self, augmentation: Augmentation, items: Tensor):
        whole = augmentation(_spec(items), _batch(items))
        for some in (items[3:4], items[[9, 2, 5]]):
            torch.testing.assert_close(augmentation(_spec(some), _batch(some)), whole[some], rtol=0, atol=1e-5)

    def test_streams_are_named_after_it(self, augmentation: Augmentation, items: Tensor):
        name = next(name for name, kind in AUGMENTATIONS.items() if isinstance(augmentation, kind))
        streams: list[str] = []

        class Listening(Draws):
            def bits(self, stream: str, n: int) -> Tensor:
                streams.append(stream)
                return super().bits(stream, n)

        batch = _batch(items)
        partner = batch.partner

        def listening_partner(stream: str) -> Tensor:
            streams.append(stream)
            return partner(stream)

        augmentation(
            _spec(items),
            AugmentBatch(Listening(0, 0, items), listening_partner, batch.band_hz_F),
        )
        assert streams
        assert all(stream.split(".")[0] == name for stream in streams)

    def test_runs_on_the_batch_device(self, augmentation: Augmentation, items: Tensor):
        """A tensor made on the CPU by mistake cannot meet a batch on the meta device."""
        meta = items.to("meta")
        batch = _batch(items)
        there = AugmentBatch(Draws(0, 0, meta), lambda _: _spec(items).to("meta"), batch.band_hz_F)
        assert augmentation(_spec(items).to("meta"), there).device.type == "meta"


def test_off_by_default_and_off_does_nothing(items: Tensor):
    spec_BFT = _spec(items)
    assert torch.equal(apply(Augment(), spec_BFT, _batch(items)), spec_BFT)


def test_applied_in_the_order_of_the_settings(items: Tensor):
    assert list(AUGMENTATIONS) == [
        "time_shift", "high_frequency", "log_mixup_exp", "random_resize_crop", "spec_mask", "linear_fader",
    ]  # fmt: skip
    spec_BFT, batch = _spec(items), _batch(items)
    both = apply(Augment(linear_fader=LinearFader(), spec_mask=SpecMask.tiny()), spec_BFT, batch)
    assert torch.equal(both, LinearFader()(SpecMask.tiny()(spec_BFT, batch), batch))


def test_autocast_does_not_reach_the_augmentations(items: Tensor):
    augment = Augment(random_resize_crop=RandomResizeCrop(), log_mixup_exp=LogMixupExp())
    plain = apply(augment, _spec(items), _batch(items))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(apply(augment, _spec(items), _batch(items)), plain)


def test_switching_one_on_leaves_the_draws_of_the_others(items: Tensor):
    """Variants of one seed are paired: the fader adds the same line with and without a shift before it."""
    spec_BFT, batch = _spec(items), _batch(items)
    alone = apply(Augment(linear_fader=LinearFader()), spec_BFT, batch) - spec_BFT
    shifted = TimeShift()(spec_BFT, batch)
    after = apply(Augment(linear_fader=LinearFader(), time_shift=TimeShift()), spec_BFT, batch) - shifted
    torch.testing.assert_close(alone, after, rtol=0, atol=1e-5)


def test_written_in_a_recipe():
    augment = parse(Augment, {"high_frequency": {"cutoff_hz": 4000, "strength": [0, 0.5]}, "spec_mask": {}}, "r.yaml")
    assert augment.high_frequency == HighFrequency(cutoff_hz=4000, strength=(0, 0.5))
    assert augment.spec_mask == SpecMask()
    assert augment.time_shift is None
    assert with_changes(augment, {"high_frequency": None}, "variant").high_frequency is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"high_frequncy": {}}, ["high_frequncy", "did you mean 'high_frequency'"]),
        ({"high_frequency": {"cutoff": 3}}, ["high_frequency", "cutoff_hz"]),
        ({"high_frequency": {"mode": "swap"}}, ["high_frequency.mode", "noise"]),
        ({"high_frequency": {"mode": "mix", "strength": [0, 2]}}, ["high_frequency", "strength", "'mix'"]),
        ({"high_frequency": {"strength": [0.5, 0.1]}}, ["high_frequency.strength", "low <= high"]),
        ({"time_shift": {"max_share": 0.7}}, ["time_shift.max_share"]),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], words: list[str]):
    with pytest.raises(BadInput) as error:
        parse(Augment, settings, "recipe.yaml")
    assert all(word in str(error.value) for word in ["recipe.yaml", *words])


# --- time_shift


def test_time_shift_rolls_within_its_limit(items: Tensor):
    ramp_BFT = torch.arange(float(FRAMES)).expand(16, BANDS, FRAMES)
    shifted = TimeShift(max_share=0.25)(ramp_BFT, _batch(items))
    shifts = []
    for clip_FT in shifted:
        at_zero = int(clip_FT[0].argmin())  # where frame 0 went
        assert torch.equal(clip_FT, torch.roll(ramp_BFT[0], at_zero, dims=1))
        shifts.append(at_zero if at_zero <= FRAMES // 2 else at_zero - FRAMES)
    assert max(map(abs, shifts)) <= 5
    assert len(set(shifts)) > 3


# --- high_frequency


@pytest.mark.parametrize("mode", HF_MODES)
@pytest.mark.parametrize("edge_octaves", [0.0, 1.0])
def test_high_frequency_leaves_everything_below_the_cutoff_bit_identical(mode: str, edge_octaves: float):
    items = torch.arange(8)
    band_hz_F = LogMel(Features(), 16000).band_hz_F
    spec_BFT = _spec(items, 128, FRAMES)
    batch = AugmentBatch(Draws(0, 0, items), lambda _: _spec(items + 100, 128, FRAMES), band_hz_F)
    augmentation = HighFrequency.model_validate(
        {"cutoff_hz": 2000, "mode": mode, "edge_octaves": edge_octaves, "strength": (0.5, 1)}
    )
    after = augmentation(spec_BFT, batch)
    below = band_hz_F <= 2000
    assert 0 < int(below.sum()) < 128
    assert torch.equal(after[:, below], spec_BFT[:, below])
    assert (after[:, ~below] != spec_BFT[:, ~below]).any(dim=0).any(dim=1).all()  # and every band above takes part


@pytest.mark.parametrize("mode", HF_MODES)
def test_high_frequency_with_a_cutoff_above_the_top_does_nothing(mode: str, items: Tensor):
    augmentation = HighFrequency.model_validate({"cutoff_hz": 8000, "mode": mode})
    assert torch.equal(augmentation(_spec(items), _batch(items)), _spec(items))


def test_high_frequency_weight_is_a_raised_cosine_over_octaves():
    hz = torch.tensor([100.0, 1000.0, 1000 * 2**0.5, 2000.0, 4000.0])
    torch.testing.assert_close(
        HighFrequency(cutoff_hz=1000, edge_octaves=1).weight(hz), torch.tensor([0, 0, 0.5, 1, 1]), rtol=0, atol=1e-6
    )
    assert HighFrequency(cutoff_hz=1000, edge_octaves=0).weight(hz).tolist() == [0, 0, 1, 1, 1]


def _above(augmentation: HighFrequency, items: Tensor, spec_BFT: Tensor) -> tuple[Tensor, Tensor]:
    """The bands whose weight is 1, before and after."""
    full = augmentation.weight(_batch(items).band_hz_F) == 1
    return spec_BFT[:, full], augmentation(spec_BFT, _batch(items))[:, full]


def test_high_frequency_noise_has_the_strength_as_its_deviation(items: Tensor):
    before, after = _above(HighFrequency(strength=(0.7, 0.7), mode="noise"), items, _spec(items))
    noise = after - before
    assert float(noise.std()) == pytest.approx(0.7, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)


def test_high_frequency_noise_of_a_band_does_not_depend_on_the_cutoff(items: Tensor):
    spec_BFT, batch = _spec(items), _batch(items)
    low, high = (HighFrequency(cutoff_hz=hz, edge_octaves=0)(spec_BFT, batch) for hz in (1000.0, 4000.0))
    assert torch.equal(low[:, -8:], high[:, -8:])


def test_high_frequency_gain_is_one_shift_up_or_down(items: Tensor):
    before, after = _above(HighFrequency(strength=(0.5, 0.5), mode="gain"), items, torch.zeros_like(_spec(items)))
    shift_B = (after - before).flatten(1).mean(dim=1)
    assert set(shift_B.tolist()) == {-0.5, 0.5}
    assert torch.equal(after, shift_B[:, None, None].expand_as(after))


def test_high_frequency_mask_draws_to_the_mean(items: Tensor):
    before, after = _above(HighFrequency(strength=(0.75, 0.75), mode="mask"), items, _spec(items))
    torch.testing.assert_close(after, 0.25 * before)
    assert (_above(HighFrequency(strength=(1, 1), mode="mask"), items, _spec(items))[1] == 0).all()


def test_high_frequency_mix_is_log_mixup_exp_above_the_cutoff(items: Tensor):
    augmentation = HighFrequency(strength=(0.3, 0.3), mode="mix")
    full = augmentation.weight(_batch(items).band_hz_F) == 1
    before, after = _above(augmentation, items, _spec(items))
    partner = _batch(items).partner("high_frequency.partner")[:, full]
    torch.testing.assert_close(after, torch.log(0.7 * before.exp() + 0.3 * partner.exp()), rtol=0, atol=1e-5)


def test_high_frequency_probability_is_the_share_of_changed_items():
    items = torch.arange(2000)
    spec_BFT = _spec(items, frames=2)
    after = HighFrequency(probability=0.3, mode="gain", strength=(1, 1))(spec_BFT, _batch(items, frames=2))
    assert float((after != spec_BFT).flatten(1).any(dim=1).float().mean()) == pytest.approx(0.3, abs=0.04)


# --- log_mixup_exp


def test_log_mixup_exp_by_hand(items: Tensor):
    """BYOL-A's formula with the share recovered from two constants: x = log 1, z = log 3 gives log(1 + 2 a)."""
    batch = _batch(items)
    constant = AugmentBatch(batch.draws, lambda _: torch.full((16, 2, 2), 3.0).log(), batch.band_hz_F)
    share_B = (LogMixupExp(alpha=0.4)(torch.zeros(16, 2, 2), constant).exp()[:, 0, 0] - 1) / 2
    assert 0 <= share_B.min() < share_B.max() < 0.4
    assert len(share_B.unique()) == 16
    mixed = LogMixupExp(alpha=0.4)(_spec(items), batch)
    a_B11 = share_B[:, None, None]
    expected = torch.logaddexp(
        _spec(items) + torch.log1p(-a_B11), batch.partner("log_mixup_exp.partner") + torch.log(a_B11)
    )
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-5)


# --- random_resize_crop


def _interpolate_crop(clip_FT: Tensor, size_2: Tensor, place_2: Tensor, settings: RandomResizeCrop) -> Tensor:
    """The definition, one clip at a time: canvas of zeros, integer box, torch's own interpolation."""
    bands, frames = clip_FT.shape
    canvas = torch.zeros(int(bands * settings.virtual_crop_scale[0]), int(frames * settings.virtual_crop_scale[1]))
    top, left = (canvas.shape[0] - bands) // 2, (canvas.shape[1] - frames) // 2
    canvas[top : top + bands, left : left + frames] = clip_FT
    box: list[slice] = []
    for axis, (low, high) in enumerate((settings.freq_scale, settings.time_scale)):
        scale = float(low + (high - low) * size_2[axis])
        extent = min(max(int(scale * clip_FT.shape[axis]), 1), canvas.shape[axis])
        start = int(float(place_2[axis]) * (canvas.shape[axis] - extent + 1))
        box.append(slice(start, start + extent))
    crop = canvas[box[0], box[1]]
    return functional.interpolate(crop[None, None], size=(bands, frames), mode="bicubic", align_corners=True)[0, 0]


@pytest.mark.parametrize(
    "settings",
    [
        RandomResizeCrop(),
        RandomResizeCrop(virtual_crop_scale=(1.4, 2.0), freq_scale=(0.1, 1.6), time_scale=(0.05, 2.5)),
        RandomResizeCrop(freq_scale=(0.0, 0.05), time_scale=(0.0, 0.05)),  # boxes of one value
        RandomResizeCrop(freq_scale=(1, 1), time_scale=(1, 1), virtual_crop_scale=(1, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize(("bands", "frames"), [(128, 63), (64, 96), (BANDS, 1)])
def test_random_resize_crop_is_crop_and_interpolate(settings: RandomResizeCrop, bands: int, frames: int):
    items = torch.arange(24)
    spec_BFT, batch = _spec(items, bands, frames), _batch(items)
    size_B2 = batch.draws.uniform("random_resize_crop.size", 2)
    place_B2 = batch.draws.uniform("random_resize_crop.place", 2)
    expected = [
        _interpolate_crop(clip, size, place, settings)
        for clip, size, place in zip(spec_BFT, size_B2, place_B2, strict=True)
    ]
    torch.testing.assert_close(settings(spec_BFT, batch), torch.stack(expected), rtol=0, atol=1e-4)


def test_random_resize_crop_of_the_full_size_is_the_identity(items: Tensor):
    whole = RandomResizeCrop(freq_scale=(1, 1), time_scale=(1, 1), virtual_crop_scale=(1, 1))
    torch.testing.assert_close(whole(_spec(items), _batch(items)), _spec(items), rtol=0, atol=1e-5)


# --- spec_mask


def test_spec_mask_hides_intervals_of_bands_and_frames():
    items = torch.arange(500)
    ones = torch.ones(500, BANDS, FRAMES)
    after = SpecMask(frequency_masks=1, max_bands=5, time_masks=1, max_frames=4)(ones, _batch(items))
    assert set(after.unique().tolist()) == {0.0, 1.0}
    band_BF, frame_BT = (after == 0).all(dim=2), (after == 0).all(dim=1)
    assert torch.equal(after == 0, band_BF[:, :, None] | frame_BT[:, None, :])
    for hidden, longest in ((band_BF, 5), (frame_BT, 4)):
        assert hidden.sum(dim=1).unique().tolist() == list(range(longest + 1))
        assert (hidden.int().diff(dim=1) == 1).sum(dim=1).max() <= 1  # one interval
        assert hidden.any(dim=0).all()  # that can lie anywhere


def test_spec_mask_wider_than_the_segment_and_none_at_all(items: Tensor):
    wide = SpecMask(frequency_masks=0, time_masks=4, max_frames=1000)(_spec(items), _batch(items))
    assert (wide == 0).all(dim=1).any()
    assert torch.equal(SpecMask(frequency_masks=0, time_masks=0)(_spec(items), _batch(items)), _spec(items))


# --- linear_fader


def test_linear_fader_adds_one_line_over_time_to_all_bands(items: Tensor):
    line_BFT = LinearFader(gain=2.0)(torch.zeros(16, BANDS, FRAMES), _batch(items))
    assert torch.equal(line_BFT, line_BFT[:, :1].expand_as(line_BFT))
    torch.testing.assert_close(line_BFT.diff(n=2, dim=2), torch.zeros(16, BANDS, FRAMES - 2), rtol=0, atol=1e-5)
    ends = torch.stack([line_BFT[:, 0, 0], line_BFT[:, 0, -1]])
    assert 1.5 < float(ends.abs().max()) < 2.0
    assert (ends[0] - ends[1]).abs().min() > 0


def test_all_together_stay_finite_on_loud_and_quiet_values(items: Tensor):
    augment = Augment.model_validate({name: kind.tiny() for name, kind in AUGMENTATIONS.items()})
    make: list[Callable[[Tensor], Tensor]] = [lambda x: x * 20, lambda x: torch.full_like(x, -40.0)]
    for change in make:
        assert apply(augment, change(_spec(items)), _batch(items)).isfinite().all()
