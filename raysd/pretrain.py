"""The flow of a pretraining: a corpus -> its store -> an encoder trained contrastively -> weights that a recipe names.

The training is that of a trial (`raysd.train`), with one class for all clips. What it makes is kept in the results root
under a key made of all that changes the numbers: settings, seed, recordings and the numerics' revision.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import soundfile as sf
import torch

from raysd.data.audioset import Survey
from raysd.data.store import Store, open_store
from raysd.errors import BadInput
from raysd.model.encoding import build_encoder
from raysd.model.spectra import Spectra
from raysd.parallel import rank
from raysd.results.provenance import device_model, provenance
from raysd.results.store import Results
from raysd.results.weights import own_weights, write_weights
from raysd.study.plan import duration, size
from raysd.study.pretrainings import LoadedPretraining
from raysd.train import Epoch, NonFiniteLoss, TrainingSet, num_batches, precision, train
from raysd.trial import Place, failure_kind, used_recipe

_LOOKED_AT = 32  # clips from which the length of all is estimated
MODEL = "encoder"
"""What the checkpoint of a pretraining under way is called."""


@dataclass(frozen=True)
class Job:
    """One pretraining at one place. Every worker that takes part calls it, with the device it has."""

    pretraining: LoadedPretraining
    place: Place
    fingerprint: str
    """Of the recordings, as it was when the pretraining was started."""

    @property
    def key(self) -> str:
        return self.pretraining.key(self.fingerprint)

    def __call__(self, device: str, on_epoch: Callable[[Epoch], None]) -> None:
        """Trains, goes on where a training of this key was broken off, and keeps the weights. Raises NonFiniteLoss."""
        began = time.monotonic()
        torch.set_num_threads(self.place.threads)
        place, settings = self.place, self.pretraining.settings
        recipe, results = used_recipe(self.pretraining.recipe, place.scale), Results(place.results_root)
        survey = settings.corpus.survey(place.data_root)
        store = open_store(place.data_root, survey, place.cache, place.skip_bad)
        if store.fingerprint != self.fingerprint:
            raise BadInput(f"{place.data_root}: these are not the recordings that the pretraining was started with")
        spectra = Spectra(store, recipe.features, torch.device(device))
        row_N = torch.arange(len(store.clips))
        data = TrainingSet(row_N, torch.zeros_like(row_N), 1)
        checkpoint = results.checkpoint(self.key, MODEL)
        detector, history = train(recipe, spectra, data, settings.seed, checkpoint, on_epoch, place.scale)
        state = detector.encoder.state_dict()
        if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
            raise NonFiniteLoss("the weights after the last step")
        if rank() == 0:
            about = self._about(survey, store, history, device)
            write_weights(results, self.key, state, about | {"seconds": time.monotonic() - began})

    def _about(self, survey: Survey, store: Store, history: list[Epoch], device: str) -> dict[str, Any]:
        """What is known of the weights, as plain JSON values."""
        pretraining, recipe = self.pretraining, used_recipe(self.pretraining.recipe, self.place.scale)
        settings = pretraining.settings
        return {
            "name": pretraining.name,
            "description": settings.description,
            "licence": settings.corpus.licence,
            "encoder": recipe.encoder.model_dump(mode="json"),
            "features": recipe.features.model_dump(mode="json"),
            "sample_rate_hz": settings.corpus.sample_rate_hz,
            "corpus": settings.corpus.model_dump(mode="json"),
            "data_fingerprint": store.fingerprint,
            "clips": len(store.clips),
            "lists": [asdict(listed) | {"missing": listed.missing} for listed in survey.lists],
            "seed": settings.seed,
            "recipe": pretraining.recipe.model_dump_json(),
            "history": [asdict(epoch) for epoch in history],
            "provenance": provenance([path for path, _ in store.skipped], self.place.command, pretraining.name)
            | {
                "device": device,
                "device_model": device_model(device),
                "precision": precision(recipe.train, torch.device(device)),
                "scale": self.place.scale.model_dump(mode="json"),
            },
        }


@dataclass(frozen=True)
class Preparation:
    """A pretraining with its corpus and its results at hand."""

    pretraining: LoadedPretraining
    place: Place

    @cached_property
    def survey(self) -> Survey:
        """The clips that are there, and how many are missing."""
        return self.pretraining.settings.corpus.survey(self.place.data_root)

    def cost(self) -> list[str]:
        """What it is going to take, in lines; all but the time, which the first epoch tells."""
        recipe, clips = self.pretraining.recipe, self.survey.clips
        seconds = _mean_seconds(self.place, self.survey) * len(clips)
        decoded = seconds * recipe.data.sample_rate_hz * np.dtype(recipe.data.dtype).itemsize
        items = len(clips) * recipe.segments.train_count
        steps = num_batches(items, recipe.train.batch_size)
        encoder = build_encoder(recipe.encoder, recipe.features.num_bands, 0)
        weights = sum(parameter.numel() for parameter in encoder.parameters())
        return [
            f"{len(clips):,} clips, about {duration(seconds)} of sound; decoded they take about {size(decoded)} in "
            f"{self.place.cache}",
            f"{recipe.encoder.name} with {weights:,} weights by {recipe.loss.contrastive.name}: {recipe.train.epochs} "  # pyright: ignore[reportOptionalMemberAccess]
            f"epochs of {items:,} items, {steps:,} steps each, seed {self.pretraining.settings.seed}",
        ]

    def job(self, progress: Callable[[int, int], None] | None = None) -> Job:
        """What is to be run. The clips are decoded, if they were not yet."""
        store = open_store(self.place.data_root, self.survey, self.place.cache, self.place.skip_bad, progress)
        return Job(self.pretraining, self.place, store.fingerprint)


def is_done(results: Results, key: str) -> bool:
    """Whether the weights of a key are there."""
    return any(about["key"] == key for about in own_weights(results))


def run(job: Job, train: Callable[[], None]) -> bool:
    """Does the job by `train`, unless its weights are there: then False. One process at a time does.

    Raises BadInput for what the same command would run into again.
    """
    results, name = Results(job.place.results_root), job.pretraining.name
    with results.lock(job.key):
        if is_done(results, job.key):
            return False
        try:
            train()
        except BadInput:
            raise
        except Exception as error:
            said = str(error).strip().splitlines()[-1]
            match failure_kind(error):
                case "non_finite":
                    fix = "try a smaller train.learning_rate"
                    raise BadInput(f"{name}: the training came to no number: {said}; {fix}") from None
                case "oom":
                    fix = "try a scale.micro_batch smaller than the batch, or a smaller train.batch_size"
                    raise BadInput(f"{name}: there was too little memory: {said}; {fix}") from None
                case "infrastructure":
                    raise BadInput(f"{name}: {said}; the same command goes on from the last epoch") from None
            raise
        results.clear_work(job.key)
    return True


def _mean_seconds(place: Place, survey: Survey) -> float:
    """Mean length of a clip, from some of them."""
    found = list[float]()
    for index in np.linspace(0, len(survey.clips) - 1, min(_LOOKED_AT, len(survey.clips))).astype(int):
        with suppress(sf.LibsndfileError, OSError):  # which decoding will tell
            found.append(sf.info(place.data_root / survey.clips[index].path).duration)
    return float(np.mean(found)) if found else 0.0
