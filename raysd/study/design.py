"""A study file -> its variants -> its trials. Pure: reads files, launches nothing."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from raysd.detect.metrics import headline_metrics
from raysd.errors import BadInput, nearest
from raysd.recipe import Recipe, recipe_key, training_key, trial_key
from raysd.settings import difference, parse, read_yaml, with_changes
from raysd.study.files import Changes, Factor, Study, beside, find_study, load_recipe, shown

MOST_VARIANTS = 100_000
"""A larger factorial design is refused: it is a slip."""

Role = Literal["baseline", "variant", "reference"]


@dataclass(frozen=True)
class Variant:
    """One row of a study."""

    name: str
    recipe: Recipe
    changed: dict[str, tuple[Any, Any]]
    """Dotted path -> (value in the baseline, value here)."""
    role: Role


@dataclass(frozen=True)
class LoadedStudy:
    """A study file with its variants made: the baseline first, references last."""

    name: str
    study: Study
    variants: tuple[Variant, ...]
    notes: tuple[str, ...]
    """What a reader should know of how the variants came about: which were merged."""
    path: Path
    profile: str | None

    @property
    def baseline(self) -> Variant:
        return self.variants[0]

    def seeds_of(self, variant: Variant) -> tuple[int, ...]:
        """The seeds that the variant is run with: one where nothing in it depends on the seed."""
        return self.study.seeds if _depends_on_seed(variant.recipe) else self.study.seeds[:1]


@dataclass(frozen=True)
class Trial:
    """One variant with one seed on one corpus."""

    variant: str
    role: Role
    recipe: Recipe
    seed: int
    fingerprint: str

    @cached_property
    def key(self) -> str:
        return trial_key(self.recipe, self.seed, self.fingerprint)

    @cached_property
    def training_key(self) -> str:
        return training_key(self.recipe, self.seed, self.fingerprint)


def load_study(
    name_or_path: str | Path,
    overrides: Changes | None = None,
    profile: str | None = None,
    seeds: tuple[int, ...] | None = None,
) -> LoadedStudy:
    """A study with its variants.

    `overrides` are changes by dotted path: of the study where the path starts with one of its keys (`seeds`,
    `scale.cpus_per_worker`), else of the baseline recipe, from which all variants start. `profile` and `seeds` replace
    the study's own. Raises BadInput with the file and the path in it for anything that cannot be used.
    """
    path = find_study(name_or_path)
    where, values = shown(path), read_yaml(path)
    study = parse(Study, values, where)
    own = {key: value for key, value in (overrides or {}).items() if key.split(".")[0] in Study.model_fields}
    own |= {key: value for key, value in (("profile", profile), ("seeds", seeds)) if value is not None}
    if own:
        study = parse(Study, _replaced(values, own), f"{where} with {', '.join(own)} set")

    of_recipe = {key: value for key, value in (overrides or {}).items() if key not in own}
    recipe = _baseline(study, path, where, of_recipe)
    if study.metric not in headline_metrics(recipe.data.year):
        allowed = nearest(study.metric, headline_metrics(recipe.data.year))
        raise BadInput(f"{where}: metric: '{study.metric}' is no metric of {recipe.data.year}; {allowed}")

    variants = {recipe_key(recipe): Variant("baseline", recipe, {}, "baseline")}
    notes: list[str] = []
    for name, changed in _named_recipes(study, recipe, where):
        _add(variants, notes, Variant(name, changed, difference(recipe, changed), "variant"), where)
    for file in study.references:
        reference = load_recipe(beside(path, file, "references")).recipe
        reference = reference.model_copy(update={"data": recipe.data})  # a row on the same recordings
        row = Variant(Path(file).stem, reference, difference(recipe, reference), "reference")
        _add(variants, notes, row, where)
    return LoadedStudy(path.stem, study, tuple(variants.values()), tuple(notes), path, study.profile)


def trials_of(study: LoadedStudy, fingerprint: str | Callable[[Recipe], str]) -> list[Trial]:
    """All trials, seed by seed and the baseline first, so that a study broken off is fair to all variants.

    `fingerprint` of the corpus; or what gives it for a recipe, where variants differ in their data settings.
    """
    known: dict[str, Trial] = {}
    prints = [fingerprint if isinstance(fingerprint, str) else fingerprint(row.recipe) for row in study.variants]
    for seed in study.study.seeds:
        for row, data in zip(study.variants, prints, strict=True):
            if seed in study.seeds_of(row):
                trial = Trial(row.name, row.role, row.recipe, seed, data)
                known.setdefault(trial.key, trial)
    return list(known.values())


# --- the baseline -----------------------------------------------------------------------------------------------------


def _baseline(study: Study, path: Path, where: str, overrides: Changes) -> Recipe:
    file = beside(path, study.baseline, "baseline")
    loaded = load_recipe(file)
    recipe = loaded.recipe
    if study.profile is not None:
        if study.profile not in loaded.profiles:
            raise BadInput(f"{shown(file)}: no profile '{study.profile}'; {nearest(study.profile, loaded.profiles)}")
        recipe = with_changes(recipe, loaded.profiles[study.profile], f"{shown(file)}: profiles.{study.profile}")
    recipe = with_changes(recipe, study.changes, f"{where}: changes")
    return with_changes(recipe, overrides, "--set")


def _replaced(values: Changes, changes: Changes) -> Changes:
    """Plain values with some replaced, given by dotted path."""
    replaced = json.loads(json.dumps(values))
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = replaced
        for key in parents:
            if not isinstance(node.get(key), dict):
                node[key] = {}
            node = node[key]
        node[last] = value
    return replaced


def _depends_on_seed(recipe: Recipe) -> bool:
    return type(recipe.encoder).trains or recipe.scoring.name == "gaussian_mixture"


def _add(variants: dict[str, Variant], notes: list[str], new: Variant, where: str) -> None:
    """Adds a variant by its recipe; one that is there already is merged with it, and that is noted."""
    known = variants.setdefault(recipe_key(new.recipe), new)
    if known is not new:
        twice = known.name == new.name
        notes.append(f"'{new.name}' is made twice" if twice else f"'{new.name}' is the same recipe as '{known.name}'")
    elif any(other.name == new.name for other in variants.values() if other is not new):
        raise BadInput(f"{where}: two different variants have the name '{new.name}'; name one of them otherwise")


# --- designs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Level:
    factor: str
    name: str
    changes: Changes
    off: bool
    where: str

    @property
    def alone(self) -> str:
        return f"without {self.factor}" if self.off else f"{self.factor}={self.name}"


_Choices = list[list[_Level]]
"""The levels of each factor."""
_Picks = tuple[_Level, ...]
"""What a variant changes."""


def _one_at_a_time(factors: _Choices) -> Iterator[tuple[str, _Picks]]:
    return ((level.alone, (level,)) for levels in factors for level in levels if level.changes)


def _leave_one_out(factors: _Choices) -> Iterator[tuple[str, _Picks]]:
    return ((level.alone, (level,)) for levels in factors for level in levels if level.off)


def _only_one(factors: _Choices) -> Iterator[tuple[str, _Picks]]:
    offs = [level for levels in factors for level in levels if level.off]
    yield "none", tuple(offs)
    for kept in offs:
        yield f"only {kept.factor}", tuple(off for off in offs if off is not kept)


def _factorial(factors: _Choices) -> Iterator[tuple[str, _Picks]]:
    for picks in product(*factors):
        yield ", ".join(f"{level.factor}={level.name}" for level in picks), picks


DESIGNS: dict[str, Callable[[_Choices], Iterator[tuple[str, _Picks]]]] = {
    "one_at_a_time": _one_at_a_time,
    "leave_one_out": _leave_one_out,
    "only_one": _only_one,
    "factorial": _factorial,
}
"""Every design that is made of factors, by name."""


def _named_recipes(study: Study, baseline: Recipe, where: str) -> Iterator[tuple[str, Recipe]]:
    factors = [_levels(name, factor, where) for name, factor in study.factors.items()]
    if "factorial" in study.design and math.prod(map(len, factors)) > MOST_VARIANTS:
        raise BadInput(
            f"{where}: design: the factorial design has more than {MOST_VARIANTS:,} variants; use fewer levels"
        )
    for design in study.design:
        for levels in factors if design in ("leave_one_out", "only_one") else []:
            if not any(level.off for level in levels):
                raise BadInput(f"{where}: factors.{levels[0].factor}: design {design} needs to know what 'off' is")
        if design == "list":
            for name, changes in study.variants.items():
                yield name, with_changes(baseline, changes, f"{where}: variants.{name}")
            continue
        for name, picks in DESIGNS[design](factors):
            yield name, _applied(baseline, picks, f"{where}: design {design}, variant '{name}'")


def _levels(name: str, factor: Factor, where: str) -> list[_Level]:
    where = f"{where}: factors.{name}"
    if isinstance(factor.levels, dict):
        return [
            _Level(name, level, changes, level == "off", f"{where}.levels.{level}")
            for level, changes in factor.levels.items()
        ]
    setting = factor.setting or ""
    levels = [_Level(name, "on", {}, False, where)]
    if factor.levels is not None:
        levels = [
            _Level(name, _text(value), {setting: value}, False, f"{where}.levels[{i}]")
            for i, value in enumerate(factor.levels)
        ]
    if factor.levels is None or "off" in factor.model_fields_set:
        levels.append(_Level(name, "off", {setting: factor.off}, True, f"{where}.off"))
    return levels


def _applied(baseline: Recipe, picks: _Picks, where: str) -> Recipe:
    """The baseline with the picked levels. What is off goes last: a setting of a part that is off leaves it off."""
    try:
        recipe = baseline
        for off in (False, True):
            changes: Changes = {}
            for level in picks:
                if level.off is off:
                    both = changes.keys() & level.changes.keys()
                    if both:
                        raise BadInput(f"{where}: two factors set {both.pop()}; in one variant they exclude each other")
                    changes |= level.changes
            if changes:
                recipe = with_changes(recipe, changes, picks[0].where if len(picks) == 1 else where)
        return recipe
    except BadInput:
        if len(picks) > 1:
            for level in picks:  # a level that fails alone is the culprit, and has a better address
                with_changes(baseline, level.changes, level.where)
        raise


def _text(value: Any) -> str:
    """A level's value as a table names it."""
    if isinstance(value, dict) and list(value) == ["name"]:
        return str(value["name"])
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
