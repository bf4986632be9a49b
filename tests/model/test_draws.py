"""Draws are the same for ever, uniform, and a function of the item alone; segments lie inside the clip."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raysd.model.draws import Draws, mix, permutation
from raysd.model.segments import Segments, num_frames, score_starts, train_starts


def _draws(items: int = 4096, seed: int = 0, epoch: int = 0, view: int = 0) -> Draws:
    return Draws(seed, epoch, torch.arange(items), view)


def test_mix_is_splitmix64():
    """The published first outputs of the generator for seed 1234567."""
    step = 0x9E3779B97F4A7C15
    counters = [(1234567 + step * k) % 2**64 for k in (1, 2, 3)]
    signed = torch.tensor([value - 2**64 if value >= 2**63 else value for value in counters])
    outputs = [int(value) % 2**64 for value in mix(signed)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_do_not_change_between_versions():
    """Every result depends on these numbers: a change must raise the numerics' revision."""
    draws = Draws(7, 3, torch.tensor([0, 1, 5]), view=1)
    assert draws.bits("time_shift", 2).tolist() == [
        [7801279656546703595, 8228078038926808923],
        [8435239544156362958, 879453836454117609],
        [9131533569794967714, -8554600046226372505],
    ]
    assert draws.uniform("a")[:, 0].tolist() == [0.7979149222373962, 0.9542116522789001, 0.5179529190063477]
    assert draws.normal("a")[:, 0].tolist() == pytest.approx([-0.4174262, 0.1805372, -1.1470536], abs=1e-6)
    assert draws.integers("a", 1000).tolist() == [797, 954, 517]
    assert permutation(7, 3, 8).tolist() == [2, 3, 4, 6, 1, 7, 0, 5]


def test_uniform_is_uniform_over_items_and_over_numbers():
    values = _draws().uniform("u", 4).numpy()
    assert values.min() >= 0
    assert values.max() < 1
    for column in values.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    assert stats.kstest(_draws(1).uniform("u", 4096)[0].numpy(), "uniform").pvalue > 1e-4


def test_uniform_fills_the_range_asked_for():
    values = _draws().uniform("u", 4, -2.0, 3.0)
    assert values.min() == pytest.approx(-2, abs=0.01)
    assert values.max() == pytest.approx(3, abs=0.01)


def test_normal_is_normal():
    assert stats.kstest(_draws().normal("n", 4).flatten().numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("high", [1, 2, 7, 1000])
def test_integers_are_uniform(high: int):
    values = _draws(8192).integers("i", high)
    counts = torch.bincount(values, minlength=high).numpy()
    assert len(counts) == high
    if high > 1:
        assert stats.chisquare(counts).pvalue > 1e-4


def test_an_item_draws_the_same_in_any_batch_and_order():
    whole = _draws(64).uniform("u", 3)
    for split in (torch.arange(10, 20), torch.tensor([63, 0, 7])):
        assert torch.equal(Draws(0, 0, split).uniform("u", 3), whole[split])


def test_more_numbers_begin_with_the_same_ones():
    assert torch.equal(_draws(8).bits("u", 5)[:, :2], _draws(8).bits("u", 2))


def test_streams_seeds_epochs_and_views_are_independent():
    base = _draws().uniform("a")[:, 0].numpy()
    others = [
        _draws().uniform("b"),
        _draws(seed=1).uniform("a"),
        _draws(epoch=1).uniform("a"),
        _draws(view=1).uniform("a"),
        Draws(0, 0, torch.arange(1, 4097)).uniform("a"),  # the neighbouring item
    ]
    for other in others:
        assert abs(np.corrcoef(base, other[:, 0].numpy())[0, 1]) < 0.06  # four standard errors of 4096 pairs
    assert abs(np.corrcoef(_draws().uniform("a", 2).numpy().T)[0, 1]) < 0.06


def test_no_global_generator_is_used():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    _draws(8).normal("n", 3)
    permutation(0, 0, 8)
    assert torch.equal(torch.get_rng_state(), state)


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000), n=st.integers(0, 200))
def test_permutation_visits_everything_once(seed: int, epoch: int, n: int):
    assert sorted(permutation(seed, epoch, n).tolist()) == list(range(n))


def test_permutation_differs_between_epochs_and_seeds():
    orders = {tuple(permutation(seed, epoch, 50).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_train_starts_cover_the_clip_and_stay_inside():
    starts = train_starts(Segments(), _draws(), torch.full((4096,), 100), "segment", frames=40)
    assert starts.min() == 0
    assert starts.max() == 60  # the last segment ends with the clip
    assert stats.chisquare(torch.bincount(starts, minlength=61).numpy()).pvalue > 1e-4


def test_train_starts_fit_each_clip_by_its_own_length():
    length_B = torch.tensor([40, 41, 200]).repeat(200)
    starts = train_starts(Segments(), _draws(600), length_B, "segment", frames=40)
    assert [int(starts[i::3].max()) for i in range(2)] == [0, 1]
    assert 100 < int(starts[2::3].max()) <= 160


def test_a_clip_shorter_than_a_segment_starts_at_its_beginning():
    assert train_starts(Segments(), _draws(8), torch.full((8,), 30), "segment", 40).eq(0).all()


def test_two_crops_decides_whether_the_views_share_their_segment():
    length_B = torch.full((64,), 1000)

    def starts(two_crops: bool, view: int) -> torch.Tensor:
        return train_starts(Segments(two_crops=two_crops), _draws(64, view=view), length_B, "segment", 60)

    assert torch.equal(starts(False, 0), starts(False, 1))
    assert (starts(True, 0) != starts(True, 1)).float().mean() > 0.9


@pytest.mark.parametrize(
    ("count", "length", "frames", "starts"),
    [
        (3, 100, 20, [0, 40, 80]),  # from the clip's start to its end
        (1, 100, 20, [0]),
        (2, 313, 313, [0, 0]),  # the whole clip
        (2, 10, 20, [0, 0]),  # a clip shorter than the segment
    ],
)
def test_score_starts_span_the_clip_evenly(count: int, length: int, frames: int, starts: list[int]):
    assert score_starts(Segments(score_seconds=2.0, score_count=count), length, frames).tolist() == starts


def test_frames_of_a_segment():
    assert num_frames(2.0, 16000, 512) == 62
    assert num_frames(0.001, 16000, 512) == 1
