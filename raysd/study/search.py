"""The design `search`: Optuna suggests recipes within a study's factors; what became of each stands in a log.

All that a suggestion depends on is in the log and in the study file. So a search whose driver was killed goes on as if
it had not been, and one that runs a trial at a time suggests the same recipes whenever it is run.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from raysd.detect.proxies import objective_value
from raysd.errors import BadInput
from raysd.recipe import NUMERICS, Recipe
from raysd.results.searches import SearchLog, Suggestion
from raysd.results.store import Results
from raysd.settings import Settings, flatten, with_changes
from raysd.study.design import LoadedStudy, Trial
from raysd.study.files import Factor, Search
from raysd.study.levels import Level, has_meaning, levels_of
from raysd.study.places import shown

optuna.logging.set_verbosity(optuna.logging.WARNING)  # its own account of every suggestion

_STATES = {"asked": TrialState.RUNNING, "done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


@dataclass(frozen=True)
class Dimension:
    """One factor of a search."""

    name: str
    factor: Factor
    levels: dict[str, Level]
    """By name; empty for a range."""

    @property
    def distribution(self) -> BaseDistribution:
        """What Optuna draws from."""
        numbers = self.factor.range
        if numbers is None:
            return CategoricalDistribution(list(self.levels))
        if isinstance(numbers.low, int) and isinstance(numbers.high, int):
            return IntDistribution(numbers.low, numbers.high, log=numbers.log)
        return FloatDistribution(numbers.low, numbers.high, log=numbers.log)

    def suggested(self, trial: optuna.Trial) -> Any:
        """What Optuna suggests."""
        match self.distribution:
            case IntDistribution() as whole:
                return trial.suggest_int(self.name, whole.low, whole.high, log=whole.log)
            case FloatDistribution() as number:
                return trial.suggest_float(self.name, number.low, number.high, log=number.log)
        return trial.suggest_categorical(self.name, list(self.levels))

    def changes(self, choice: Any) -> dict[str, Any]:
        """Dotted path -> value, of a number or the name of a level."""
        return {self.factor.setting or "": choice} if self.factor.range else dict(self.levels[choice].changes)

    def choice_of(self, recipe: Recipe) -> Any:
        """The number or level that a recipe has already; None where it is not in the space."""
        if self.factor.range is None:
            same = (name for name, level in self.levels.items() if with_changes(recipe, level.changes, "") == recipe)
            return next(same, None)
        value = flatten(recipe, defaults=True).get(self.factor.setting or "")
        inside = isinstance(value, int | float) and self.factor.range.low <= value <= self.factor.range.high
        return value if inside else None


def space(study: LoadedStudy) -> list[Dimension]:
    """The factors of a search, in the order of the file."""
    where = shown(study.path)
    return [
        Dimension(name, factor, {} if factor.range else {level.name: level for level in levels_of(name, factor, where)})
        for name, factor in study.study.factors.items()
    ]


def settings_of(study: LoadedStudy) -> Search:
    """How the search goes about it."""
    assert study.study.search is not None
    return study.study.search


def objective_metric(study: LoadedStudy) -> str:
    """The metric that is maximised: a proxy from normal clips alone, or, for an oracle, the study's metric."""
    settings = settings_of(study)
    return study.study.metric if settings.oracle else f"proxy_{settings.objective}"


def search_name(study: LoadedStudy, fingerprint: str) -> str:
    """Names the log of a search: from its study, and from all that decides what is suggested and how it is judged.

    The number of suggestions has no part in it, so that a search can be made longer; nor has a setting at its default,
    so that one added later ends no search.
    """
    decides = {
        "baseline": flatten(study.baseline.recipe),
        # what was written: `off: null` beside levels is one level more
        "factors": [(name, it.model_dump(mode="json", exclude_unset=True)) for name, it in study.study.factors.items()],
        "search": _said(settings_of(study), {"suggestions"}),
        "pruning": study.study.pruning and _said(study.study.pruning),
        "metric": objective_metric(study),
        "seed": study.study.seeds[0],
        "data": fingerprint,
        "numerics": NUMERICS,
    }
    return f"{study.name}-{hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]}"


def _said(settings: Settings, but: set[str] | None = None) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude_defaults=True, exclude=but)


def build_optuna(study: LoadedStudy, suggestions: Iterable[Suggestion], sampler_seed: int = 0) -> optuna.Study:
    """An Optuna study in memory that was told all of `suggestions`; those under way are running in it.

    The baseline is left out where its values lie outside the space; what failed too.
    """
    sampler = optuna.samplers.TPESampler(n_startup_trials=settings_of(study).random_first, seed=sampler_seed)
    told = optuna.create_study(direction="maximize", sampler=sampler)
    dimensions = space(study)
    for suggestion in suggestions:
        recipe, complete = study.baseline.recipe, True
        for dimension in dimensions:  # which of them had a meaning shows on the way
            if has_meaning(dimension.factor, recipe):
                complete &= dimension.name in suggestion.choices
                if dimension.name in suggestion.choices:
                    changes = dimension.changes(suggestion.choices[dimension.name])
                    recipe = with_changes(recipe, changes, f"suggestion {suggestion.number}")
        if not complete or suggestion.state == "failed":
            continue
        told.add_trial(
            optuna.trial.create_trial(
                state=_STATES[suggestion.state],
                value=suggestion.value if suggestion.state == "done" else None,
                params=suggestion.choices,
                distributions={d.name: d.distribution for d in dimensions if d.name in suggestion.choices},
                intermediate_values=suggestion.rungs,
                user_attrs={"number": suggestion.number},
            )
        )
    return told


class StudySearch:
    """Gives the trials of a search one after another, and writes down what became of them."""

    def __init__(self, study: LoadedStudy, fingerprint: str, results: Results) -> None:
        self.study, self.fingerprint, self.results = study, fingerprint, results
        self.log = SearchLog(results, search_name(study, fingerprint))
        self._known = {suggestion.number: suggestion for suggestion in self.log.read()}
        self._again = [one.number for one in self._known.values() if one.state == "asked"]
        for number in list(self._again):  # finished, and its driver died before it could say so
            if results.has(self._known[number].key):
                self._again.remove(number)
                self._end(self._known[number], "done")

    @property
    def suggestions(self) -> list[Suggestion]:
        """All so far, in order."""
        return [self._known[number] for number in sorted(self._known)]

    @property
    def left(self) -> int:
        """How many have not ended, those included that were not suggested yet."""
        return max(settings_of(self.study).suggestions, len(self._known)) - sum(
            one.state != "asked" for one in self._known.values()
        )

    def next(self) -> Trial | None:
        """The next to run; None when all have been suggested."""
        while self._again or len(self._known) < settings_of(self.study).suggestions:
            suggestion = self._known[self._again.pop(0)] if self._again else self._suggest()
            self._keep(suggestion)
            if suggestion.state == "asked":
                return self.trial(suggestion)
        return None

    def trial(self, suggestion: Suggestion) -> Trial:
        """The trial of a suggestion."""
        recipe = with_changes(self.study.baseline.recipe, suggestion.changes, suggestion.name)
        role = "baseline" if suggestion.number == 0 else "variant"
        return Trial(suggestion.name, role, recipe, self.study.study.seeds[0], self.fingerprint)

    def done(self, key: str) -> None:
        """A trial has its record."""
        for suggestion in self._under_way(key):
            self._end(suggestion, "done")

    def pruned(self, key: str) -> None:
        """A trial was given up."""
        for suggestion in self._under_way(key):
            self._end(suggestion, "pruned")

    def failed(self, key: str, kind: str) -> None:
        """A trial failed; one that only had no luck with its process, and the baseline, are run again another time."""
        for suggestion in self._under_way(key):
            if kind != "infrastructure" and suggestion.number > 0:
                self._keep(replace(suggestion, state="failed"))

    def _suggest(self) -> Suggestion:
        """A new suggestion. One that was made before ends at once, as that did; one that is no recipe has failed."""
        number, seed = len(self._known), settings_of(self.study).seed
        if number == 0:
            baseline = Suggestion(0, dict(self._baseline_choices()), {}, "")
            return replace(baseline, key=self.trial(baseline).key)
        digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
        asked = build_optuna(self.study, self.suggestions, int.from_bytes(digest[:4], "little")).ask()
        recipe, choices, changes = self.study.baseline.recipe, dict[str, Any](), dict[str, Any]()
        try:
            for dimension in space(self.study):
                if has_meaning(dimension.factor, recipe):
                    choices[dimension.name] = dimension.suggested(asked)
                    recipe = with_changes(recipe, dimension.changes(choices[dimension.name]), f"suggestion {number}")
                    changes |= dimension.changes(choices[dimension.name])
        except BadInput:  # levels that exclude each other
            return Suggestion(number, choices, changes, "", "failed")
        suggestion = Suggestion(number, choices, changes, "")
        suggestion = replace(suggestion, key=self.trial(suggestion).key)
        for earlier in self.suggestions:
            if earlier.key == suggestion.key and earlier.state != "asked":
                return replace(suggestion, state=earlier.state, value=earlier.value)
        return suggestion

    def _baseline_choices(self) -> Iterator[tuple[str, Any]]:
        recipe = self.study.baseline.recipe
        for dimension in space(self.study):
            choice = dimension.choice_of(recipe)
            if choice is not None and has_meaning(dimension.factor, recipe):
                yield dimension.name, choice

    def _under_way(self, key: str) -> list[Suggestion]:
        return [one for one in self._known.values() if one.key == key and one.state == "asked"]

    def _end(self, suggestion: Suggestion, state: Any) -> None:
        seen = self.log.values_of(suggestion.key) if self.study.study.pruning else {}
        if state == "done":
            metrics = pd.DataFrame(self.results.read(suggestion.key).metrics)
            value = objective_value(metrics, objective_metric(self.study), self.study.baseline.recipe.data.year)
        else:
            value = seen[max(seen)] if seen else None
        self._keep(replace(suggestion, state=state, value=value, rungs=seen))

    def _keep(self, suggestion: Suggestion) -> None:
        self._known[suggestion.number] = suggestion
        self.log.write(suggestion)
