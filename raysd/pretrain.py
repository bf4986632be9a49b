"""The flow of a pretraining: a corpus -> its store -> an encoder trained contrastively -> weights that a recipe names.

The training is that of a trial (`raysd.train`), with one class for all clips. What it makes is kept in the results root
under a key made of all that changes the numbers: settings, seed, recordings and the numerics' revision.
"""

import itertools
import time
from collections import ChainMap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import soundfile as sf
import torch

from raysd.data.audioset import Survey
from raysd.data.shards import ShardedStore, open_shards, shard_of, whole_fingerprint
from raysd.data.store import BadClips, Store, open_store
from raysd.errors import BadInput
from raysd.items import ShardedSet, TrainingSet, num_batches
from raysd.model.encoding import build_encoder
from raysd.model.features import num_bands
from raysd.model.spectra import Spectra
from raysd.parallel import from_all, from_first, rank, world
from raysd.results.provenance import device_model, provenance
from raysd.results.store import Results
from raysd.results.weights import own_weights, write_weights
from raysd.study.plan import duration, size
from raysd.study.pretrainings import LoadedPretraining
from raysd.train import Epoch, NonFiniteLoss, precision, train
from raysd.trial import FailedOnWorkers, Place, failure_kind, used_recipe

_LOOKED_AT = 32  # clips from which the length of all is estimated
_BAD_INPUT = tuple(f"{kind.__module__}.{kind.__qualname__}: " for kind in (BadInput, BadClips))
"""How the last line of a worker's traceback begins that a user's mistake ended."""
MODEL = "encoder"
"""What the checkpoint of a pretraining under way is called."""


@dataclass(frozen=True)
class Job:
    """One pretraining at one place. Every worker that takes part calls it, with the device it has."""

    pretraining: LoadedPretraining
    place: Place
    fingerprint: str | None
    """Of the recordings, as it was when the pretraining was started; None where only the workers together know it."""

    @property
    def lock(self) -> str:
        """What one process at a time holds that does this."""
        return self.pretraining.key(self.fingerprint or f"shards of {self.place.data_root}")

    def __call__(self, device: str, on_epoch: Callable[[Epoch], None]) -> str:
        """Trains, goes on where a training of this key was broken off, and keeps the weights; gives their key.

        Raises NonFiniteLoss.
        """
        began = time.monotonic()
        torch.set_num_threads(self.place.threads)
        place, settings = self.place, self.pretraining.settings
        recipe, results = used_recipe(self.pretraining.recipe, place.scale), Results(place.results_root)
        survey = settings.corpus.survey(place.data_root)
        clips = _open(survey, place)
        key = self.pretraining.key(clips.fingerprint)
        if self.fingerprint not in (None, clips.fingerprint):
            raise BadInput(f"{place.data_root}: these are not the recordings that the pretraining was started with")
        if from_first(rank() == 0 and is_done(results, key)):
            return key
        spectra = Spectra(clips.store, recipe.features, torch.device(device), place.scale)
        checkpoint = results.checkpoint(key, MODEL)
        detector, history = train(recipe, spectra, clips.data, settings.seed, checkpoint, on_epoch, place.scale)
        state = detector.encoder.state_dict()
        if not all(bool(tensor.isfinite().all()) for tensor in state.values()):  # the last step can do it
            raise NonFiniteLoss("the weights after the last step")
        if rank() == 0:
            about = self._about(clips, history, device) | {"seconds": time.monotonic() - began}
            write_weights(results, key, state, about)
            results.clear_work(key)
        return key

    def _about(self, clips: "_Clips", history: list[Epoch], device: str) -> dict[str, Any]:
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
            "data_fingerprint": clips.fingerprint,
            "clips": clips.count,
            "lists": clips.lists,
            "seed": settings.seed,
            "recipe": pretraining.recipe.model_dump_json(),
            "history": [asdict(epoch) for epoch in history],
            "provenance": provenance(clips.skipped, self.place.command, pretraining.name)
            | {
                "device": device,
                "device_model": device_model(device),
                "precision": precision(recipe.train, torch.device(device)),
                "scale": self.place.scale.recorded(),
            },
        }


@dataclass(frozen=True)
class _Clips:
    """The clips that a worker holds, and what all hold together."""

    store: Store | ShardedStore
    data: TrainingSet
    fingerprint: str
    count: int
    lists: list[dict[str, Any]]
    skipped: list[str]


def _open(survey: Survey, place: Place) -> _Clips:
    """The corpus; of one in shards only those of this worker, and then all workers call it together."""
    num_shards = survey.corpus.shards
    if num_shards == 1:
        store = open_store(place.data_root, survey, place.cache, place.skip_bad)
        data = _of_one_class(len(store.clips))
        return _Clips(store, data, store.fingerprint, len(store.clips), _told(survey), _paths(store.skipped))
    held = range(num_shards)[rank() * num_shards // world() : (rank() + 1) * num_shards // world()]
    store = open_shards(place.data_root, survey, place.cache, num_shards, held, place.skip_bad)
    there = [sum(shard_of(path, num_shards) in held for path in listed.paths) for listed in survey.lists]
    sizes = {number: len(part.clips) for number, part in store.stores.items()}
    parts = from_all((store.fingerprints, sizes, there, _paths(store.skipped)))
    fingerprints, size = ChainMap(*(part[0] for part in parts)), ChainMap(*(part[1] for part in parts))
    size_S = torch.tensor([size[number] for number in range(num_shards)])
    first_S = torch.zeros_like(size_S)
    first_S[list(held)] = torch.tensor([0, *itertools.accumulate(sizes.values())][:-1])
    own = _of_one_class(len(store.clips))
    return _Clips(
        store,
        ShardedSet(own.row_N, own.label_N, own.num_classes, size_S, first_S),
        whole_fingerprint(fingerprints, num_shards),
        int(size_S.sum()),
        _told(survey, [sum(counts) for counts in zip(*(part[2] for part in parts), strict=True)]),
        [path for part in parts for path in part[3]],
    )


def _of_one_class(clips: int) -> TrainingSet:
    return TrainingSet(torch.arange(clips), torch.zeros(clips, dtype=torch.int64), 1)


def _told(survey: Survey, there: list[int] | None = None) -> list[dict[str, Any]]:
    """What is there of the lists, as the weights' record has it."""
    counts = [listed.there for listed in survey.lists] if there is None else there
    return [
        {"name": listed.name, "wanted": listed.wanted, "there": count, "missing": listed.wanted - count}
        for listed, count in zip(survey.lists, counts, strict=True)
    ]


def _paths(skipped: list[tuple[str, str]]) -> list[str]:
    return [path for path, _ in skipped]


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
        encoder = build_encoder(recipe.encoder, num_bands(recipe.features), 0)
        weights = sum(parameter.numel() for parameter in encoder.parameters())
        loss, epochs = recipe.loss.contrastive and recipe.loss.contrastive.name, recipe.train.epochs
        return [
            f"{len(clips):,} clips, about {duration(seconds)} of sound; decoded they take about {size(decoded)} in "
            f"{self.place.cache}",
            f"{recipe.encoder.name} with {weights:,} weights, by {loss}: {epochs} epoch{'s' * (epochs != 1)} of "
            f"{items:,} items, {steps:,} steps each, seed {self.pretraining.settings.seed}",
        ]

    def job(self, progress: Callable[[int, int], None] | None = None, decode: bool = True) -> Job:
        """What is to be run. With `decode`, the clips are decoded here, if they were not yet.

        Without it each worker decodes those of its shards, on its own node, and nobody knows the key before.
        """
        place, num_shards = self.place, self.pretraining.settings.corpus.shards
        if num_shards == 1:
            store = open_store(place.data_root, self.survey, place.cache, place.skip_bad, progress)
            return Job(self.pretraining, place, store.fingerprint)
        if not decode:
            return Job(self.pretraining, place, None)
        held = range(num_shards)
        shards = open_shards(place.data_root, self.survey, place.cache, num_shards, held, place.skip_bad, progress)
        return Job(self.pretraining, place, shards.fingerprint)


def is_done(results: Results, key: str) -> bool:
    """Whether the weights of a key are there."""
    return any(about["key"] == key for about in own_weights(results))


def run(job: Job, train: Callable[[], str]) -> str:
    """Does the job by `train`, one process at a time; gives the key. What is there already is not trained again.

    Raises BadInput for what the same command would run into again.
    """
    results, name = Results(job.place.results_root), job.pretraining.name
    with results.lock(job.lock):
        try:
            key = train()
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
                case _ if isinstance(error, FailedOnWorkers) and said.startswith(_BAD_INPUT):
                    raise BadInput(said.partition(": ")[2]) from None
            raise
        results.clear_work(job.lock)  # the lock
    return key


def _mean_seconds(place: Place, survey: Survey) -> float:
    """Mean length of a clip, from some of them."""
    found = list[float]()
    for index in np.linspace(0, len(survey.clips) - 1, min(_LOOKED_AT, len(survey.clips))).astype(int):
        with suppress(sf.LibsndfileError, OSError):  # which decoding will tell
            found.append(sf.info(place.data_root / survey.clips[index].path).duration)
    return float(np.mean(found)) if found else 0.0
