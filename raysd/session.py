"""A study with its data and its results at hand: what every command about a study starts from."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from raysd.data.store import Data, Store, known_fingerprint, open_store
from raysd.errors import BadInput
from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.results.tables import StudyTable, study_tables
from raysd.study.design import LoadedStudy, Trial, trials_of
from raysd.study.plan import Plan, make_plan
from raysd.trial import Place, Run, scored


@dataclass(frozen=True)
class Session:
    """One study, one results root, and the data root where there is one."""

    study: LoadedStudy
    results: Results
    data_root: Path | None
    cache: Path
    skip_bad: bool = False
    _stores: dict[Data, Store] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Those that were opened: to find one again lists and stats every clip of the corpus."""

    def decode(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Builds the stores that the study's trials read, where they are not there yet."""
        if self.data_root is not None:
            for data in self._data():
                self._stores[data] = open_store(self.data_root, data, self.cache, self.skip_bad, progress)

    def fingerprint(self, recipe: Recipe) -> str | None:
        """The fingerprint of the recipe's data; None without a data root, or before its clips are decoded."""
        return self._known().get(recipe.data)

    def plan(self) -> Plan:
        """What is there, what is missing, and what it would cost."""
        results, known, data = self.results, self._known(), self.study.baseline.recipe.data
        clips = None
        if self.data_root is not None and known[data]:
            store = self._stores.get(data) or open_store(self.data_root, data, self.cache, self.skip_bad)
            clips = len(store.clips)
        return make_plan(
            self.study,
            (lambda recipe: known[recipe.data] or "") if all(known.values()) else None,
            results.done(),
            results.trained(),
            results.timings(),
            results.sizes(),
            clips,
        )

    def missing(self) -> list[Trial]:
        """The trials that are not in the results, in the order in which they are to be run. The clips are decoded."""
        known, done = self._known(), self.results.done()
        return [
            trial for trial in trials_of(self.study, lambda recipe: known[recipe.data] or "") if trial.key not in done
        ]

    def tables(self) -> list[StudyTable]:
        """The study's table for its data; without a data root one for each corpus that the results hold."""
        return study_tables(self.study, self.results, self.fingerprint(self.study.baseline.recipe))

    def place(self, command: tuple[str, ...] = ()) -> Place:
        """Where the study's trials find their data and leave their results."""
        root = self.data_root or Path()
        return Place(
            root, self.cache, self.results.root, self.study.name, self.study.profile, self.skip_bad, command=command
        )

    def rescore(self) -> tuple[int, list[Trial]]:
        """Scores what is embedded already and has no record yet, without any training or audio.

        Gives the number of records written, and the trials that would have to be trained first (`raysd run`). Raises
        BadInput for a data root whose clips are not decoded, so that nothing is known of them.
        """
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
