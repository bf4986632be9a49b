"""What a search has found on one corpus: its suggestions with the records of their trials."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from raysd.detect.metrics import ALL_MACHINES, averaging, headline_metrics
from raysd.detect.proxies import objective_value
from raysd.errors import BadInput
from raysd.paper.search_table import SearchRow, SearchTable
from raysd.results.provenance import train_sets
from raysd.results.searches import STATES, SearchLog, Suggestion
from raysd.results.store import Results
from raysd.study.design import LoadedStudy, trials_of
from raysd.study.files import Search
from raysd.study.search import objective_metric, search_name, settings_of

COLUMNS = ("key", "seed", "year", "recipe", "metrics", "history")
"""What is read of each trial's record."""


@dataclass(frozen=True)
class Searched:
    """A search on one corpus, as far as it has come."""

    study: LoadedStudy
    fingerprint: str
    suggestions: tuple[Suggestion, ...]
    """In the order in which they were made; the baseline first."""
    references: dict[str, str]
    """Name -> key of the trial of each reference."""
    trials: dict[str, dict[str, Any]]
    """Key -> `COLUMNS` of the record, of every suggestion and reference whose trial is in the results."""

    @property
    def settings(self) -> Search:
        return settings_of(self.study)

    @property
    def objective(self) -> str:
        """The metric that the search maximises."""
        return objective_metric(self.study)

    @property
    def finished(self) -> tuple[Suggestion, ...]:
        """Those with a final objective, the best first; of equal ones the earlier."""
        done = [one for one in self.suggestions if one.state == "done" and one.value is not None]
        return tuple(sorted(done, key=lambda one: (-(one.value or 0.0), one.number)))

    def metric(self, suggestion: Suggestion, name: str) -> float | None:
        """A metric of the suggestion's trial over all machines and parts; None where there is none."""
        trial = self.trials.get(suggestion.key)
        if trial is None:
            return None
        try:
            value = objective_value(pd.DataFrame(trial["metrics"]), name, trial["year"])
        except BadInput:  # its clips give no such metric
            return None
        return value if math.isfinite(value) else None

    def table(self) -> SearchTable:
        """The table of what the search has found."""
        study, recipe = self.study, self.study.baseline.recipe
        year = recipe.data.year
        rest = [one for one in self.suggestions if one not in self.finished]
        rest.sort(
            key=lambda one: (STATES.index(one.state), -max(one.rungs, default=0), -(one.value or 0.0), one.number)
        )
        rows = [self._suggested(one) for one in (*self.finished, *rest)]
        rows += [self._reference(name, key) for name, key in self.references.items()]
        metrics = sorted(headline_metrics(year), key=lambda metric: metric != study.study.metric)
        parts = sorted({part for row in rows for part, _ in row.metrics})
        return SearchTable(
            study=study.name,
            question=study.study.question,
            profile=study.profile,
            year=year,
            fingerprint=self.fingerprint,
            train_sets=train_sets(recipe.data.additional),
            objective=self.objective,
            held_out=self.settings.held_out,
            oracle=study.oracle,
            seed=study.study.seeds[0],
            machines=self._machines(),
            columns=tuple((part, metric) for part in parts for metric in metrics),
            factors=tuple(study.study.factors),
            rows=tuple(rows),
        )

    def _suggested(self, one: Suggestion) -> SearchRow:
        role, trial = "baseline" if one.number == 0 else "variant", self.trials.get(one.key)
        epochs = len(trial["history"]) if trial else max(one.rungs, default=None)
        metrics = _headline(trial)
        return SearchRow(one.name, role, one.state, one.key, one.number, one.value, epochs, metrics, one.choices)

    def _reference(self, name: str, key: str) -> SearchRow:
        trial = self.trials.get(key)
        epochs = len(trial["history"]) if trial else None
        state = "done" if trial else "missing"
        return SearchRow(name, "reference", state, key, None, None, epochs, _headline(trial), {})

    def _machines(self) -> tuple[str, ...]:
        """The machines that were scored: the same in all trials."""
        first = next(iter(self.trials.values()), {"metrics": []})
        return tuple(sorted({row["machine"] for row in first["metrics"]} - {ALL_MACHINES}))


def searched(study: LoadedStudy, results: Results, fingerprint: str | None = None) -> list[Searched]:
    """The search on the corpus of `fingerprint`, or on each corpus on which the results hold something of it."""
    corpora = {fingerprint} if fingerprint else {row["data_fingerprint"] for row in results.rows(["data_fingerprint"])}
    found = []
    for corpus in sorted(corpora):
        suggestions = SearchLog(results, search_name(study, corpus)).read()
        if suggestions:
            references = {trial.variant: trial.key for trial in trials_of(study, corpus) if trial.role == "reference"}
            rows = results.rows(COLUMNS, {*(one.key for one in suggestions), *references.values()})
            trials = {row["key"]: row for row in rows}
            found.append(Searched(study, corpus, tuple(suggestions), references, trials))
    return found


def search_tables(study: LoadedStudy, results: Results, fingerprint: str | None = None) -> list[SearchTable]:
    """The table of the search on that corpus, or one for each corpus. Raises BadInput where there is nothing yet."""
    found = searched(study, results, fingerprint)
    if not found:
        on = f" on the data {fingerprint}" if fingerprint else ""
        raise BadInput(f"{results}: nothing of the search {study.name}{on}; first: raysd run {study.name}")
    return [one.table() for one in found]


def _headline(trial: dict[str, Any] | None) -> dict[tuple[str, str], float]:
    """The year's headline metrics of a trial over all machines, by part and name; nothing without a record."""
    if trial is None:
        return {}
    section, headline = averaging(trial["year"]), headline_metrics(trial["year"])
    return {
        (row["part"], row["metric"]): row["value"]
        for row in trial["metrics"]
        if row["machine"] == ALL_MACHINES and row["section"] == section and row["metric"] in headline
    }
