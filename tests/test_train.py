"""Training: resumed is uninterrupted, variants are paired, and what an epoch is made of.

B items, F bands, T frames, N training clips, M clips to embed, C classes, D embedding.
"""

import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from raysd.data.store import Store
from raysd.items import batches, num_batches
from raysd.model.spectra import Spectra
from raysd.parallel import Scale
from raysd.recipe import Recipe, Training
from raysd.settings import with_changes
from raysd.train import (
    Detector,
    Epoch,
    NonFiniteLoss,
    TrainingSet,
    embed,
    learning_rate,
    parameter_groups,
    train,
)

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Kept:
    """A checkpoint in a file."""

    path: Path

    def read(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)


@pytest.fixture
def own_MC(store: Store) -> Tensor:
    """Some classes of each clip; for what is compared it does not matter which."""
    return torch.arange(len(store.clips))[:, None] % 4 == torch.arange(4)


def changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    return with_changes(recipe, changes, "test")


def numbers(history: list[Epoch]) -> list[Epoch]:
    """A history without what a clock says."""
    return [replace(epoch, seconds=0.0, clips_per_second=0.0) for epoch in history]


def assert_same(a: Any, b: Any) -> None:
    """Bit for bit, through nested dicts and lists."""
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a.keys() - {"seconds", "clips_per_second"}:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


class Killed(Exception):
    pass


def stop_after(last: int) -> Callable[[Epoch], None]:
    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch == last:
            raise Killed

    return on_epoch


# --- going on as if never interrupted ---------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ema": {"train.ema": 0.9},
    "byol": {"loss.contrastive": {"name": "byol", "hidden_dim": 32, "projection_dim": 16}, "loss.classification": None},
    "adacos": {"loss.classification.name": "subcluster_adacos", "train.ema": 0.9},
    "dropout": {"encoder": {"name": "audiontt2020", "width": 0.125, "embedding_dim": 16}},
    "bf16": {"train.precision": "bf16"},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_a_resumed_training_is_an_uninterrupted_one(
    changes: dict[str, Any],
    tiny_recipe: Recipe,
    spectra: Spectra,
    training_set: TrainingSet,
    own_MC: Tensor,
    tmp_path: Path,
) -> None:
    recipe = changed(tiny_recipe, {"train.epochs": 3, **changes})
    whole, history = train(recipe, spectra, training_set, 0, Kept(tmp_path / "whole.pt"))
    with pytest.raises(Killed):
        train(recipe, spectra, training_set, 0, Kept(tmp_path / "resumed.pt"), stop_after(1))
    seen: list[Epoch] = []
    resumed, again = train(recipe, spectra, training_set, 0, Kept(tmp_path / "resumed.pt"), seen.append)

    assert [epoch.epoch for epoch in seen] == [2, 3]
    assert again[1:] == seen
    assert numbers(again) == numbers(history)
    checkpoints = [torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "resumed.pt")]
    assert_same(*checkpoints)
    assert_same(dict(whole.state_dict()), dict(resumed.state_dict()))
    rows = torch.arange(len(own_MC))
    assert_same(embed(recipe, whole, spectra, rows, own_MC), embed(recipe, resumed, spectra, rows, own_MC))


def test_a_finished_training_is_only_loaded(
    tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet, tmp_path: Path
) -> None:
    detector, history = train(tiny_recipe, spectra, training_set, 0, Kept(tmp_path / "model.pt"))
    loaded, again = train(
        tiny_recipe, spectra, training_set, 0, Kept(tmp_path / "model.pt"), lambda _: pytest.fail("trained")
    )
    assert again == history
    assert_same(dict(detector.state_dict()), dict(loaded.state_dict()))


def test_global_generators_have_no_part(tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet) -> None:
    def disturb(epoch: Epoch) -> None:
        torch.manual_seed(epoch.epoch)
        np.random.seed(epoch.epoch)  # noqa: NPY002

    recipe = changed(tiny_recipe, KINDS["dropout"])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    detector, history = train(recipe, spectra, training_set, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    disturbed, again = train(recipe, spectra, training_set, 0, on_epoch=disturb)
    assert numbers(again) == numbers(history)
    assert_same(dict(disturbed.state_dict()), dict(detector.state_dict()))


def test_another_seed_is_another_training(tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet) -> None:
    losses = {tuple(epoch.loss for epoch in train(tiny_recipe, spectra, training_set, seed)[1]) for seed in (0, 1)}
    assert len(losses) == 2


def test_the_average_is_what_scores(
    tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet, tmp_path: Path
) -> None:
    """It starts as the weights after the first step; a decay of 0.75 then takes a quarter of each further step's."""
    recipe = changed(tiny_recipe, {"train.ema": 0.75, "train.epochs": 3, "train.batch_size": 64})
    weights: list[Tensor] = []

    def note(_: Epoch) -> None:
        state = torch.load(tmp_path / "model.pt", weights_only=True)["state"]
        weights.append(state["detector.encoder.embed.weight"])

    averaged, history = train(recipe, spectra, training_set, 0, Kept(tmp_path / "model.pt"), note)
    first, second, third = weights
    expected = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
    torch.testing.assert_close(averaged.state_dict()["encoder.embed.weight"], expected)
    assert not torch.allclose(expected, third)
    _, without = train(changed(recipe, {"train.ema": None}), spectra, training_set, 0)
    assert numbers(history) == numbers(without)


# --- an epoch ---------------------------------------------------------------------------------------------------------


@given(num_items=st.integers(1, 300), batch_size=st.integers(2, 70), epoch=st.integers(0, 3))
def test_batches_hold_every_item_once_and_are_about_equal(num_items: int, batch_size: int, epoch: int) -> None:
    found = [item_B.tolist() for item_B in batches(0, epoch, num_items, batch_size)]
    assert len(found) == num_batches(num_items, batch_size)
    assert sorted(item for batch in found for item in batch) == list(range(num_items))
    sizes = [len(batch) for batch in found]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 1 or num_items == 1
    assert max(sizes) <= batch_size or (batch_size, max(sizes)) == (2, 3)


def test_every_epoch_and_seed_has_an_order_of_its_own() -> None:
    orders = {tuple(torch.cat(list(batches(seed, epoch, 40, 16))).tolist()) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_learning_rate_by_hand() -> None:
    settings = Training(epochs=3, warmup_epochs=1, learning_rate=0.5)
    found = [learning_rate(settings, step, 2) for step in range(6)]
    falling = [(1 + math.cos(math.pi * quarters / 4)) / 2 for quarters in range(4)]
    np.testing.assert_allclose(found, 0.5 * np.array([1 / 3, 2 / 3, *falling]), rtol=1e-12)
    assert [learning_rate(Training(epochs=1, warmup_epochs=0, learning_rate=1), step, 2) for step in (0, 1)] == [1, 0.5]
    endless = Training(epochs=1, warmup_epochs=4, learning_rate=1)  # longer than the training
    np.testing.assert_allclose([learning_rate(endless, step, 2) for step in (0, 1)], [1 / 9, 2 / 9], rtol=1e-12)


def test_history(tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet) -> None:
    recipe = changed(tiny_recipe, {"loss.contrastive.weight": 0.25, "loss.classification.weight": 3.0})
    seen: list[Epoch] = []
    _, history = train(recipe, spectra, training_set, 0, on_epoch=seen.append)
    assert history == seen
    assert [epoch.epoch for epoch in history] == [1, 2]
    for epoch in history:
        assert epoch.contrastive is not None
        assert epoch.classification is not None
        assert epoch.loss == pytest.approx(epoch.contrastive + epoch.classification, rel=1e-6)
        assert epoch.learning_rate == learning_rate(recipe.train, 2 * epoch.epoch - 1, 2)
        assert epoch.grad_norm > 0
        assert epoch.clips_per_second == pytest.approx(32 / epoch.seconds)
    alone = changed(recipe, {"loss.classification": None})
    assert all(epoch.classification is None for epoch in train(alone, spectra, training_set, 0)[1])


def test_training_learns(tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet) -> None:
    recipe = changed(tiny_recipe, {"train.epochs": 8, "train.learning_rate": 0.01, "augment": {"spec_mask": None}})
    _, history = train(recipe, spectra, training_set, 0)
    assert history[-1].loss < 0.7 * history[0].loss


def test_byols_target_follows_each_step(tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet) -> None:
    """After one step the target has gone a quarter of the way from where both began."""
    byol = {"name": "byol", "hidden_dim": 32, "projection_dim": 16, "target_ema": 0.75}
    recipe = changed(tiny_recipe, {"loss.contrastive": byol, "train.epochs": 1, "train.batch_size": 64})
    began = Detector(recipe, spectra, training_set, 0).encoder.state_dict()["embed.weight"]
    state = train(recipe, spectra, training_set, 0)[0].state_dict()
    expected = 0.75 * began + 0.25 * state["encoder.embed.weight"]
    torch.testing.assert_close(state["objective.contrastive.target_encoder.embed.weight"], expected)
    assert not torch.allclose(expected, began)


def test_weights_decay_and_vectors_do_not(tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet) -> None:
    changes = {
        "encoder": {"name": "mobilefacenet", "width": 0.125},
        "loss.contrastive": {"name": "byol", "hidden_dim": 8},
    }
    recipe = changed(tiny_recipe, changes)
    detector = Detector(recipe, spectra, training_set, 0)
    groups = [group for _, group in parameter_groups(detector, recipe)]
    name = {id(parameter): name for name, parameter in detector.named_parameters()}
    decayed, others = ([name[id(parameter)] for parameter in group["params"]] for group in groups)
    assert [group["weight_decay"] for group in groups] == [recipe.train.weight_decay, 0.0]
    assert {"encoder.body.0.0.weight", "encoder.embed.weight", "objective.classification.centres_KD"} <= set(decayed)
    assert {"encoder.body.0.1.weight", "encoder.body.0.1.bias", "encoder.body.0.2.weight"} <= set(others)  # norm, PReLU
    trained = {name for name in name.values() if "target" not in name}
    assert Counter([*decayed, *others]) == Counter(trained)


def test_gradients_are_clipped(tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet) -> None:
    """The norm of the history is that before clipping; what clipping changes are the weights."""
    one = {"train.epochs": 1, "train.batch_size": 64}
    limits = (1e-12, 1e9, None)  # far below AdamW's epsilon the steps become tiny
    trained = [
        train(changed(tiny_recipe, {**one, "train.clip_grad_norm": limit}), spectra, training_set, 0)
        for limit in limits
    ]
    assert len({history[0].grad_norm for _, history in trained}) == 1
    tight, wide, none = (detector.encoder.state_dict()["embed.weight"] for detector, _ in trained)
    start = Detector(tiny_recipe, spectra, training_set, 0).encoder.state_dict()["embed.weight"]
    assert (tight - start).abs().max() < 0.01 * (wide - start).abs().max()
    assert torch.equal(wide, none)


def test_a_loss_that_explodes_ends_the_training(
    tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet, tmp_path: Path
) -> None:
    recipe = changed(tiny_recipe, {"train.learning_rate": 1e30})
    with pytest.raises(NonFiniteLoss, match=r"in epoch 1, step 2$"):
        train(recipe, spectra, training_set, 0, Kept(tmp_path / "model.pt"))
    assert not list(tmp_path.iterdir())


def test_a_poisoned_clip_ends_the_training(
    tiny_recipe: Recipe, store: Store, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, poisoned = store.waveforms, int(training_set.row_N[5])

    def waveforms(rows_B: np.ndarray, starts_B: np.ndarray, samples: int) -> np.ndarray:
        wave_BS = read(rows_B, starts_B, samples)
        wave_BS[rows_B == poisoned] = np.nan
        return wave_BS

    monkeypatch.setattr(store, "waveforms", waveforms)
    recipe = changed(tiny_recipe, {"features.normalise": "none", "augment.high_frequency": None})
    spectra = Spectra(store, recipe.features, CPU, Scale(device_cache=False))
    step = next(step for step, item_B in enumerate(batches(0, 0, 32, 16), start=1) if 5 in item_B)
    with pytest.raises(NonFiniteLoss, match=rf"loss nan and gradient norm .* in epoch 1, step {step}$"):
        train(recipe, spectra, training_set, 0)


def test_what_needs_no_training_gets_none(
    tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet, own_MC: Tensor, tmp_path: Path
) -> None:
    recipe = changed(tiny_recipe, {"encoder.name": "spectral_mean"})
    detector, history = train(recipe, spectra, training_set, 0, Kept(tmp_path / "model.pt"))
    assert history == []
    assert not list(tmp_path.iterdir())
    rows = torch.tensor([3, 30])
    z_MD, log_probability_M = embed(recipe, detector, spectra, rows, own_MC[rows])
    assert log_probability_M is None
    frames = int(spectra.frames_N[3])
    spec_BFT = detector.normalise(spectra.cut(rows, torch.zeros(2, dtype=torch.int64), frames))
    torch.testing.assert_close(z_MD, spec_BFT.mean(2))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler, and there is no g++ here")
def test_compiled_it_trains_the_same(
    tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet, tmp_path: Path
) -> None:
    _, history = train(tiny_recipe, spectra, training_set, 0)
    with pytest.raises(Killed):
        train(tiny_recipe, spectra, training_set, 0, Kept(tmp_path / "model.pt"), stop_after(1), Scale(compile=True))
    _, resumed = train(tiny_recipe, spectra, training_set, 0, Kept(tmp_path / "model.pt"))  # and goes on uncompiled
    assert [epoch.loss for epoch in resumed] == pytest.approx([epoch.loss for epoch in history], rel=1e-4)
