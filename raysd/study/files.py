"""The study file and the recipe file: what stands in them, and where they are found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

import raysd
from raysd.errors import BadInput, nearest
from raysd.parallel import Scale
from raysd.recipe import Recipe
from raysd.settings import Settings, parse, read_yaml, with_changes

Changes = dict[str, Any]
DesignName = Literal["one_at_a_time", "leave_one_out", "only_one", "list", "factorial"]


class Factor(Settings):
    """What a study varies: one setting over levels, an ingredient that can be off, or named bundles of settings."""

    setting: str | None = None
    """Dotted path of the setting, for instance `augment.high_frequency.cutoff_hz`."""
    levels: list[Any] | dict[str, Changes] | None = None
    """Values of the setting; or, without a setting, `name: {path: value, ...}`. Without levels, the setting is an
    ingredient: on as in the baseline, and off. A bundle named `off` makes an ingredient of bundles."""
    off: Any = None
    """The value that means off."""

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
        return self


class Study(Settings):
    """One question: a baseline, what is varied, and with which seeds."""

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
    variants: dict[str, Changes] = Field(default={})
    """The variants of the design `list`, by name."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """Every variant is trained once with each; differences are paired by seed."""
    metric: str = "official"
    """The metric on which variants are compared with the baseline."""
    references: tuple[str, ...] = ("recipes/classical.yaml",)
    """Recipe files of rows that stand in the table without being part of the family that is compared."""
    scale: Scale = Scale()

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
        return self


@dataclass(frozen=True)
class RecipeFile:
    """A recipe as a file gives it."""

    recipe: Recipe
    description: str
    profiles: dict[str, Changes]


class _AboutRecipe(Settings):
    """The keys of a recipe file that are no settings of the recipe."""

    description: str = ""
    profiles: dict[str, Changes] = Field(default={})


def predefined_folder() -> Path:
    """Where the studies that come with raysd are: in the installed package, or beside it in a checkout."""
    package = Path(raysd.__file__).parent
    installed = package / "studies"
    return installed if installed.is_dir() else package.parent / "studies"


def predefined_studies() -> dict[str, Path]:
    """The studies that come with raysd, by name."""
    return {path.stem: path for path in sorted(predefined_folder().glob("*.yaml"))}


def find_study(name_or_path: str | Path) -> Path:
    """A study file: the path as given, else the predefined study of that name; BadInput where there is neither."""
    if Path(name_or_path).is_file():
        return Path(name_or_path)
    known = predefined_studies()
    if str(name_or_path) not in known:
        raise BadInput(f"{name_or_path}: no such file, and no study of that name; {nearest(str(name_or_path), known)}")
    return known[str(name_or_path)]


def load_recipe(path: Path) -> RecipeFile:
    """A recipe file: settings of a recipe, and beside them `description` and `profiles`."""
    values, where = read_yaml(path), shown(path)
    about = parse(_AboutRecipe, {key: values.pop(key) for key in ("description", "profiles") if key in values}, where)
    return RecipeFile(with_changes(Recipe(), values, where), about.description, about.profiles)


def beside(study_path: Path, file: str, key: str) -> Path:
    """The recipe file that a study names under `key`: beside it, else among the predefined."""
    for folder in (study_path.parent, predefined_folder()):
        if (folder / file).is_file():
            return folder / file
    raise BadInput(f"{shown(study_path)}: {key}: no file {file}, neither beside the study nor in {predefined_folder()}")


def shown(path: Path) -> str:
    """A path as a user reads it best: relative to where they are."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
