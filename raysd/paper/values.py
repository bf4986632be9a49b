"""What a study's table is made of: the values of its trials, read from the results."""

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raysd.detect.metrics import averaging, headline_metrics
from raysd.detect.proxies import PROXIES
from raysd.recipe import NUMERICS, recipe_key
from raysd.results.store import Results

if TYPE_CHECKING:
    from raysd.study.design import LoadedStudy, Variant

At = tuple[str, str, str]
"""Part, machine, metric."""
_CHUNKS = 1000
_COLUMNS = ("key", "recipe_key", "seed", "data_fingerprint", "provenance", "metrics")


@dataclass(frozen=True)
class Cell:
    """One variant on one machine by one metric: a value of each seed, and the trial behind it."""

    values: dict[int, float] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)

    @cached_property
    def mean(self) -> float:
        """NaN without values. Summed exactly, so that the order and the machine change nothing."""
        return math.fsum(self.values.values()) / len(self.values) if self.values else math.nan

    @cached_property
    def sd(self) -> float:
        """The sample standard deviation over seeds; NaN with fewer than two."""
        squares = math.fsum((value - self.mean) ** 2 for value in self.values.values())
        return math.sqrt(squares / (len(self.values) - 1)) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class Row:
    """One variant; `cells` by (part, machine, metric)."""

    variant: str
    role: str
    wanted: int
    """Seeds that the study asks for."""
    found: int
    """Finished trials."""
    cells: dict[At, Cell]
    levels: Mapping[str, str] = field(default_factory=dict)
    """Factor -> level, of a row that a design of factors made."""

    @property
    def label(self) -> str:
        return f"{self.variant} (reference)" if self.role == "reference" else self.variant

    def cell(self, part: str, machine: str, metric: str) -> Cell:
        """Empty where there is no value."""
        return self.cells.get((part, machine, metric)) or Cell()


@dataclass(frozen=True)
class FoundTrial:
    """A finished trial of a study, with the headline metrics of each machine in the year's own kind of mean."""

    key: str
    recipe_key: str
    seed: int
    fingerprint: str
    origin: dict[str, Any]
    """Its provenance."""
    values: dict[At, float]


def found_trials(study: "LoadedStudy", results: Results) -> tuple[list[FoundTrial], int]:
    """The finished trials of the study's own recipes and seeds, whichever study ran them and on whatever corpus.

    And how many were left out, as they are of another revision of the numerics.
    """
    seeds = {recipe_key(variant.recipe): set(study.seeds_of(variant)) for variant in study.variants}
    about = results.table(["key", "recipe_key", "numerics", "seed"])
    columns = (about[name].to_pylist() for name in about.column_names)
    found = [row for row in zip(*columns, strict=True) if row[3] in seeds.get(row[1], ())]
    current = {key for key, _, numerics, _ in found if numerics == NUMERICS}
    return _read(results, current, study.baseline.recipe.data.year), len(found) - len(current)


def _read(results: Results, keys: Collection[str], year: int) -> list[FoundTrial]:
    table = results.table(_COLUMNS, keys)
    values = _headline_values(table["metrics"], year)
    columns = [table[name].to_pylist() for name in _COLUMNS[:-1]]
    origins = {text: json.loads(text) for text in set(columns[-1])}  # trials of one run often have one text
    return [
        FoundTrial(key, recipe, seed, corpus, origins[text], own)
        for key, recipe, seed, corpus, text, own in zip(*columns, values, strict=True)
    ]


def _headline_values(metrics: pa.ChunkedArray, year: int) -> list[dict[At, float]]:
    """Of each trial. Chosen by Arrow: of hundreds of entries a trial, few are made Python objects."""
    values: list[dict[At, float]] = [{} for _ in range(len(metrics))]
    start = 0
    for first in range(0, metrics.num_chunks, _CHUNKS):  # which are often of one trial each
        chunk = pa.concat_arrays(metrics.chunks[first : first + _CHUNKS])
        entries = pa.RecordBatch.from_struct_array(chunk.flatten())
        own_mean, headline = (
            _among(entries["section"], {averaging(year)}),
            _among(entries["metric"], {*headline_metrics(year), *PROXIES}),
        )
        chosen = np.flatnonzero(own_mean & headline)
        trials = chunk.value_parent_indices().to_numpy()[chosen].tolist()
        places = [_texts(entries[name].take(pa.array(chosen))) for name in ("part", "machine", "metric")]
        numbers = entries["value"].to_numpy()[chosen].tolist()
        for trial, at, number in zip(trials, zip(*places, strict=True), numbers, strict=True):
            values[start + trial][at] = number
        start += len(chunk)
    return values


def _among(texts: pa.StringArray, wanted: Collection[str]) -> np.ndarray:
    """(num_texts,) bool."""
    encoded = texts.dictionary_encode()
    codes = [code for code, text in enumerate(encoded.dictionary.to_pylist()) if text in wanted]
    return np.isin(encoded.indices.to_numpy(zero_copy_only=False), codes)


def _texts(texts: pa.StringArray) -> list[str]:
    """Equal ones as one object: few, of very many."""
    encoded = texts.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    return [names[code] for code in encoded.indices.to_pylist()]


def rows_of(
    study: "LoadedStudy", trials: Collection[FoundTrial], corpus: str
) -> tuple[list[Row], list[FoundTrial], list[str]]:
    """A row for each variant on one corpus, the trials that are in them, and what a reader should know.

    A variant with data settings of its own has its own corpus, whichever that is.
    """
    own: dict[str, list[FoundTrial]] = {}
    for trial in trials:
        own.setdefault(trial.recipe_key, []).append(trial)
    rows, used, notes = [], list[FoundTrial](), []
    for variant in study.variants:
        found = own.get(recipe_key(variant.recipe), [])
        if on_same_data(study, variant):
            found = [trial for trial in found if trial.fingerprint == corpus]
        elif len({trial.fingerprint for trial in found}) > 1:  # its own data settings, run on several corpora
            notes.append(f"'{variant.name}' left out: its data differ, and it was run on several corpora")
            found = []
        wanted, cells = len(study.seeds_of(variant)), _cells(found)
        rows.append(Row(variant.name, variant.role, wanted, len(found), cells, variant.levels))
        used += found
    return rows, used, notes


def on_same_data(study: "LoadedStudy", variant: "Variant") -> bool:
    """Whether the variant has the data settings of the baseline."""
    return variant.recipe.data == study.baseline.recipe.data


def _cells(trials: Collection[FoundTrial]) -> dict[At, Cell]:
    cells: dict[At, Cell] = {}
    for trial in trials:
        for at, value in trial.values.items():
            cell = cells.get(at)
            if cell is None:
                cell = cells[at] = Cell()
            cell.values[trial.seed] = value
            cell.keys[trial.seed] = trial.key
    return cells


def revisions(origins: Collection[Mapping[str, Any]]) -> list[str]:
    """The commits that provenances name, each with how many of them do where there are several; "dirty" is told."""
    counts = Counter(revision(origin) for origin in origins)
    several = len(counts) > 1
    return [f"{name} ({num} trial{'s' * (num > 1)})" if several else name for name, num in counts.most_common()]


def revision(origin: Mapping[str, Any]) -> str:
    """The commit of one provenance, in words."""
    if not origin.get("commit"):
        return "not known"
    return f"{origin['commit'][:12]}" + (" with changes that are not committed" if origin.get("dirty") else "")
