"""The study file and the recipe file: what stands in them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from raysd.detect.metrics import headline_metrics
from raysd.detect.proxies import PROXIES
from raysd.errors import BadInput, nearest
from raysd.parallel import Scale
from raysd.recipe import Recipe, pin_all
from raysd.settings import Settings, parse, with_changes
from raysd.study.places import shown
from raysd.yaml_values import read_yaml

Changes = dict[str, Any]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what all that draws from it takes
DesignName = Literal["one_at_a_time", "leave_one_out", "only_one", "list", "factorial", "search"]


class Range(Settings):
    """The numbers between two bounds, both included. Where both are written as whole numbers, whole numbers only."""

    low: int | float
    high: int | float
    log: bool = False
    """Even chances by ratio, not by difference; for what spans several powers of ten."""

    @model_validator(mode="after")
    def _some_width(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low has to be below high, not {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale has no place for low {self.low:g}; it has to be above 0")
        return self


class Factor(Settings):
    """What a study varies: one setting over levels, an ingredient that can be off, or named bundles of settings."""

    setting: str | None = None
    """Dotted path of the setting, for instance `augment.high_frequency.cutoff_hz`."""
    levels: list[Any] | dict[str, Changes] | None = None
    """Values of the setting; or, without a setting, `name: {path: value, ...}`. Without levels, the setting is an
    ingredient: on as in the baseline, and off. A bundle named `off` makes an ingredient of bundles."""
    off: Any = None
    """The value that means off."""
    range: Range | None = None
    """All numbers of a range, instead of levels; for the design `search`."""
    when: Changes = Field(default={})
    """Where the factor means anything: `path: value`, or `path: [value, ...]` for any of several; a part that is there
    is `on`, one that is not is null. It is looked up in the baseline as the factors above have changed it. Where it
    does not hold, a factorial design does not cross the factor, and a search does not ask for it: it stays as in the
    baseline. The other designs leave the factor out, and say so, where it does not hold in the baseline itself.

    No `when` is needed for a setting inside a part that another level switches off, or replaces by one that has no such
    setting: beside that level it is left out by itself."""

    @field_validator("levels", mode="before")
    @classmethod
    def _list_or_bundles(cls, levels: Any) -> Any:
        if isinstance(levels, dict) and levels and all(isinstance(changes, dict) for changes in levels.values()):
            return levels
        if not isinstance(levels, list) or not levels:
            raise ValueError("expected a list of values, or 'name: {path: value}' lines")
        return levels

    @model_validator(mode="after")
    def _one_kind(self) -> "Factor":
        if self.setting is None and not isinstance(self.levels, dict):
            raise ValueError("expected a setting, or levels as 'name: {path: value}' lines")
        if self.setting is not None and isinstance(self.levels, dict):
            raise ValueError("bundles of settings take no 'setting'; give a list of levels, or leave 'setting' out")
        if self.setting is None and "off" in self.model_fields_set:
            raise ValueError("'off' needs a setting; in bundles of settings, name one of them off")
        if self.range is not None and (self.setting is None or self.model_fields_set & {"levels", "off"}):
            raise ValueError("a range needs a setting, and neither levels nor off beside it")
        return self


class Budget(Settings):
    """What one run of a study may take. It stops starting trials in time, and the same command goes on another day."""

    hours: Annotated[float, Field(gt=0)] | None = None
    """Hours by the clock."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours times the GPUs that its trials hold."""

    @model_validator(mode="after")
    def _one(self) -> "Budget":
        if (self.hours is None) == (self.gpu_hours is None):
            raise ValueError("give hours or gpu_hours, one of them")
        return self


class Search(Settings):
    """How a search goes about it. Its factors are the space; it judges by normal clips alone."""

    suggestions: Annotated[int, Field(ge=2)] = 40
    """Recipes tried, the baseline among them as the first."""
    objective: Literal["perturbed", "other_sections"] = "perturbed"
    """What is maximised, always on normal training clips that are held out. perturbed: telling them from perturbed
    copies of themselves. other_sections: telling them from held-out clips of the machine's other sections."""
    held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Share of each section's training clips that is held out of the search's trainings."""
    random_first: Annotated[int, Field(ge=1)] = 10
    """Suggestions drawn at random before the sampler (TPE) learns from those before."""
    seed: Seed = 0
    """Seed of the sampler."""
    oracle: bool = False
    """true: maximise the study's metric on the test clips instead. Every table then says so."""


class Pruning(Settings):
    """Asynchronous successive halving (Li et al. 2020): what does badly after few epochs is given up."""

    first_epochs: Annotated[int, Field(ge=1)] = 2
    """Epochs after which a suggestion is judged first; then after `reduction` times as many, and so on."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One in so many goes on."""


def _changes_or_file(value: Any) -> Any:
    if not isinstance(value, dict | str):
        raise ValueError("expected changes as 'path: value' lines, or a recipe file")
    return value


class Study(Settings):
    """One question: a baseline, what is varied, and with which seeds."""

    extends: str | None = None
    """Another study: a file, relative to this one, or the name of a predefined study. What is not said here is said
    there. In `factors`, `variants`, `changes` and `scale` an entry of the same name replaces the other's whole; all
    else, lists too, is replaced. `name: null` leaves out what is said there, but in `changes`, where null means off."""
    question: Annotated[str, Field(min_length=1)]
    """What the study asks, in a sentence."""
    baseline: str
    """The recipe file that the study starts from; relative to the study file, or one of the predefined."""
    changes: Changes = Field(default={})
    """Changes to the baseline recipe, dotted or nested; for instance `data: {year: 2022}`. They win over a profile."""
    profile: str | None = None
    """A named set of changes in the recipe file, for instance for training on a CPU."""
    factors: dict[str, Factor] = Field(default={})
    """What is varied, by name."""
    design: Annotated[
        tuple[DesignName, ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
        Field(min_length=1),
    ]
    """How variants are made of the factors: one design, or a list of them whose variants are united."""
    variants: dict[str, Annotated[Changes | str, BeforeValidator(_changes_or_file)]] = Field(default={})
    """The variants of the design `list`, by name: changes to the baseline, or a recipe file, found like the baseline's.
    A recipe file stands as it is, on the data of the baseline."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Every variant is trained once with each; differences are paired by seed."""
    metric: str = "official"
    """The metric on which variants are compared with the baseline. proxy_perturbed and proxy_other_sections are of
    normal clips alone (train.held_out); a study of them shows no other, so that a choice can be made with it."""
    references: tuple[str, ...] = ("recipes/classical.yaml",)
    """Recipe files of rows that stand in the table without being part of the family that is compared."""
    scale: Scale = Scale()
    """How a trial is run; changes nothing but the time."""
    budget: Budget | None = None
    """What one run of the study may take."""
    search: Search | None = None
    """How the design `search` goes about it."""
    pruning: Pruning | None = None
    """Gives up bad suggestions of a search after few epochs. Never of another design."""

    @model_validator(mode="before")
    @classmethod
    def _searching(cls, values: Any) -> Any:
        """A search that says nothing of how has the defaults; so `search` is there in searches, and nowhere else."""
        design = values.get("design") if isinstance(values, dict) else None
        if design == "search" or (isinstance(design, list | tuple) and "search" in design):
            return {**values, "search": {} if values.get("search") is None else values["search"]}
        return values

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"a seed stands twice in {list(seeds)}")
        return seeds

    @model_validator(mode="after")
    def _all_used(self) -> "Study":
        by_factors = [name for name in self.design if name != "list"]
        if by_factors and not self.factors:
            raise ValueError(f"design {by_factors[0]} needs factors")
        if self.factors and not by_factors:
            raise ValueError("design list makes no use of the factors; add another design or leave them out")
        if ("list" in self.design) != bool(self.variants):
            raise ValueError("'variants' and design list need each other")
        if "search" not in self.design:
            if self.pruning is not None:
                raise ValueError(
                    "pruning: only a search may give up trials; a variant that was given up after a few epochs is no "
                    "comparison with the baseline"
                )
            if self.search is not None:
                raise ValueError("search: this study's design is no search; leave the settings out")
            ranges = [name for name, factor in self.factors.items() if factor.range is not None]
            if ranges:
                raise ValueError(f"factors.{ranges[0]}: a range is for the design search; give levels")
        elif len(self.design) > 1:
            raise ValueError("design search stands alone: results choose its rows, and not those of other designs")
        elif len(self.seeds) > 1:
            raise ValueError(
                f"seeds: a search trains every suggestion with one seed, not {len(self.seeds)}; the winner is to be "
                "promoted and run with fresh ones"
            )
        return self


class Chosen(Settings):
    """How a search came to a recipe; stands in the file of a recipe that was promoted."""

    search: str
    """The study that searched."""
    suggestion: Annotated[int, Field(ge=0)]
    """Number of the suggestion."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    """The seeds with which it was chosen: no fresh evidence."""
    objective: str
    """What was maximised."""
    value: float
    """What the suggestion reached."""
    oracle: bool = False
    """Whether labels of test clips were used."""
    data_fingerprint: str
    """The corpus on which it was chosen."""


@dataclass(frozen=True)
class RecipeFile:
    """A recipe as a file gives it."""

    recipe: Recipe
    description: str
    profiles: dict[str, Changes]
    chosen: Chosen | None = None


class _AboutRecipe(Settings):
    """The keys of a recipe file that are no settings of the recipe."""

    description: str = ""
    profiles: dict[str, Changes] = Field(default={})
    chosen: Chosen | None = None


def load_recipe(path: Path, pin: Callable[[str], str] = lambda said: said) -> RecipeFile:
    """A recipe file: settings of a recipe, and beside them `description`, `profiles` and `chosen`.

    `pin` is applied to what names a checkpoint.
    """
    values, where = pin_all(read_yaml(path), pin), shown(path)
    about = parse(_AboutRecipe, {key: values.pop(key) for key in _AboutRecipe.model_fields if key in values}, where)
    recipe = with_changes(Recipe(), values, where)
    return RecipeFile(recipe, about.description, about.profiles, about.chosen)


def check_metric(metric: str, recipe: Recipe, where: str) -> None:
    """Raises BadInput where trials of a baseline's recipe have no such metric."""
    known = (*headline_metrics(recipe.data.year), *PROXIES)
    if metric not in known:
        raise BadInput(f"{where}: metric: '{metric}' is no metric of {recipe.data.year}; {nearest(metric, known)}")
    if metric in PROXIES and recipe.train.held_out == 0:
        raise BadInput(f"{where}: metric: {metric} needs held-out clips; set train.held_out, for instance to 0.2")
