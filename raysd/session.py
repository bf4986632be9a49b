"""A study with its data and its results at hand: what every command about a study starts from."""

import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from raysd.data.store import Data, Store, known_fingerprint, open_store
from raysd.data.transfer import Tell
from raysd.errors import BadInput
from raysd.initial import Checkpoints
from raysd.paper.search_table import SearchTable
from raysd.paper.tables import StudyTable, study_tables
from raysd.parallel import Scale
from raysd.recipe import NUMERICS, Recipe, recipe_key
from raysd.results.searches import SearchLog
from raysd.results.store import Results
from raysd.study.cost import COLUMNS, Clips, Hardware, Rate, Speeds, paid_seconds, sample
from raysd.study.design import LoadedStudy, Trial, load_study, trials_of
from raysd.study.plan import Plan, Room, make_plan
from raysd.study.search import StudySearch, objective_metric, search_name
from raysd.study.searched import search_tables
from raysd.study.spread import Spread, spread_of, values_by_seed

if TYPE_CHECKING:  # to import what trains takes a second, and most commands train nothing
    from raysd.trial import Judging, Place


@dataclass(frozen=True)
class Session:
    """One study, one results root, and the data root where there is one."""

    study: LoadedStudy
    results: Results
    data_root: Path | None
    cache: Path
    skip_bad: bool = False
    checkpoints: Checkpoints | None = None
    """What named the study's weights, where it names some by path."""
    _stores: dict[Data, Store] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Those that were opened: to find one again lists and stats every clip of the corpus."""

    @cached_property
    def weights(self) -> Checkpoints:
        """Those that recipes start from."""
        return self.checkpoints or Checkpoints(self.results)

    def bring_weights(self, tell: Callable[[str], None], progress: Tell) -> None:
        """Has the weights that missing trials start from where these run; see `Checkpoints.bring`."""
        self.weights.bring((trial.recipe for trial in self.missing()), self.cache, tell, progress)

    def decode(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Builds the stores that the study's trials read, where they are not there yet."""
        if self.data_root is not None:
            for data in self._data():
                self._stores[data] = open_store(self.data_root, data, self.cache, self.skip_bad, progress)

    def fingerprint(self, recipe: Recipe) -> str | None:
        """The fingerprint of the recipe's data; None without a data root, or before its clips are decoded."""
        return self._known().get(recipe.data)

    def plan(self, rates: Sequence[Rate] = ()) -> Plan:
        """What is there, what is missing, and what it would cost; `rates` are what a calibration found."""
        results, known, scale = self.results, self._known(), self.study.study.scale
        trials, all_done = trials_of(self.study, lambda recipe: known[recipe.data] or ""), results.done()
        study = replace(self.study, notes=(*self.study.notes, *self._waiting()))
        trials = [trial for trial in trials if self.weights.ready(trial.recipe)]
        if not all(known.values()):
            return make_plan(study, trials, data_known=False, sizes=results.sizes())
        own = [trial for trial in trials if trial.key in all_done]
        keys = sample(own, all_done - {trial.key for trial in own})
        rows = results.rows(COLUMNS, keys)
        corpora = {known[data] or "": clips for data, clips in self._clips().items()}
        speeds = Speeds(rows, corpora | self._clips_elsewhere(rows, corpora), Hardware.planned(scale, _gpu()), rates)
        own_keys = {trial.key for trial in own}
        own_rows = [row for row in rows if row["key"] in own_keys]
        paid = paid_seconds(own_rows) * len(own) / len(own_rows) if own_rows else None
        return make_plan(
            study,
            trials,
            done=all_done,
            trained=results.trained(),
            speeds=speeds,
            sizes=results.sizes(),
            clips=lambda recipe: corpora[known[recipe.data] or ""],
            room=_room(scale),
            spread=self._spread(rows, known[self.study.baseline.recipe.data] or ""),
            paid_seconds=paid,
            records_read=len(rows) if len(keys) < len(all_done) else None,
            suggestions_ended=self._suggestions_ended(),
        )

    def calibrate(self, progress: Callable[[int, int], None]) -> list[Rate]:
        """Measures, for about two minutes, those of the study's missing trials that are unlike any finished one.

        `progress` hears the seconds that are over, and all that it will take. Writes nothing. Raises BadInput where the
        study's scale wants a GPU and there is none.
        """
        plan = self.plan()
        unknown = {trial.variant for trial in plan.missing if trial.seconds is None}
        recipes = [row.recipe for row in self.study.variants if row.name in unknown]
        from raysd.calibrate import calibrate

        return calibrate(recipes, self._place_on_scale(), progress)

    def missing(self) -> list[Trial]:
        """The trials that are not in the results, in the order in which they are to be run. The clips are decoded.

        Of a search those of its references alone: `search` gives the others. Those whose weights are not there yet are
        left out.
        """
        known, done = self._known(), self.results.done()
        trials = trials_of(self.study, lambda recipe: known[recipe.data] or "")
        trials = [trial for trial in trials if self.weights.ready(trial.recipe)]
        return [t for t in trials if t.key not in done and not (self.is_search and t.role == "baseline")]

    @property
    def is_search(self) -> bool:
        """Whether the study is a search, whose trials are not known before."""
        return self.study.study.search is not None

    def search(self) -> StudySearch:
        """The study's search, as far as it has come. The clips are decoded."""
        return StudySearch(self.study, self.fingerprint(self.study.baseline.recipe) or "", self.results)

    @contextmanager
    def searching(self) -> Iterator[StudySearch | None]:
        """The search, which no other process runs meanwhile; None where the study is none."""
        if self.is_search:
            with SearchLog(self.results, self._search_name()).alone():
                yield self.search()
        else:
            yield None

    def tables(self) -> Sequence[StudyTable | SearchTable]:
        """The study's table for its data; without a data root one for each corpus that the results hold."""
        made = search_tables if self.is_search else study_tables
        return made(self.study, self.results, self.fingerprint(self.study.baseline.recipe))

    def place(self, command: tuple[str, ...] = ()) -> "Place":
        """Where the study's trials find their data and leave their results."""
        from raysd.trial import Place

        return Place(
            self.data_root or Path(),
            self.cache,
            self.results.root,
            self.study.name,
            self.study.profile,
            self.skip_bad,
            command=command,
            judging=self._judging(),
        )

    def rescore(self) -> tuple[int, list[Trial]]:
        """Scores what is embedded already and has no record yet, without any training or audio.

        Gives the number of records written, and the trials that would have to be trained first (`raysd run`). Raises
        BadInput for a data root whose clips are not decoded, so that nothing is known of them.
        """
        from raysd.trial import Run, scored

        written, untrained = 0, list[Trial]()
        for trial in self._rescorable():
            if self.results.has(trial.key):
                continue
            embeddings = self.results.read_embeddings(trial.training_key)
            if embeddings is None:
                untrained.append(trial)
            else:
                written += self.results.write(scored(Run(trial, self.place(), datetime.now(UTC)), embeddings))
        return written, untrained

    def _waiting(self) -> list[str]:
        """What a reader should know of variants whose weights are not there."""
        rows = [row for row in self.study.variants if not self.weights.ready(row.recipe)]
        return [
            f"'{row.name}' waits for {row.recipe.pretrained}: make it with raysd pretrain, and give the same --results"
            for row in rows
        ]

    def _search_name(self) -> str:
        return search_name(self.study, self.fingerprint(self.study.baseline.recipe) or "")

    def _judging(self) -> "Judging | None":
        from raysd.trial import Judging

        pruning = self.study.study.pruning
        if not self.is_search or pruning is None:
            return None
        return Judging(self._search_name(), objective_metric(self.study), pruning.first_epochs, pruning.reduction)

    def _rescorable(self) -> list[Trial]:
        """The study's trials on the corpus at hand; without a data root on all corpora that the results hold of it."""
        known = {data: {corpus} if corpus else set[str]() for data, corpus in self._known().items()}
        if self.data_root is not None and not all(known.values()):
            raise BadInput(
                f"{self.data_root}: its clips are not decoded in {self.cache}; leave --data-root out to score anew all "
                f"that the results hold, or decode them first: raysd plan {self.study.name} --data-root ..."
            )
        if self.data_root is None:
            for row in self.results.rows(["data_fingerprint", "recipe"]):
                recorded = json.loads(row["recipe"])["data"].items()
                for data, corpora in known.items():
                    if recorded <= data.model_dump(mode="json").items():  # a setting may have been added since
                        corpora.add(row["data_fingerprint"])
        trials = [trial for corpus in sorted(set().union(*known.values())) for trial in trials_of(self.study, corpus)]
        return [trial for trial in trials if trial.fingerprint in known[trial.recipe.data]]

    def _place_on_scale(self) -> "Place":
        scale = self.study.study.scale
        return replace(self.place(), device="cuda" if scale.gpus_per_worker else "cpu", scale=scale)

    def _clips(self) -> dict[Data, Clips]:
        """How many clips each corpus has; the stores are built."""
        found = {}
        for data in self._data():
            store = self._stores.get(data) or open_store(self.data_root or Path(), data, self.cache, self.skip_bad)
            found[data] = Clips.counted(store.clips["split"])
        return found

    def _clips_elsewhere(self, rows: list[dict[str, Any]], known: Collection[str]) -> dict[str, Clips]:
        """The same of the other corpora that records are of, each counted in one record."""
        one = {row["data_fingerprint"]: row["key"] for row in rows if row["data_fingerprint"] not in known}
        if not one:
            return {}
        counted = self.results.rows(["data_fingerprint", "scores"], set(one.values()))
        return {row["data_fingerprint"]: Clips.counted(clip["split"] for clip in row["scores"]) for row in counted}

    def _suggestions_ended(self) -> int:
        """Suggestions of a search that are done with, without its baseline."""
        if not self.is_search:
            return 0
        log = SearchLog(self.results, self._search_name())
        return sum(one.number > 0 and one.state != "asked" for one in log.read())

    def _spread(self, rows: list[dict[str, Any]], fingerprint: str) -> Spread | None:
        """How much the study's metric scatters over seeds on its corpus, in whichever study the trials were run."""
        names = {recipe_key(row.recipe): row.name for row in self.study.variants if row.role != "reference"}
        here = [row for row in rows if (row["data_fingerprint"], row["numerics"]) == (fingerprint, NUMERICS)]
        values = values_by_seed(self.study, names, here)
        return spread_of(values.pop("baseline", {}), list(values.values()))

    def _data(self) -> list[Data]:
        return list(dict.fromkeys(row.recipe.data for row in self.study.variants))

    def _known(self) -> dict[Data, str | None]:
        if self.data_root is None:
            return dict.fromkeys(self._data())
        opened = {data: store.fingerprint for data, store in self._stores.items()}
        return {
            data: opened.get(data) or known_fingerprint(self.data_root, data, self.cache, self.skip_bad)
            for data in self._data()
        }


def open_study(
    study: str | Path,
    overrides: dict[str, Any],
    profile: str | None,
    seeds: tuple[int, ...] | None,
    data_root: Path | None,
    results: Results,
    cache: Path,
    skip_bad: bool = False,
) -> Session:
    """A study (see `load_study`) with its data and its results; raises BadInput for what cannot be used."""
    checkpoints = Checkpoints(results)
    loaded = load_study(study, overrides, profile, seeds, checkpoints.pinned)
    return Session(loaded, results, data_root and data_root.resolve(), cache.resolve(), skip_bad, checkpoints)


def _gpu() -> str | None:
    """The accelerator that a run of one's own would use; None where there is none, or another machine's is used."""
    if os.environ.get("RAY_ADDRESS") or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name()


def _room(scale: Scale) -> Room:
    """How many trials a run of one's own would train at a time here."""
    if os.environ.get("RAY_ADDRESS"):
        return Room(1, "more where the cluster has room")
    cores, gpus = len(os.sched_getaffinity(0)), torch.cuda.device_count()
    fit, reason = math.floor(cores / scale.cpus_per_worker + 1e-6), f"this machine has {cores} cores"
    if scale.gpus_per_worker:
        on_gpus = gpus * math.floor(1 / scale.gpus_per_worker + 1e-6)
        if scale.gpus_per_worker >= 1:
            on_gpus = math.floor(gpus / scale.gpus_per_worker + 1e-6)
        fit, reason = min(fit, on_gpus), f"{reason} and {gpus} GPUs"
    at_once = fit // scale.workers
    return Room(at_once, reason) if at_once else Room(1, f"{reason}, which is no room for one")
