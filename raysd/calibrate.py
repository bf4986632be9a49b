"""How fast trials are that are unlike any finished one: each is trained for a while on its real clips."""

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import count

import torch
from torch import nn

from raysd import initial
from raysd.errors import BadInput
from raysd.model.norms import set_micro_batch
from raysd.model.spectra import Spectra
from raysd.recipe import Recipe
from raysd.study.cost import Rate, embedding_shape, training_shape
from raysd.train import Detector, TrainingSet, batch_loss, coming, embed, parameter_groups
from raysd.trial import Place, model_groups, prepared, used_recipe, warm_spectra, warm_store

SECONDS = 120.0
"""Of a calibration, shared among all that is measured."""
TRAINING_SHARE = 0.8
"""Of the time of one recipe; the rest embeds clips."""
_CLIPS_AT_ONCE = 32


def calibrate(recipes: Sequence[Recipe], place: Place, progress: Callable[[int, int], None]) -> list[Rate]:
    """The speed of each kind of recipe, measured with one worker for `SECONDS` in all; writes nothing.

    `progress` hears the seconds that are over, and all of them. Raises BadInput where `place` wants a GPU and there is
    none.
    """
    if place.device == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            f"scale.gpus_per_worker is {place.scale.gpus_per_worker:g}, but torch finds no GPU on this machine; "
            "calibrate on one that has a GPU"
        )
    torch.set_num_threads(place.threads)
    kinds = list({(training_shape(recipe), embedding_shape(recipe)): recipe for recipe in recipes}.values())
    end, rates = time.perf_counter() + SECONDS, []

    def tick() -> None:
        progress(round(SECONDS - max(0.0, end - time.perf_counter())), round(SECONDS))

    for i, recipe in enumerate(kinds):
        left = end - time.perf_counter()  # what one leaves over, the next have
        rates.append(_measured(recipe, place, max(left, 0.0) / (len(kinds) - i), tick))
    return rates


def _measured(recipe: Recipe, place: Place, seconds: float, tick: Callable[[], None]) -> Rate:
    end, used = time.perf_counter() + seconds, used_recipe(recipe, place.scale)
    store = warm_store(place.data_root, recipe.data, place.cache, place.skip_bad)  # pyright: ignore[reportArgumentType]
    spectra = warm_spectra(store, recipe.features, place.device, place.scale)
    _, row_N = next(model_groups(recipe, store.clips))
    clips, data, own_MC = prepared(recipe, store.clips.loc[row_N], 0)
    data = data.to(spectra.device)
    weights = initial.read(recipe.pretrained, place.cache, place.results_root)
    detector = Detector(used, spectra, data, 0, weights).to(spectra.device)
    set_micro_batch(detector, place.scale.micro_batch and 2 * place.scale.micro_batch)

    seconds = max(end - time.perf_counter(), 0.0)  # the log-mels of many clips take their time
    items_per_second = None
    if recipe.trains:
        if used.train.channels_last:
            detector.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if place.scale.compile:
            detector.encoder.compile()
        items_per_second = _rate(_steps(used, detector, spectra, data), TRAINING_SHARE * seconds, tick)
        seconds *= 1 - TRAINING_SHARE

    row_M = torch.tensor(clips["row"].to_numpy())

    def embedded() -> Generator[int, None, None]:
        for turn in count():
            chosen = torch.arange(turn * _CLIPS_AT_ONCE, (turn + 1) * _CLIPS_AT_ONCE) % len(row_M)
            embed(used, detector, spectra, row_M[chosen], own_MC[chosen])
            yield len(chosen)

    return Rate(recipe, items_per_second, _rate(embedded(), seconds, tick))


def _steps(recipe: Recipe, detector: Detector, spectra: Spectra, data: TrainingSet) -> Generator[int, None, None]:
    """Trains, as raysd.train.train does, without end; gives the items of each step."""
    groups = [group for _, group in parameter_groups(detector, recipe)]
    optimiser = torch.optim.AdamW(groups, lr=0.0)  # so that it stays finite
    limit = recipe.train.clip_grad_norm or math.inf
    detector.train()
    with coming(recipe, detector, spectra, data, 0, count()) as made:
        for batch in made:
            loss, _ = batch_loss(recipe, detector, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(detector.parameters(), limit)
            optimiser.step()
            detector.objective.after_step(detector.encoder)
            loss.item()  # waits for an accelerator
            yield batch.num_items


def _rate(work: Generator[int, None, None], seconds: float, tick: Callable[[], None]) -> float:
    """Units of work a second; the first piece, in which memory is found, is not counted."""
    end = time.perf_counter() + seconds
    with closing(work):
        next(work)
        began, done = time.perf_counter(), 0
        while not done or time.perf_counter() < end:
            done += next(work)
            tick()
        return done / (time.perf_counter() - began)
