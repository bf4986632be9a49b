"""A study file -> its variants -> its trials. Pure: reads files, launches nothing."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from raysd.errors import BadInput, nearest
from raysd.model.features import EfficientATMel
from raysd.recipe import Recipe, pin_all, recipe_key, training_key, trial_key
from raysd.settings import difference, parse, with_changes
from raysd.study.extends import Source, StudyFile, read_study
from raysd.study.files import Changes, Chosen, RecipeFile, Study, check_metric, load_recipe
from raysd.study.levels import Choice, Conditions, Level, choice_of, has_meaning, meaningful, own_level, with_levels
from raysd.study.places import beside, find_study, shown

MOST_VARIANTS, MOST_TRIALS = 100_000, 1_000_000
"""More are refused: they are a slip."""

Pin = Callable[[str, Path], str]
Role = Literal["baseline", "variant", "reference"]


@dataclass(frozen=True)
class Variant:
    """One row of a study."""

    name: str
    recipe: Recipe
    changed: dict[str, tuple[Any, Any]]
    """Dotted path -> (value in the baseline, value here)."""
    role: Role
    levels: dict[str, str] = field(default_factory=dict)
    """Factor -> level, of a row that a design of factors makes, without factors that mean nothing there; else empty."""


@dataclass(frozen=True)
class LoadedStudy:
    """A study file with its variants made: the baseline first, references last."""

    name: str
    study: Study
    variants: tuple[Variant, ...]
    notes: tuple[str, ...]
    """What a reader should know of how the variants came about: which were merged."""
    file: StudyFile
    choices: tuple[Choice, ...]
    """The factors with their levels, in the order of the file."""
    sources: tuple[Source, ...]
    """Every other file that the study was made of."""
    chosen: dict[str, Chosen]
    """Name of a recipe file -> how a search came to it, where one did."""

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def profile(self) -> str | None:
        return self.study.profile

    @property
    def baseline(self) -> Variant:
        return self.variants[0]

    @cached_property
    def own_levels(self) -> dict[str, str]:
        """Factor -> the baseline's level; what it has instead, where that is none of the factor's."""
        return {choice.name: own_level(choice, self.baseline.recipe).name for choice in self.choices}

    @property
    def oracle(self) -> bool:
        """Whether labels of test clips have chosen anything in it."""
        by_search = self.study.search is not None and self.study.search.oracle
        return by_search or any(chosen.oracle for chosen in self.chosen.values())

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
    pin: Pin = lambda said, folder: said,
) -> LoadedStudy:
    """A study with its variants.

    `overrides` are changes by dotted path: of the study where the path starts with one of its keys (`seeds`,
    `scale.cpus_per_worker`), else of the baseline recipe, from which all variants start. `profile` and `seeds` replace
    the study's own. `pin` takes what names a checkpoint, and the folder of the file that says so, and gives a name that
    depends on its content alone. Raises BadInput with the file and the path in it for anything that cannot be used.
    """
    file = read_study(find_study(name_or_path)).pinned(pin)
    changes: Changes = pin_all(overrides or {}, lambda said: pin(said, Path()))
    study = parse(Study, file.values, file.where)
    own = {key: value for key, value in changes.items() if key.split(".")[0] in Study.model_fields}
    own |= {key: value for key, value in (("profile", profile), ("seeds", seeds)) if value is not None}
    if "extends" in own:
        raise BadInput("--set extends: only a study file can say what it extends")
    if own:
        file = file.with_values(own)
        study = parse(Study, file.values, f"{shown(file.path)} with {', '.join(own)} set")

    recipes = _Recipes(file, pin)
    of_recipe = {key: value for key, value in changes.items() if key not in own}
    recipe = _baseline(study, recipes, of_recipe)
    check_metric(study.metric, recipe, file.where("metric"))

    choices = tuple(choice_of(name, factor, file.where(f"factors.{name}")) for name, factor in study.factors.items())
    rows = _Rows(recipe, shown(file.path))
    for name, changed, levels in _named_recipes(study, choices, recipe, recipes, rows):
        rows.add(name, changed, "variant", levels)
    for named in study.references:
        reference = recipes.load(named, "references").recipe
        rows.add(Path(named).stem, _on_data_of(recipe, reference), "reference")
    variants, sources = tuple(rows.by_key.values()), (*file.extended, *recipes.sources)
    if len(variants) * len(study.seeds) > MOST_TRIALS:
        raise BadInput(f"{file.where('seeds')}: seeds: with all variants more than {MOST_TRIALS:,} trials; use fewer")
    notes = (*rows.notes, *_notes_of_choosing(study, recipes.chosen), *_notes_of_rates(variants))
    return LoadedStudy(file.path.stem, study, variants, notes, file, choices, sources, recipes.chosen)


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


# --- recipe files -----------------------------------------------------------------------------------------------------


@dataclass
class _Recipes:
    """The recipe files of a study: found, read, and kept in mind."""

    file: StudyFile
    pin: Pin
    sources: list[Source] = field(default_factory=list)
    chosen: dict[str, Chosen] = field(default_factory=dict)

    def load(self, named: str, key: str) -> RecipeFile:
        path = beside(self.file.origin(key), named, key)
        self.sources.append(Source(path, named, f"{self.file.where(key)}: {key}"))
        loaded = load_recipe(path, lambda said: self.pin(said, path.parent))
        if loaded.chosen is not None:
            self.chosen[path.stem] = loaded.chosen
        return loaded


def _baseline(study: Study, recipes: _Recipes, overrides: Changes) -> Recipe:
    loaded = recipes.load(study.baseline, "baseline")
    recipe, where = loaded.recipe, shown(recipes.sources[0].path)
    if study.profile is not None:
        if study.profile not in loaded.profiles:
            raise BadInput(f"{where}: no profile '{study.profile}'; {nearest(study.profile, loaded.profiles)}")
        recipe = with_changes(recipe, loaded.profiles[study.profile], f"{where}: profiles.{study.profile}")
    recipe = with_changes(_changed(recipe, study.changes, recipes.file), overrides, "--set")
    if study.search is not None and recipe.train.held_out == 0:
        recipe = with_changes(recipe, {"train.held_out": study.search.held_out}, "search.held_out")
    return recipe


def _changed(recipe: Recipe, changes: Changes, file: StudyFile) -> Recipe:
    """With the study's changes. They may come from several files: an error names that of the culprit."""
    where = file.where(f"changes.{next(iter(changes))}") if changes else ""
    try:
        return with_changes(recipe, changes, f"{where}: changes")
    except BadInput:
        for culprit in changes:
            with suppress(BadInput):
                with_changes(recipe, {path: it for path, it in changes.items() if path != culprit}, "")
                where = file.where(f"changes.{culprit}")
        with_changes(recipe, changes, f"{where}: changes")
        raise


def _on_data_of(baseline: Recipe, recipe: Recipe) -> Recipe:
    """A row that stands on the same recordings."""
    return recipe.model_copy(update={"data": baseline.data})


def _notes_of_choosing(study: Study, chosen: dict[str, Chosen]) -> Iterator[str]:
    """What a reader should know of recipes that a search has chosen."""
    if study.search is not None and study.search.oracle:
        yield "the search chooses on test labels (oracle)"
    for name, how in chosen.items():
        if how.oracle:
            yield f"recipe {name} was chosen on test labels (oracle) by search {how.search}"
        for seed in sorted(set(study.seeds) & set(how.seeds)):
            yield (
                f"recipe {name} was chosen by search {how.search} with seed {seed}: seed {seed} is no fresh evidence; "
                "run other seeds"
            )


def _notes_of_rates(variants: Sequence[Variant]) -> Iterator[str]:
    """Where clips hold nothing of what an augmentation changes, as the front end works at a higher rate than theirs."""
    said = set[str]()
    for row in variants:
        high, clips_hz = row.recipe.augment.high_frequency, row.recipe.data.sample_rate_hz
        if high is None or row.recipe.features.front_end == "log_mel" or clips_hz >= EfficientATMel.RATE_HZ:
            continue
        said.add(
            f"front end efficientat resamples the clips from {clips_hz:,} to {EfficientATMel.RATE_HZ:,} Hz: what "
            f"high_frequency changes above {clips_hz / 2:,.0f} Hz is empty in them"
        )
        if high.cutoff_hz >= clips_hz / 2:
            said.add(f"'{row.name}' changes nothing that is in a clip: its cutoff is {high.cutoff_hz:,.0f} Hz")
    yield from sorted(said, reverse=True)


def _depends_on_seed(recipe: Recipe) -> bool:
    drawn = type(recipe.encoder).trains or (recipe.train.held_out > 0 and recipe.train.held_out_by == "seed")
    parts = recipe.scoring.parts.values() if recipe.scoring.name == "fusion" else [recipe.scoring]
    return drawn or any(part.name == "gaussian_mixture" for part in parts)


# --- designs ----------------------------------------------------------------------------------------------------------


class _Rows:
    """The rows of a study by the key of their recipe: those that are the same recipe are merged."""

    def __init__(self, baseline: Recipe, where: str) -> None:
        self._baseline, self._where = baseline, where
        self.by_key = {recipe_key(baseline): Variant("baseline", baseline, {}, "baseline")}
        self.notes: list[str] = []
        self._names = {"baseline"}

    def place_baseline(self, levels: dict[str, str]) -> None:
        """Has the baseline stand among the other rows of a design by its levels."""
        key = next(iter(self.by_key))
        self.by_key[key] = replace(self.by_key[key], levels=levels)

    def add(self, name: str, recipe: Recipe, role: Role, levels: dict[str, str] | None = None) -> None:
        """Adds a row; one that is there already is merged with it, and that is noted."""
        key = recipe_key(recipe)
        known = self.by_key.get(key)
        if known is not None:
            self.by_key[key] = replace(known, levels=known.levels or levels or {})
            self.notes.append(
                f"'{name}' is made twice" if known.name == name else f"'{name}' is the same recipe as '{known.name}'"
            )
            return
        if name in self._names:
            raise BadInput(f"{self._where}: two different variants have the name '{name}'; name one of them otherwise")
        self._names.add(name)
        self.by_key[key] = Variant(name, recipe, difference(self._baseline, recipe), role, levels or {})


_Picks = tuple[Level, ...]
"""What a variant changes."""
_Choices = Sequence[Choice]


def _one_at_a_time(choices: _Choices, _: Conditions, where: str) -> Iterator[tuple[str, _Picks]]:
    return ((level.alone, (level,)) for choice in choices for level in choice.levels if level.changes)


def _leave_one_out(choices: _Choices, _: Conditions, where: str) -> Iterator[tuple[str, _Picks]]:
    return ((level.alone, (level,)) for choice in choices for level in choice.levels if level.off)


def _only_one(choices: _Choices, _: Conditions, where: str) -> Iterator[tuple[str, _Picks]]:
    offs = [level for choice in choices for level in choice.levels if level.off]
    yield "none", tuple(offs)
    for kept in offs:
        yield f"only {kept.factor}", tuple(off for off in offs if off is not kept)


def _factorial(choices: _Choices, conditions: Conditions, where: str) -> Iterator[tuple[str, _Picks]]:
    cells: list[_Picks] = [()]
    for choice in choices:
        meets = [conditions.meets(choice, cell) for cell in cells]
        if sum(len(choice.levels) if met else 1 for met in meets) > MOST_VARIANTS:
            raise BadInput(f"{where}: the factorial design has more than {MOST_VARIANTS:,} variants; use fewer levels")
        grown = (
            [(*cell, level) for level in choice.levels] if met else [cell]
            for cell, met in zip(cells, meets, strict=True)
        )
        cells = [cell for of_cell in grown for cell in of_cell]
    # what means nothing beside the rest of its cell is left out, which makes cells equal
    made = dict.fromkeys(tuple(level for level, _ in meaningful(cell)) for cell in cells)
    used = {level for picks in made for level in picks}
    for choice in choices:
        if used.isdisjoint(choice.levels):
            raise BadInput(f"{choice.where}: means nothing beside any level of the other factors; leave it out")
    for picks in made:
        yield ", ".join(f"{level.factor}={level.name}" for level in picks), picks


DESIGNS: dict[str, Callable[[_Choices, Conditions, str], Iterator[tuple[str, _Picks]]]] = {
    "one_at_a_time": _one_at_a_time,
    "leave_one_out": _leave_one_out,
    "only_one": _only_one,
    "factorial": _factorial,
}
"""Every design that is made of factors, by name."""


def _named_recipes(
    study: Study, choices: _Choices, baseline: Recipe, recipes: _Recipes, rows: _Rows
) -> Iterator[tuple[str, Recipe, dict[str, str]]]:
    """The variants with their levels, one after another; what is left out is noted among the rows."""
    conditions = Conditions(baseline, choices)
    for design in study.design:
        if design == "search":
            _check_space(choices, conditions, baseline)
        elif design == "list":
            for name, variant in study.variants.items():
                key = f"variants.{name}"
                if isinstance(variant, str):
                    yield name, _on_data_of(baseline, recipes.load(variant, key).recipe), {}
                else:
                    yield name, with_changes(baseline, variant, f"{recipes.file.where(key)}: {key}"), {}
        else:
            taken, own = choices, dict[Choice, Level]()
            if design != "factorial":
                taken = [choice for choice in choices if conditions.meets(choice, ())]
                rows.notes += [
                    f"design {design} leaves the factor '{choice.name}' out: its `when` does not hold in the baseline"
                    for choice in choices
                    if choice not in taken
                ]
                own = {choice: own_level(choice, baseline) for choice in taken}
                rows.place_baseline(conditions.cell(own))
            for choice in taken if design in ("leave_one_out", "only_one") else ():
                if not any(level.off for level in choice.levels):
                    raise BadInput(f"{choice.where}: design {design} needs to know what 'off' is")
            where = recipes.file.where("design")
            for name, picks in DESIGNS[design](taken, conditions, f"{where}: design"):
                levels = conditions.cell(own, picks) if own else {level.factor: level.name for level in picks}
                yield name, with_levels(baseline, picks, f"{where}: design {design}, variant '{name}'"), levels


def _check_space(choices: _Choices, conditions: Conditions, baseline: Recipe) -> None:
    """Every level, and both ends of every range, give a recipe: alone, or beside a level of a factor above."""
    for number, choice in enumerate(choices):
        for other in choices[number + 1 :]:  # which comes later, when this one was suggested already
            if any(
                strong.silences(level, path)
                for strong in other.levels
                for level in choice.levels
                for path in level.leaves
            ):
                raise BadInput(
                    f"{choice.where}: means nothing beside some levels of '{other.name}'; put that one first"
                )
        beside_what = [(), *((level,) for other in choices[:number] for level in other.levels)]
        beside_what = [picks for picks in beside_what if conditions.meets(choice, picks)]
        for level in choice.levels:
            problems = []
            for picks in beside_what:
                try:
                    recipe = with_levels(baseline, picks, "")
                    if level.changes and not has_meaning(choice.factor, recipe):
                        with_levels(baseline, (level,), level.where)
                        hint = "switch it on there, or by a factor above"
                        raise BadInput(f"{choice.where}: it lies in a part that is off in the baseline; {hint}")
                    with_levels(baseline, (*picks, level), level.where)
                    break
                except BadInput as error:
                    problems.append(error)
            else:
                if problems:  # otherwise it means something only beside several levels, of which not all are tried
                    raise problems[0]
