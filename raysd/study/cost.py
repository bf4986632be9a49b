"""What trials take, in seconds and bytes, from what earlier ones took.

Training goes at so many items a second, whatever the corpus and the number of epochs, as long as what is computed for
an item is alike; embedding and scoring go at so many clips a second.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heapreplace
from statistics import median
from typing import Any

from pydantic import ValidationError

from raysd.detect.proxies import HELD_OUT
from raysd.model.encoding import build_encoder
from raysd.model.features import num_bands
from raysd.model.perturb import KINDS
from raysd.parallel import Scale
from raysd.recipe import Recipe, recipe_key
from raysd.study.design import Trial

COLUMNS = (
    *("key", "training_key", "recipe_key", "recipe", "numerics", "seed", "data_fingerprint", "finished"),
    *("train_seconds", "total_seconds", "clips_per_second", "metrics", "provenance"),
)
"""What is to be read of a record."""
MOST_READ = 150
"""Finished trials that are looked at."""
_BYTES_PER_CLIP = 60  # of a record: a path, a few words and a score, compressed
_BYTES_PER_RECORD = 30_000  # what every record holds beside its clips


@dataclass(frozen=True)
class Clips:
    """How many clips a corpus has."""

    train: int
    all: int

    @classmethod
    def counted(cls, splits: Iterable[str]) -> "Clips":
        """From the split of each clip; the stand-ins of a search's held-out clips do not count."""
        own = [split for split in splits if split in ("train", HELD_OUT, "test")]
        return cls(sum(split != "test" for split in own), len(own))

    def items(self, recipe: Recipe) -> int:
        """Items of an epoch: training clips that are not held out, times the segments of each."""
        return round(self.train * (1 - recipe.train.held_out)) * recipe.segments.train_count

    def embedded(self, recipe: Recipe) -> int:
        """Clips to embed and score: all, and the stand-ins of those held out."""
        return self.all + round(self.train * recipe.train.held_out) * (len(KINDS) + 1)


@dataclass(frozen=True)
class Hardware:
    """What decides, beside the recipe, how fast a trial is."""

    device: str
    """`cpu` or `cuda`."""
    model: str | None
    """The accelerator's name; None on a CPU, or where it is not known yet."""
    threads: int
    scale: tuple[Any, ...]
    """Workers, GPUs of each, micro-batch, compilation, arithmetic."""

    @classmethod
    def planned(cls, scale: Scale, model: str | None = None) -> "Hardware":
        return cls("cuda" if scale.gpus_per_worker else "cpu", model, max(1, int(scale.cpus_per_worker)), _parts(scale))

    @classmethod
    def recorded(cls, provenance: Mapping[str, Any]) -> "Hardware | None":
        """Of a finished trial; None where its record does not tell."""
        device, scale = provenance.get("device"), provenance.get("scale")
        if device is None:
            return None
        if scale is None:  # of a time when there was but one
            scale = {"gpus_per_worker": 1.0 if device.startswith("cuda") else 0.0}
        try:
            parts = _parts(Scale.model_validate(scale))
        except ValidationError:  # of a newer raysd
            return None
        return cls(device.split(":")[0], provenance.get("device_model"), provenance.get("threads") or 1, parts)

    def like(self, other: "Hardware") -> bool:
        """Whether what was measured on `other` holds here."""
        return (
            (self.device, self.scale) == (other.device, other.scale)
            and (self.threads == other.threads or self.device != "cpu")
            and (self.model is None or self.model == other.model)
        )

    def __str__(self) -> str:
        workers = self.scale[0]
        name = self.model or {"cpu": f"{self.threads} CPU thread{'s' if self.threads > 1 else ''}"}.get(
            self.device, "a GPU"
        )
        return name if workers == 1 else f"{workers} workers of {name}"


def _parts(scale: Scale) -> tuple[Any, ...]:
    return scale.workers, scale.gpus_per_worker, scale.micro_batch, scale.compile, scale.precision


def training_shape(recipe: Recipe) -> str:
    """What decides how long an item takes in training, as text."""
    kinds = [part and part.name for part in (recipe.loss.contrastive, recipe.loss.classification)]
    settings = recipe.train
    return json.dumps(
        [
            *_front(recipe),
            [recipe.segments.train_seconds, recipe.segments.two_crops],
            kinds,
            [settings.batch_size, settings.precision, settings.channels_last, settings.ema is None],
            recipe.tuning.mode,
        ]
    )


def embedding_shape(recipe: Recipe) -> str:
    """What decides how long a clip takes at scoring, as text; but for the scorer."""
    segments = recipe.segments
    return json.dumps([*_front(recipe), segments.score_seconds, segments.score_count, recipe.train.precision])


def _front(recipe: Recipe) -> list[Any]:
    return [recipe.data.sample_rate_hz, recipe.features.model_dump(mode="json"), recipe.encoder.model_dump(mode="json")]


@dataclass(frozen=True)
class Rate:
    """What a calibration measured of a recipe."""

    recipe: Recipe
    items_per_second: float | None
    """Of training; None for what is not trained."""
    clips_per_second: float
    """Of embedding."""


class Speeds:
    """How fast trials are on one kind of hardware: medians over finished trials, or what a calibration found.

    Of what was measured the likest serves: the same recipe on the same corpus, its like there, its like anywhere.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        clips: Mapping[str, Clips],
        hardware: Hardware,
        rates: Iterable[Rate] = (),
    ) -> None:
        """`rows` are records (`COLUMNS`); `clips` counts the corpora, by fingerprint."""
        self._measured: dict[tuple[str, ...], list[float]] = {}
        self.calibrated = False
        found = [(row, Hardware.recorded(_provenance(row["provenance"]))) for row in rows]
        fitting = [(row, on) for row, on in found if on is not None and hardware.like(on)]
        if fitting and hardware.model is None:  # which accelerator it will be is not known: the last one
            model = max(fitting, key=lambda pair: pair[0]["finished"])[1].model
            fitting = [(row, on) for row, on in fitting if on.model == model]
        self.measured_on: str | None = str(fitting[0][1]) if fitting else None
        """The hardware, in words; None where nothing was measured on it."""
        self.measured_elsewhere = sorted({str(on) for _, on in found if on is not None and not hardware.like(on)})
        """Other hardware of which there are records, in words."""
        trainers: dict[str, Any] = {}
        for row, _ in fitting:
            first = trainers.setdefault(row["training_key"], row)
            if row["finished"] < first["finished"]:
                trainers[row["training_key"]] = row
        for row, _ in fitting:
            corpus = clips.get(row["data_fingerprint"])
            recipe = _recipe(row["recipe"])
            if corpus is not None and recipe is not None:
                self._note_record(row, recipe, corpus, trainers[row["training_key"]] is row)
        for rate in rates:
            self.calibrated = True
            if rate.items_per_second is not None:
                self._note("train", "", training_shape(rate.recipe), value=rate.items_per_second)
            self._note("embed", "", embedding_shape(rate.recipe), value=1 / rate.clips_per_second)

    def training(self, recipe: Recipe, fingerprint: str) -> float | None:
        """Items a second."""
        return self._like("train", fingerprint, recipe_key(recipe), training_shape(recipe))

    def embedding(self, recipe: Recipe, fingerprint: str) -> float | None:
        """Seconds a clip of embedding and scoring, and of all that a trial does beside its epochs."""
        return self._like("embed", fingerprint, *_names(recipe_key(recipe), recipe), embedding_shape(recipe))

    def scoring(self, recipe: Recipe, fingerprint: str) -> float | None:
        """Seconds a clip of scoring embeddings that are there."""
        return self._like("score", fingerprint, *_names(recipe_key(recipe), recipe))

    def _note_record(self, row: Mapping[str, Any], recipe: Recipe, corpus: Clips, trained: bool) -> None:
        where, key = row["data_fingerprint"], row["recipe_key"]
        train, total, clips = row["train_seconds"], row["total_seconds"], corpus.embedded(recipe)
        if trained and row["clips_per_second"]:
            self._note("train", where, key, training_shape(recipe), value=row["clips_per_second"])
        if not trained:
            self._note("score", where, *_names(key, recipe), value=total / clips)
        elif total >= train:  # else it was interrupted, and its last run did not train all epochs
            self._note("embed", where, *_names(key, recipe), embedding_shape(recipe), value=(total - train) / clips)

    def _note(self, kind: str, fingerprint: str, *names: str, value: float) -> None:
        for name in names:
            self._measured.setdefault((kind, name, fingerprint), []).append(value)
            self._measured.setdefault((kind, name), []).append(value)

    def _like(self, kind: str, fingerprint: str, *names: str) -> float | None:
        """The median of what has the first of these names on this corpus, else of what has it anywhere."""
        for key in [(kind, name, fingerprint) for name in names] + [(kind, name) for name in names]:
            if found := self._measured.get(key):
                return median(found)
        return None


def _names(key: str, recipe: Recipe) -> tuple[str, str]:
    """By what embedding with scoring is known: the recipe, then all that decides its time."""
    return key, f"{embedding_shape(recipe)} {recipe.scoring.name}"


@dataclass(frozen=True)
class Cost:
    """Seconds of one trial; None where nothing like it has been measured."""

    training: float | None
    embedding: float | None
    """And scoring."""
    scoring: float | None
    """Where the embeddings are there."""

    def seconds(self, trains: bool) -> float | None:
        """Of a trial that makes its embeddings, or of one that finds them there."""
        if not trains:
            return self.scoring
        return None if self.training is None or self.embedding is None else self.training + self.embedding


UNKNOWN = Cost(None, None, None)


def cost(recipe: Recipe, fingerprint: str, corpus: Clips, speeds: Speeds) -> Cost:
    """What a trial of a recipe takes on a corpus."""
    items = recipe.train.epochs * corpus.items(recipe) if recipe.trains else 0
    rate = speeds.training(recipe, fingerprint) if items else None
    embedding, scoring = speeds.embedding(recipe, fingerprint), speeds.scoring(recipe, fingerprint)
    scoring = embedding if scoring is None else scoring  # the most that it can take
    clips = corpus.embedded(recipe)
    return Cost(
        (items / rate if rate else None) if items else 0.0,
        None if embedding is None else clips * embedding,
        None if scoring is None else clips * scoring,
    )


def paid_seconds(rows: Iterable[Mapping[str, Any]]) -> float:
    """What finished trials (`COLUMNS`) took in all; a training that several share counts once."""
    total, trained = 0.0, set[str]()
    for row in sorted(rows, key=lambda row: row["finished"]):
        first = row["training_key"] not in trained
        trained.add(row["training_key"])
        total += max(row["total_seconds"], row["train_seconds"]) if first else row["total_seconds"]
    return total


def sample(own: Sequence[Trial], others: Collection[str]) -> set[str]:
    """Keys of finished trials to learn from: all, or of very many some, because each is a file to open.

    `own` are the study's: of some variants all seeds, so that their differences are there.
    """
    if len(own) + len(others) <= MOST_READ:
        return {trial.key for trial in own} | set(others)
    variants: dict[str, list[Trial]] = {}
    for trial in own:
        variants.setdefault(trial.variant, []).append(trial)
    step = max(1, math.ceil(2 * len(own) / MOST_READ))
    kept = [trials for i, trials in enumerate(variants.values()) if i % step == 0 or trials[0].role != "variant"]
    keys = {trial.key for trials in kept for trial in trials}
    return keys | set(sorted(others)[: max(0, MOST_READ - len(keys))])


def wall_seconds(seconds: Sequence[float], at_once: int) -> float:
    """The time by the clock of jobs that start in this order as soon as one of `at_once` places is free."""
    if not seconds:
        return 0.0
    ends = [0.0] * max(1, min(at_once, len(seconds)))
    heapify(ends)
    for each in seconds:
        heapreplace(ends, ends[0] + each)
    return max(ends)


def disk_bytes(
    baseline: Recipe,
    records: int,
    trainings: int,
    trained: Collection[Recipe],
    sizes: tuple[float | None, float | None],
    corpus: Clips | None,
) -> int | None:
    """Bytes of records, embeddings and the largest checkpoint under way; None: unknown.

    `trained` are the recipes that are trained; `sizes` the mean bytes of earlier records and embeddings.
    """
    record, embeddings = sizes
    if corpus is not None:
        clips = corpus.embedded(baseline)
        dimension = getattr(baseline.encoder, "embedding_dim", None) or num_bands(baseline.features)
        record = record or _BYTES_PER_RECORD + _BYTES_PER_CLIP * clips
        embeddings = embeddings or 4 * dimension * clips
    if record is None or embeddings is None:
        return None if records else 0
    return round(records * record + trainings * embeddings + _checkpoint_bytes(trained))


def _checkpoint_bytes(recipes: Iterable[Recipe]) -> int:
    """The largest: float32 weights with AdamW's two moments, and the averaged weights where there are some."""
    sizes: dict[str, int] = {}
    for recipe in recipes:
        encoder, bands, copies = recipe.encoder, num_bands(recipe.features), 3 if recipe.train.ema is None else 4
        key = f"{encoder.model_dump_json()} {bands} {copies}"
        if key not in sizes:
            sizes[key] = 4 * copies * sum(p.numel() for p in build_encoder(encoder, bands, seed=0).parameters())
    return max(sizes.values(), default=0)


@lru_cache(maxsize=4096)
def _provenance(text: str) -> dict[str, Any]:
    return json.loads(text)


@lru_cache(maxsize=4096)
def _recipe(text: str) -> Recipe | None:
    """None for a recipe with settings that are no more."""
    try:
        return Recipe.model_validate_json(text)
    except ValidationError:
        return None
