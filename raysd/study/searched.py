"""What a search has found on one corpus: its suggestions with the records of their trials."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from raysd.detect.proxies import objective_value
from raysd.errors import BadInput
from raysd.results.search_table import SearchTable, search_table
from raysd.results.searches import SearchLog, Suggestion
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
    return [search_table(one) for one in found]
