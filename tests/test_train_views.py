"""What a batch is made of and what is scored: augmented views of items, and embeddings of clips.

B items, F bands, T frames, N training clips, M clips to embed, K segments, C classes, D embedding.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from raysd.data.store import Store
from raysd.model.draws import Draws
from raysd.model.segments import num_frames
from raysd.model.spectra import Spectra
from raysd.recipe import Recipe
from raysd.settings import with_changes
from raysd.train import Detector, TrainingSet, augmented_view, batch_loss, embed, make_batch, train

CPU = torch.device("cpu")


def changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    return with_changes(recipe, changes, "test")


# --- views ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def view(tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet) -> Callable[..., Tensor]:
    """Augmentations -> one augmented view of some items, with other settings of the recipe where given."""

    def augmented(augment: dict[str, Any], items: list[int], epoch: int = 0, number: int = 0, **rest: Any) -> Tensor:
        off = dict.fromkeys(["time_shift", "high_frequency", "spec_mask"])
        settings = {f"segments.{name}": value for name, value in rest.items()}
        recipe = changed(changed(tiny_recipe, {"augment": off, **settings}), {"augment": augment})
        detector = Detector(recipe, spectra, training_set, 0)
        return augmented_view(recipe, detector, spectra, training_set, Draws(0, epoch, torch.tensor(items), number))

    return augmented


def test_without_augmentations_a_view_is_a_cut_of_its_items_clip(
    view: Callable[..., Tensor], tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet
) -> None:
    detector = Detector(tiny_recipe, spectra, training_set, 0)
    frames = num_frames(1.0, 16_000, 512)
    spec_BFT = view({}, [7, 8, 20], train_count=3)
    assert spec_BFT.shape == (3, 32, frames)
    for spec_FT, clip in zip(spec_BFT, (2, 2, 6), strict=True):  # three items a clip
        row, length = training_set.row_N[[clip]], int(spectra.frames_N[training_set.row_N[clip]])
        starts = torch.arange(length - frames + 1)
        cuts_BFT = detector.normalise(spectra.cut(row.expand(len(starts)), starts, frames))
        assert (cuts_BFT == spec_FT).flatten(1).all(1).sum() == 1


def test_a_view_is_standardised_by_the_training_clips(
    tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet
) -> None:
    for how, mean_axes in (("global", (0, 1, 2)), ("band", (0, 2))):
        detector = Detector(changed(tiny_recipe, {"features.normalise": how}), spectra, training_set, 0)
        zero_N = torch.zeros_like(training_set.row_N)
        spec_NFT = detector.normalise(spectra.cut(training_set.row_N, zero_N, int(spectra.frames_N[0]))).double()
        assert spec_NFT.mean(mean_axes).abs().max() < 1e-4
        assert (spec_NFT.std(mean_axes, correction=0) - 1).abs().max() < 1e-4
    raw = Detector(changed(tiny_recipe, {"features.normalise": "none"}), spectra, training_set, 0)
    spec_BFT = torch.randn(2, 32, 5)
    assert torch.equal(raw.normalise(spec_BFT), spec_BFT)


def test_an_items_view_depends_on_no_other_item(view: Callable[..., Tensor]) -> None:
    """So that it is the same on every worker."""
    everything = {"time_shift": {}, "high_frequency": {"mode": "mix"}, "log_mixup_exp": {}, "spec_mask": {}}
    all_BFT = view(everything, list(range(32)))
    assert torch.equal(view(everything, [9, 3, 30]), all_BFT[[9, 3, 30]])


def test_a_partner_has_a_start_of_its_own(tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet) -> None:
    """In a training set of one clip, a clip's partner is the clip itself, from another moment on."""
    alone = TrainingSet(training_set.row_N[:1], training_set.label_N[:1], 4)
    off = dict.fromkeys(["time_shift", "high_frequency", "spec_mask"])
    plain = changed(tiny_recipe, {"augment": off, "segments.train_count": 16})
    mixed = changed(plain, {"augment.log_mixup_exp.alpha": 1.0})
    detector, draws = Detector(plain, spectra, alone, 0), Draws(0, 0, torch.arange(16))
    plain_BFT, mixed_BFT = (augmented_view(recipe, detector, spectra, alone, draws) for recipe in (plain, mixed))
    assert (plain_BFT - mixed_BFT).abs().flatten(1).amax(1).median() > 0.1


def test_epochs_and_views_draw_anew(view: Callable[..., Tensor]) -> None:
    items = list(range(8))
    first, other_view, other_epoch = view({}, items), view({}, items, number=1), view({}, items, epoch=1)
    assert not torch.equal(first, other_view)
    assert not torch.equal(first, other_epoch)
    assert torch.equal(view({}, items, two_crops=False), view({}, items, number=1, two_crops=False))


@pytest.mark.parametrize("mode", ["noise", "gain", "mask", "mix"])
def test_below_the_cutoff_a_variant_without_high_frequency_is_bit_identical(
    view: Callable[..., Tensor], spectra: Spectra, mode: str
) -> None:
    items, shared = list(range(16)), {"time_shift": {}}
    off = view(shared, items)
    on = view({**shared, "high_frequency": {"cutoff_hz": 2000, "mode": mode, "strength": [0.5, 1.0]}}, items)
    below_F = spectra.band_hz_F <= 2000
    assert torch.equal(on[:, below_F], off[:, below_F])
    assert (on[:, ~below_F] != off[:, ~below_F]).any(2).all()


def test_removing_one_augmentation_leaves_the_others_draws(view: Callable[..., Tensor]) -> None:
    items = list(range(16))
    mixed = {"time_shift": {}, "log_mixup_exp": {}}
    with_mask, without = view({**mixed, "spec_mask": {}}, items), view(mixed, items)
    assert (with_mask == 0).any()
    assert torch.equal(with_mask[with_mask != 0], without[with_mask != 0])
    masked = view({"spec_mask": {}}, items)
    assert torch.equal(masked == 0, with_mask == 0)


def test_a_batch_has_the_labels_and_draws_of_its_items(
    tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With four segments a clip, items 0 to 3 are of the first clip and item 127 is of the last."""
    recipe = changed(tiny_recipe, {"segments.train_count": 4})
    detector = Detector(recipe, spectra, training_set, 0)
    item_B = torch.tensor([0, 3, 4, 127, 64])

    def forward(encoder: Any, views: Any, label_B: Tensor, draws: Any, gather: Any) -> tuple[Tensor, dict[str, Tensor]]:
        assert torch.equal(label_B, training_set.label_N[[0, 0, 1, 31, 16]])
        assert [(view.seed, view.epoch, view.view) for view in draws] == [(5, 7, 0), (5, 7, 1)]
        for spec_BFT, view in zip(views, draws, strict=True):
            assert torch.equal(view.item_B, item_B)
            assert torch.equal(spec_BFT, augmented_view(recipe, detector, spectra, training_set, view))
        return torch.tensor(12.5), {}

    monkeypatch.setattr(detector.objective, "forward", forward)
    batch = make_batch(recipe, detector, spectra, training_set, 5, 7, item_B)
    assert batch_loss(recipe, detector, batch)[0] == 12.5


# --- embeddings -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ragged(tiny_recipe: Recipe, ragged_store: Store) -> tuple[Spectra, Detector]:
    spectra = Spectra(ragged_store, tiny_recipe.features, CPU)
    rows = ragged_store.clips.query("split == 'train'").index.to_numpy()
    training_set = TrainingSet(torch.tensor(rows), torch.arange(len(rows)) % 3, 3)
    return spectra, train(changed(tiny_recipe, {"train.epochs": 1, "train.batch_size": 4}), spectra, training_set, 0)[0]


def test_embeddings_keep_the_order_of_clips_of_all_lengths(
    tiny_recipe: Recipe, ragged: tuple[Spectra, Detector]
) -> None:
    spectra, detector = ragged
    detector.train()  # a model is put into its scoring mode where need be
    rows = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    own_MC = torch.arange(24)[:, None] % 3 == torch.arange(3)
    z_MD, log_probability_M = embed(tiny_recipe, detector, spectra, rows, own_MC)
    assert z_MD.shape == (24, 16)
    assert log_probability_M is not None
    for i, row in enumerate(rows):
        spec_1FT = detector.normalise(
            spectra.cut(row[None], torch.zeros(1, dtype=torch.int64), int(spectra.frames_N[row]))
        )
        with torch.no_grad():
            z_1D = detector.encoder(spec_1FT)
            log_1C = detector.objective.log_probabilities(z_1D)
        torch.testing.assert_close(z_MD[i], z_1D[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(log_probability_M[i], log_1C[0, i % 3], rtol=0, atol=1e-4)


def test_scoring_segments_are_averaged(tiny_recipe: Recipe, ragged: tuple[Spectra, Detector]) -> None:
    """In a clip of 32 frames, segments of 16 start at 0, 8 and 16; one of 8 frames is repeated."""
    spectra, detector = ragged
    recipe = changed(tiny_recipe, {"segments.score_seconds": 0.512, "segments.score_count": 3})
    rows = torch.tensor([1, 2, 1])
    assert spectra.frames_N[rows].tolist() == [32, 8, 32]
    own_MC = torch.tensor([[True, True, False], [False, True, False], [False, True, False]])
    z_MD, log_probability_M = embed(recipe, detector, spectra, rows, own_MC)
    assert log_probability_M is not None
    for i, row in enumerate(rows):
        starts = torch.tensor([[0, 8, 16], [0, 0, 0], [0, 8, 16]][i])
        spec_KFT = detector.normalise(spectra.cut(row.expand(3), starts, 16))
        with torch.no_grad():
            z_KD = detector.encoder(spec_KFT)
            p_KC = detector.objective.log_probabilities(z_KD).exp()
        torch.testing.assert_close(z_MD[i], z_KD.mean(0), rtol=0, atol=1e-4)
        own_K = p_KC[:, own_MC[i]].sum(1)
        torch.testing.assert_close(log_probability_M[i], own_K.log().mean(), rtol=0, atol=1e-4)


def test_classes_of_a_section_add_up(tiny_recipe: Recipe, ragged: tuple[Spectra, Detector]) -> None:
    spectra, detector = ragged
    rows = torch.tensor([4, 4, 4])
    own_MC = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    _, log_probability_M = embed(tiny_recipe, detector, spectra, rows, own_MC)
    assert log_probability_M is not None
    everything, one, none = log_probability_M.tolist()
    assert everything == pytest.approx(0, abs=1e-6)
    assert -math.inf < one < -1e-6
    assert none == -math.inf


def test_without_classification_there_are_no_probabilities(
    tiny_recipe: Recipe, spectra: Spectra, training_set: TrainingSet
) -> None:
    for off in ({"loss.classification": None}, {"loss.classification.weight": 0.0}):
        recipe = changed(tiny_recipe, off)
        detector = Detector(recipe, spectra, training_set, 0)
        own_MC = torch.ones(1, 4, dtype=torch.bool)
        assert embed(recipe, detector, spectra, torch.tensor([0]), own_MC)[1] is None
