"""The levels of a study's factors: which of them mean anything beside each other, and the recipe that they make."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from typing import Any

from raysd.errors import BadInput
from raysd.recipe import Recipe, recipe_key
from raysd.settings import can_have, changed_values, check_path, leaves, value_at, with_changes
from raysd.study.files import Changes, Factor


@dataclass(frozen=True, eq=False)
class Level:
    """One level of a factor."""

    factor: str
    name: str
    changes: Changes
    """What it changes in the baseline; nothing where it is as the baseline has it."""
    off: bool
    """Whether it is what means off."""
    where: str
    """The file and the place in it."""

    @property
    def alone(self) -> str:
        """The name of the variant that has only this level."""
        return f"without {self.factor}" if self.off else f"{self.factor}={self.name}"

    @cached_property
    def leaves(self) -> dict[str, Any]:
        """Its changes as dotted path -> value."""
        return leaves(self.changes)

    @cached_property
    def parts(self) -> dict[str, Any]:
        """Those of them that switch a part off (path -> None), or that may replace it (path -> name)."""
        off = {path: None for path, value in self.leaves.items() if value is None}
        names = {path: value for path, value in self.leaves.items() if path.endswith(".name")}
        return off | {path.removesuffix(".name"): name for path, name in names.items() if isinstance(name, str)}

    def silences(self, other: "Level", path: str) -> bool:
        """Whether a setting of another level means nothing beside this one."""
        if self.off and not other.off and path in self.leaves:
            return True
        return any(
            path.startswith(f"{part}.") and (name is None or not can_have(Recipe, part, name, path))
            for part, name in self.parts.items()
        )


@dataclass(frozen=True, eq=False)
class Choice:
    """A factor with the levels to choose from; of a range its two ends."""

    name: str
    factor: Factor
    levels: tuple[Level, ...]
    where: str
    """The file and the place in it."""

    @cached_property
    def when(self) -> dict[str, tuple[Any, ...]]:
        """Dotted path -> the values with which the factor means anything."""
        return {path: tuple(it) if isinstance(it, list) else (it,) for path, it in leaves(self.factor.when).items()}

    def touches(self, path: str) -> bool:
        """Whether one of its levels has a say in what stands at a path."""
        return any(_touches(level, path) for level in self.levels)


def levels_of(name: str, factor: Factor, where: str) -> list[Level]:
    """The levels of a factor, the ends of its range, or on and off. `where` is the file that it stands in."""
    where = f"{where}: factors.{name}"
    if isinstance(factor.levels, dict):
        return [
            Level(name, level, changes, level == "off", f"{where}.levels.{level}")
            for level, changes in factor.levels.items()
        ]
    setting = factor.setting or ""
    if factor.range is not None:
        ends = {"low": factor.range.low, "high": factor.range.high}
        return [Level(name, _text(end), {setting: end}, False, f"{where}.range.{key}") for key, end in ends.items()]
    levels = [Level(name, "on", {}, False, where)]
    if factor.levels is not None:
        levels = [
            Level(name, _text(value), {setting: value}, False, f"{where}.levels[{i}]")
            for i, value in enumerate(factor.levels)
        ]
    if factor.levels is None or "off" in factor.model_fields_set:
        levels.append(Level(name, "off", {setting: factor.off}, True, f"{where}.off"))
    return levels


def choice_of(name: str, factor: Factor, where: str) -> Choice:
    """A factor of a study with its levels. Raises BadInput for a level of something that is no setting."""
    levels = tuple(levels_of(name, factor, where))
    for level in levels:  # one inside a part of several kinds could otherwise pass as a setting of another kind
        for path in level.leaves:
            check_path(Recipe, path, level.where)
    return Choice(name, factor, levels, f"{where}: factors.{name}")


def has_meaning(factor: Factor, recipe: Recipe) -> bool:
    """Whether a factor means anything in a recipe: its `when` holds, and there is something that it could change.

    A setting inside a part that is off, or inside one whose entry has no such setting, is nothing that it could change.
    """
    choice, values = choice_of("", factor, ""), dict(recipe)
    return _holds(choice.when, values) and any(_can_change(level, values) for level in choice.levels if level.changes)


def meaningful(picks: Sequence[Level]) -> list[tuple[Level, dict[str, Any]]]:
    """The levels that mean anything beside each other, each with those of its changes that do.

    One that sets something inside a part that another switches off, or replaces by one that has no such setting, means
    nothing beside it. What means off wins over the other levels of the same setting.
    """
    kept: list[tuple[Level, dict[str, Any]]] = []
    strong = [level for level in picks if level.off or level.parts]
    for level in picks:
        changes = {
            path: value
            for path, value in level.leaves.items()
            if not any(other.silences(level, path) for other in strong if other is not level)
        }
        if changes or not level.leaves:
            kept.append((level, changes))
    return kept


def own_level(choice: Choice, recipe: Recipe) -> Level:
    """The level of a factor that a recipe has: the one that changes nothing in it.

    Where none is, one that is named by the value of the setting; of bundles, one with the name `baseline`.
    """
    for level in choice.levels:
        with suppress(BadInput):
            if not level.changes or recipe_key(with_levels(recipe, (level,), "")) == recipe_key(recipe):
                return level
    if choice.factor.setting is None:
        return Level(choice.name, "baseline", {}, False, choice.where)
    value = _value(dict(recipe), choice.factor.setting)
    name = f"{value:g}" if isinstance(value, float) else _text(value)  # 1000, as one writes it in a file
    return Level(choice.name, name, {choice.factor.setting: value}, False, choice.where)


def with_levels(baseline: Recipe, picks: Sequence[Level], where: str) -> Recipe:
    """The baseline with the picked levels; BadInput, with the place of the culprit, where that is no recipe."""
    changes: Changes = {}
    for _, own in meaningful(picks):
        if both := changes.keys() & own.keys():
            raise BadInput(f"{where}: two factors set {min(both)}; in one variant they exclude each other")
        changes |= own
    try:
        return with_changes(baseline, changes, where)
    except BadInput:
        culprits = [level for level in picks if _is_recipe(baseline, [other for other in picks if other is not level])]
        if len(culprits) == 1:
            with_changes(baseline, changes, culprits[0].where)
        raise


class Conditions:
    """Which factors mean anything beside which levels of the factors above them."""

    def __init__(self, baseline: Recipe, choices: Sequence[Choice]) -> None:
        """Raises BadInput for a `when` that can never hold."""
        self._baseline = baseline
        self._known: dict[tuple[Choice, tuple[Level, ...]], bool] = {}
        for number, choice in enumerate(choices):
            for path in choice.when:
                check_path(Recipe, path, f"{choice.where}.when")
                later = [other.name for other in choices[number + 1 :] if self._sets(other, path)]
                if later and not any(self._sets(other, path) for other in choices[:number]):
                    raise BadInput(
                        f"{choice.where}.when: {path} is set by the factor '{later[0]}' below it; put that one first"
                    )
            self._check(choice, [other for other in choices[:number] if any(map(other.touches, choice.when))])

    def meets(self, choice: Choice, picks: Sequence[Level]) -> bool:
        """Whether the factor's `when` holds beside the levels picked of the factors above it."""
        if not choice.when:
            return True
        # few of the picks decide; so this is computed a few times for many variants
        deciding = tuple(level for level in picks if any(_touches(level, path) for path in choice.when))
        if (choice, deciding) not in self._known:
            self._known[choice, deciding] = _holds(choice.when, self._values(deciding, choice.where))
        return self._known[choice, deciding]

    def cell(self, own: Mapping[Choice, Level], picks: Sequence[Level] = ()) -> dict[str, str]:
        """Factor -> level of a variant that has the picks, and beside them the baseline's `own` levels.

        Without factors that mean nothing there, or all of whose settings another's pick sets otherwise.
        """
        picked, cell = {level.factor: level for level in picks}, []
        said = {path: value for level in picks for path, value in level.leaves.items()}
        for choice, level in own.items():
            level = picked.get(choice.name, level)
            stands = not level.leaves or any(said.get(path, value) == value for path, value in level.leaves.items())
            if stands and self.meets(choice, tuple(cell)):
                cell.append(level)
        return {level.factor: level.name for level, _ in meaningful(cell)}

    def _sets(self, choice: Choice, path: str) -> bool:
        """Whether a factor alone changes what stands at a path in the baseline."""
        here = _value(dict(self._baseline), path)
        values = (self._values((level,), level.where) for level in choice.levels if _touches(level, path))
        return any(_value(changed, path) != here for changed in values)

    def _values(self, picks: Sequence[Level], where: str) -> dict[str, Any]:
        """The baseline with the picks, which need be no recipe yet."""
        changes = {path: value for _, own in meaningful(picks) for path, value in own.items()}
        return changed_values(self._baseline, changes, where)

    def _check(self, choice: Choice, above: Sequence[Choice]) -> None:
        if any(other.factor.range for other in above):
            return  # what lies between the ends cannot all be tried
        cells = list(islice(product(*[other.levels for other in above]), 10_000))
        if any(self.meets(choice, cell) for cell in cells):
            return
        for path, wanted in choice.when.items():
            found = [_value(self._values(cell, choice.where), path) for cell in cells]
            if not any(value in wanted for value in found):
                never = " or ".join(map(_text, wanted)) or "one of no values"
                words = ", ".join(dict.fromkeys(map(_text, found)))
                raise BadInput(
                    f"{choice.where}.when: {path} is never {never}; in the baseline and with the factors above it "
                    f"is {words}"
                )
        raise BadInput(f"{choice.where}.when: its lines never hold together")


def _is_recipe(baseline: Recipe, picks: Sequence[Level]) -> bool:
    try:
        with_changes(baseline, {path: it for _, own in meaningful(picks) for path, it in own.items()}, "")
    except BadInput:
        return False
    return True


def _holds(when: Mapping[str, tuple[Any, ...]], values: Mapping[str, Any]) -> bool:
    return all(_value(values, path) in wanted for path, wanted in when.items())


def _value(values: Mapping[str, Any], path: str) -> Any:
    """What stands at a path; None also where the part that it is in is off or has no such setting."""
    try:
        return value_at(values, Recipe, path)
    except KeyError:
        return None


def _can_change(level: Level, values: Mapping[str, Any]) -> bool:
    return any(all(_has_room(values, part, path) for part in _parents(path)) for path in level.changes)


def _has_room(values: Mapping[str, Any], part: str, path: str) -> bool:
    """Whether a part is on, and of a kind that has the setting."""
    name = _value(values, f"{part}.name")
    return _value(values, part) == "on" and (name is None or can_have(Recipe, part, name, path))


def _parents(path: str) -> Iterator[str]:
    keys = path.split(".")
    return (".".join(keys[:depth]) for depth in range(1, len(keys)))


def _touches(level: Level, path: str) -> bool:
    return any(
        said == path or said.startswith(f"{path}.") or path.startswith(f"{said.removesuffix('.name')}.")
        for said in level.leaves
    )


def _text(value: Any) -> str:
    """A level's value as a table names it."""
    if isinstance(value, dict) and list(value) == ["name"]:
        return str(value["name"])
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
