"""The flow of one trial: the store's clips -> a detector -> embeddings -> scores -> metrics -> one record.

N training clips, M test clips, D embedding.
"""

import json
import math
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from raysd import initial
from raysd.data.store import Data, Store, open_store
from raysd.detect.metrics import headline_metrics, summarise
from raysd.detect.proxies import arranged, objective_value, proxy_metrics
from raysd.detect.scores import Embedded
from raysd.detect.scoring import score_clips
from raysd.errors import BadInput
from raysd.model.beside import pooled
from raysd.model.features import Features
from raysd.model.perturb import KINDS
from raysd.model.spectra import Spectra
from raysd.parallel import Scale, from_first, gather, rank, share
from raysd.recipe import NUMERICS, Recipe, recipe_key
from raysd.results.provenance import device_model, provenance, train_sets
from raysd.results.searches import SearchLog
from raysd.results.storage import StorageError
from raysd.results.store import Record, Results
from raysd.study.design import Trial
from raysd.train import Detector, Epoch, GivenUp, NonFiniteLoss, TrainingSet, embed, precision, train

_BESIDE = "beside_"  # begins the columns of embeddings without training
CLIP_COLUMNS = ["path", "machine", "section", "part", "split", "domain", "label"]


@dataclass(frozen=True)
class Judging:
    """How a search gives up what does badly after few epochs (asynchronous successive halving, Li et al. 2020)."""

    search: str
    """Its log, where the trials of a search see each other's values."""
    objective: str
    """The metric."""
    first_epochs: int
    reduction: int

    def rungs(self, epochs: int) -> set[int]:
        """The numbers of epochs after which a training of so many is judged."""
        found, at = set[int](), self.first_epochs
        while at < epochs:
            found.add(at)
            at *= self.reduction
        return found

    def stays(self, value: float, seen: Collection[float]) -> bool:
        """Whether `value` is among the best of all `seen` after as many epochs, itself included: one in `reduction`."""
        return sum(other > value for other in seen) < math.ceil(len(seen) / self.reduction)


@dataclass(frozen=True)
class Place:
    """Where a trial's data and results are, and what it runs on. Never part of its key."""

    data_root: Path
    cache: Path
    results_root: str | Path
    study: str = ""
    profile: str | None = None
    skip_bad: bool = False
    scale: Scale = field(default_factory=Scale)
    device: str = "cpu"
    command: tuple[str, ...] = ()
    judging: Judging | None = None

    @property
    def threads(self) -> int:
        """Threads of a worker."""
        return max(1, int(self.scale.cpus_per_worker))


Train = Callable[["Trial", Place, Callable[[Epoch], None]], pa.Table]
"""Makes the embeddings of a trial, as `train_and_embed` does."""


class FailedOnWorkers(RuntimeError):
    """A training by several workers failed; its text is theirs."""

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(said)
        self.kind = kind


def run_trial(
    trial: Trial, place: Place, on_epoch: Callable[[Epoch], None] = lambda epoch: None, train: Train | None = None
) -> Record:
    """Trains (unless the embeddings are there), scores, measures and writes one trial; gives its record.

    A trial that is in the results already is read, not run. A failed one is written as failed, then raised. `train`
    makes the embeddings; without it they are made in this process.
    """
    results = Results(place.results_root, patient=True)
    run = Run(trial, place, datetime.now(UTC))
    torch.set_num_threads(place.threads)
    try:
        with results.lock(trial.training_key):
            if results.has(trial.key):  # another study's run has just finished it
                results.clear_work(trial.training_key)
                return results.read(trial.key)
            embeddings = results.read_embeddings(trial.training_key)
            if embeddings is None:
                embeddings = (train or train_and_embed)(trial, place, on_epoch)
                results.write_embeddings(trial.training_key, embeddings)
            results.write(scored(run, embeddings))
            results.clear_work(trial.training_key)
            return results.read(trial.key)
    except GivenUp:
        results.clear_work(trial.training_key)
        raise
    except Exception as error:
        if failure_kind(error) != "infrastructure":  # which may be tried again; whoever decides that writes it
            results.write_failure(run.failed(failure_kind(error), traceback.format_exc()))
        raise


def train_and_embed(trial: Trial, place: Place, on_epoch: Callable[[Epoch], None]) -> pa.Table:
    """One detector for the data set, or one a machine: the embeddings of all clips, and the training's history.

    Where several workers train together, all call this, and each gets the whole table.
    """
    recipe, history, tables = used_recipe(trial.recipe, place.scale), list[Epoch](), []
    results = Results(place.results_root, patient=True)
    weights = initial.read(recipe.pretrained, place.cache, place.results_root)
    store = warm_store(place.data_root, recipe.data, place.cache, place.skip_bad)  # pyright: ignore[reportArgumentType]
    if store.fingerprint != trial.fingerprint:
        raise BadInput(f"{place.data_root}: these are not the clips that the study was planned for; run it again")
    spectra = warm_spectra(store, recipe.features, place.device, place.scale)
    for name, row_N in model_groups(recipe, store.clips):
        clips, data, own_MC = prepared(recipe, store.clips.loc[row_N], trial.seed)
        checkpoint = results.checkpoint(trial.training_key, name)
        keeps = _keeps(trial, place, spectra, clips, own_MC)
        detector, epochs = train(recipe, spectra, data, trial.seed, checkpoint, on_epoch, place.scale, keeps, weights)
        tables.append(_embedded(recipe, detector, spectra, clips, own_MC))
        history += epochs
    training = {
        "history": [asdict(epoch) for epoch in history],
        "skipped": store.skipped,
        "trained_on": {
            "device": place.device,
            "device_model": device_model(place.device),
            "threads": place.threads,
            "precision": precision(recipe.train, torch.device(place.device)),
            "scale": place.scale.recorded(),
        },
        "pretrained": weights and {"weights": weights.name, **weights.origin, "loaded": str(detector.loaded)},
    }
    joined = pa.concat_tables(tables, promote_options="default")  # a machine without domains beside one with them
    return joined.replace_schema_metadata({"training": json.dumps(training)})


def scored(run: "Run", embeddings: pa.Table) -> Record:
    """The record of a trial, from its embeddings: a score for each clip, and the metrics of the year."""
    recipe = run.trial.recipe
    clips = _scores(recipe, run.trial.seed, embeddings)
    return run.done(json.loads(embeddings.schema.metadata[b"training"]), clips, _metrics(clips, recipe.data.year))


def _scores(recipe: Recipe, seed: int, embeddings: pa.Table) -> pd.DataFrame:
    """The clips with a score each. What is not of the split `train` is scored as a test clip is."""
    clips = embeddings.select(CLIP_COLUMNS).to_pandas()
    columns = [name for name in embeddings.column_names if name.startswith(_BESIDE)]
    machine_N, section_N, domain_N = (
        clips[column].to_numpy(dtype=object) for column in ("machine", "section", "domain")
    )
    embedded = Embedded(
        np.stack(embeddings["z"].to_numpy()),
        machine_N,
        section_N,
        domain_N,
        embeddings["class_score"].to_numpy() if "class_score" in embeddings.column_names else None,
        {name.removeprefix(_BESIDE): np.stack(embeddings[name].to_numpy()) for name in columns},
    )
    train_N = (clips["split"] == "train").to_numpy()
    clips["score"] = np.empty(len(clips))
    clips.loc[train_N, "score"], clips.loc[~train_N, "score"] = score_clips(
        recipe.scoring, embedded.of(train_N), embedded.of(~train_N), seed
    )
    return clips


def _metrics(clips: pd.DataFrame, year: int) -> pd.DataFrame:
    """The year's metrics of the test clips, and the proxies where clips are held out."""
    found = [summarise(clips.loc[clips["split"] == "test"], year), proxy_metrics(clips, year)]
    return pd.concat([rows for rows in found if len(rows)] or found[:1], ignore_index=True)


def _embedded(
    recipe: Recipe, detector: Detector, spectra: Spectra, clips: pd.DataFrame, own_MC: torch.Tensor
) -> pa.Table:
    """The clips (as `arranged` gives them) with their embeddings, computed by all workers together."""
    row_M = torch.tensor(clips["row"].to_numpy())
    names = ["", *KINDS]
    perturbation_M = torch.tensor([names.index(kind) - 1 for kind in clips["perturbation"]])
    z_MD, log_probability_M = embed(recipe, detector, spectra, share(row_M), share(own_MC), share(perturbation_M))
    z_MD = gather(len(row_M))(z_MD)
    if not bool(z_MD.isfinite().all()):  # the last step of all can do it, which no loss follows
        raise NonFiniteLoss("the embeddings after the last step")
    table = pa.Table.from_pandas(clips[CLIP_COLUMNS], preserve_index=False)
    table = table.append_column("z", _rows(z_MD))
    if recipe.beside is not None:
        for name, pooled_MF in pooled(recipe.beside, spectra, share(row_M), share(perturbation_M)).items():
            table = table.append_column(f"{_BESIDE}{name}", _rows(gather(len(row_M))(pooled_MF)))
    if log_probability_M is not None:
        log_probability_M = gather(len(row_M))(log_probability_M)
        table = table.append_column("class_score", pa.array(log_probability_M.numpy()))
    return table


def _rows(z_MD: torch.Tensor) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(z_MD.numpy().ravel()), z_MD.shape[1])


def _keeps(
    trial: Trial, place: Place, spectra: Spectra, clips: pd.DataFrame, own_MC: torch.Tensor
) -> Callable[[int, Detector], bool]:
    """Whether a search lets the training go on, by what its trials were worth after as many epochs.

    The baseline always goes on: it is what the others are compared with. References are none of its trials.
    """
    judging, recipe, year = place.judging, trial.recipe, trial.recipe.data.year
    if judging is None or trial.role == "reference":
        return lambda epochs, detector: True
    rungs = judging.rungs(recipe.train.epochs)
    seen = np.ones(len(clips), bool) if judging.objective in headline_metrics(year) else clips["split"] != "test"
    log = SearchLog(Results(place.results_root, patient=True), judging.search)

    def keeps(epochs: int, detector: Detector) -> bool:
        if epochs not in rungs:
            return True
        embeddings = _embedded(recipe, detector, spectra, clips.loc[seen], own_MC[torch.tensor(np.asarray(seen))])
        stays = True
        if rank() == 0:
            value = objective_value(_metrics(_scores(recipe, trial.seed, embeddings), year), judging.objective, year)
            log.write_rung(epochs, trial.key, value)
            stays = trial.role == "baseline" or judging.stays(value, log.rung(epochs).values())
        return from_first(stays)

    return keeps


def used_recipe(recipe: Recipe, scale: Scale) -> Recipe:
    """The recipe as it is run: with the arithmetic that the scale asks for, where it does."""
    changed = {"train": recipe.train.model_copy(update={"precision": scale.precision})} if scale.precision else {}
    return recipe.model_copy(update=changed)


@dataclass(frozen=True)
class Run:
    """One attempt at a trial: what its record says beside the numbers."""

    trial: Trial
    place: Place
    started: datetime
    began: float = field(default_factory=time.monotonic)
    """The same moment by a clock that nobody sets."""

    def done(self, training: dict[str, Any], clips: pd.DataFrame, metrics: pd.DataFrame) -> Record:
        """The record of a finished trial, `training` being what the embeddings say of how they came about."""
        history = training["history"]
        seconds = sum(epoch["seconds"] for epoch in history)
        items = sum(epoch["seconds"] * epoch["clips_per_second"] for epoch in history)
        return self._record(
            skipped=[path for path, _ in training["skipped"]],
            trained_on=training.get("trained_on"),
            pretrained=training.get("pretrained"),
            train_seconds=seconds,
            clips_per_second=items / seconds if seconds else None,
            history=history,
            scores=clips,
            metrics=metrics,
        )

    def failed(self, kind: str, said: str) -> Record:
        """The record of a failed one."""
        return self._record(state="failed", failure_kind=kind, traceback=said)

    def _record(
        self,
        skipped: list[str] | None = None,
        trained_on: dict[str, Any] | None = None,
        pretrained: dict[str, Any] | None = None,
        train_seconds: float = 0.0,
        **rest: Any,
    ) -> Record:
        trial, place, finished, seconds = self.trial, self.place, datetime.now(UTC), time.monotonic() - self.began
        origin = provenance(skipped or (), place.command, train_sets(trial.recipe.data.additional))
        origin |= trained_on or {"device": place.device, "scale": place.scale.recorded()}
        origin |= {"pretrained": pretrained} if pretrained else {}
        return Record(
            key=trial.key,
            training_key=trial.training_key,
            recipe_key=recipe_key(trial.recipe),
            numerics=NUMERICS,
            variant=trial.variant,
            study=place.study,
            profile=place.profile,
            seed=trial.seed,
            year=trial.recipe.data.year,
            data_fingerprint=trial.fingerprint,
            recipe=trial.recipe.model_dump_json(),
            started=self.started,
            finished=finished,
            train_seconds=train_seconds,
            total_seconds=seconds,
            provenance=json.dumps(origin),
            **rest,
        )


def model_groups(recipe: Recipe, clips: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """The rows that each model of a trial is trained on and scores: one model for all, or one for each machine."""
    if recipe.data.model_per == "data_set":
        yield "all", clips.index.to_numpy(dtype=np.int64, copy=True)
        return
    for machine, group in clips.groupby("machine"):
        yield str(machine), group.index.to_numpy(dtype=np.int64, copy=True)


def prepared(recipe: Recipe, clips: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, TrainingSet, torch.Tensor]:
    """Of one model's clips: all that is embedded, as `arranged`; what is trained on; `clip_classes`' second array."""
    turn = seed if recipe.train.held_out_by == "seed" else 0
    clips = arranged(clips, recipe.train.held_out, KINDS, turn)
    class_N, own_MC = (torch.from_numpy(array) for array in clip_classes(recipe, clips))
    row_N = torch.tensor(clips.loc[clips["split"] == "train", "row"].to_numpy())
    return clips, TrainingSet(row_N, class_N, own_MC.shape[1]), own_MC


def clip_classes(recipe: Recipe, clips: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The class of each training clip (N,), and for all clips which of the C classes are of their section (N + M, C).

    A class is a machine's section, or one setting of its attributes; those of a test clip are not looked at, because
    the task hides them.
    """
    sections = list(clips[["machine", "section"]].itertuples(index=False, name=None))
    named = sections
    if recipe.loss.classes == "section_attributes":
        named = [(*section, str(attributes)) for section, attributes in zip(sections, clips["attributes"], strict=True)]
    train = [name for name, split in zip(named, clips["split"], strict=True) if split == "train"]
    classes = sorted(set(train))
    number = {name: i for i, name in enumerate(classes)}
    own_NC = np.array([[name[:2] == section for name in classes] for section in sections])
    return np.array([number[name] for name in train]), own_NC


def failure_kind(error: BaseException) -> str:
    """`non_finite`, `oom`, `code`, `infrastructure` where the results root fails; or what a trial's workers made of it.
    `given_up` is no failure.

    Of a process that died its driver tells.
    """
    if isinstance(error, FailedOnWorkers):
        return error.kind
    if isinstance(error, GivenUp):
        return "given_up"
    if isinstance(error, StorageError):
        return "infrastructure"
    if isinstance(error, NonFiniteLoss):
        return "non_finite"
    # on a CPU torch has no error of its own for it
    full = isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    return "oom" if full or isinstance(error, (MemoryError, torch.OutOfMemoryError)) else "code"


@lru_cache(maxsize=2)
def warm_store(data_root: Path, data: Data, cache: Path, skip_bad: bool) -> Store:
    """The store, opened once by a process for all its trials."""
    return open_store(data_root, data, cache, skip_bad=skip_bad)


_spectra: dict[tuple[str, Features, str, bool | str], Spectra] = {}


def warm_spectra(store: Store, features: Features, device: str, scale: Scale = Scale()) -> Spectra:
    """The log-mels of the store's clips, computed once by a process for all trials of one front end."""
    key = (store.fingerprint, features, device, scale.device_cache)
    if key not in _spectra:
        _spectra.clear()  # one corpus's log-mels fill gigabytes
        _spectra[key] = Spectra(store, features, torch.device(device), scale)
    return _spectra[key]
