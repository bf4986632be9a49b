"""Batches made ahead of time, and that a training with them is the training without."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from raysd.data.store import Store
from raysd.model.spectra import Spectra
from raysd.parallel import Scale
from raysd.prefetch import AHEAD, prefetched
from raysd.recipe import Recipe
from raysd.settings import with_changes
from raysd.train import Detector, GivenUp, TrainingSet, train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name == "raysd-prefetch"]


def numbers(made: list[int], upto: int = 1000) -> Iterator[int]:
    for number in range(upto):
        made.append(number)
        yield number


def no_tensors(item: object) -> list[Tensor]:
    return []


@pytest.mark.parametrize("taken", [0, 1, 20])
def test_a_few_are_made_before_they_are_asked_for(taken: int) -> None:
    made: list[int] = []
    with prefetched(numbers(made), no_tensors, CPU) as items:
        assert [next(items) for _ in range(taken)] == list(range(taken))
    assert taken <= len(made) <= taken + AHEAD


def test_they_end_where_the_items_end() -> None:
    with prefetched(numbers([], 7), no_tensors, CPU, ahead=1) as items:
        assert list(items) == list(range(7))
        assert list(items) == []


def test_an_error_is_raised_in_its_place() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    with prefetched(failing(), no_tensors, CPU) as items:
        assert next(items) == 1
        with pytest.raises(OSError, match="the disk is gone"):
            next(items)


def test_gradients_and_autocast_are_none_of_the_threads_business() -> None:
    def modes() -> Iterator[tuple[bool, bool]]:
        yield torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")

    with torch.no_grad(), torch.autocast("cpu"), prefetched(modes(), no_tensors, CPU) as items:
        assert next(items) == (True, False)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ragged_set(ragged_store: Store) -> TrainingSet:
    rows = torch.tensor(ragged_store.clips.query("split == 'train'").index.to_numpy())
    return TrainingSet(rows, torch.arange(len(rows)) % 3, 3)


def ragged_recipe(recipe: Recipe) -> Recipe:
    """Segments longer than some of the clips and shorter than others, and a partner for each."""
    changes = {"train.batch_size": 4, "segments.train_seconds": 0.6, "augment.log_mixup_exp": {}}
    return with_changes(recipe, changes, "test")


def test_a_training_does_not_depend_on_what_is_kept(
    tiny_recipe: Recipe, ragged_store: Store, ragged_set: TrainingSet
) -> None:
    """To the bit, on clips of four lengths."""
    recipe, before = ragged_recipe(tiny_recipe), torch.get_num_threads()
    torch.set_num_threads(1)
    trained = list[tuple[Detector, list[float]]]()
    for cache in (True, False):
        spectra = Spectra(ragged_store, recipe.features, CPU, Scale(device_cache=cache))
        detector, history = train(recipe, spectra, ragged_set, 0)
        trained.append((detector, [epoch.loss for epoch in history]))
    torch.set_num_threads(before)
    (kept, losses), (computed, same) = trained
    assert losses == same
    for name, tensor in kept.state_dict().items():
        assert torch.equal(tensor, computed.state_dict()[name]), name


@pytest.mark.parametrize("how", ["given_up", "interrupted", "unreadable"])
def test_however_a_training_ends_nothing_goes_on(
    how: str, tiny_recipe: Recipe, ragged_store: Store, ragged_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(epoch: object) -> None:
        if how == "interrupted":
            raise KeyboardInterrupt
        if how == "unreadable":
            monkeypatch.setattr(ragged_store, "waveforms", unreadable)

    def unreadable(rows_B: np.ndarray, starts_B: np.ndarray, samples: int) -> np.ndarray:
        raise OSError("the disk is gone")

    recipe = with_changes(ragged_recipe(tiny_recipe), {"train.epochs": 9}, "test")
    spectra = Spectra(ragged_store, recipe.features, CPU, Scale(device_cache=False))
    expected = {"given_up": GivenUp, "interrupted": KeyboardInterrupt, "unreadable": OSError}[how]
    with pytest.raises(expected):
        train(recipe, spectra, ragged_set, 0, on_epoch=stop, keeps=lambda *_: how != "given_up")
