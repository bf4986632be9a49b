"""Typed, frozen settings: the base class of every part of a recipe and of a study, strict parsing, dotted paths."""

import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property, lru_cache
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from raysd.errors import BadInput, nearest


class Settings(BaseModel):
    """Immutable settings. An unknown key is an error; a field's docstring is its description in the schema."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @cached_property
    def _plain(self) -> dict[str, Any]:
        return _flatten(self, defaults=False)  # kept: a study asks for it once a seed and key

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        for kept in vars(copied).keys() - type(self).model_fields.keys():  # what was computed of the other's values
            del vars(copied)[kept]
        return copied


S = TypeVar("S", bound=Settings)


def parse(kind: type[S], values: Mapping[str, Any], where: str | Callable[[str], str]) -> S:
    """Settings of `kind` from plain values; raises BadInput with the file or origin `where`, the path and the fix.

    Where values come from several files, `where` gives the origin of a dotted path.
    """
    origin = where if callable(where) else lambda path: where
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        path, problem = _describe(kind, values, error)
        raise BadInput(f"{origin(path)}: {problem}") from None
    for path in _numbers_from_truth(values, settings):
        raise BadInput(f"{origin(path)}: {path}: expected a value other than true and false")
    return settings


def with_changes(settings: S, changes: Mapping[str, Any], where: str) -> S:
    """`settings` with some values replaced, given by dotted path.

    A mapping given for a path is merged into what stands there. A new `name` under a path (another encoder, loss or
    scorer) starts from that entry's own defaults; setting a value inside a part that is off switches the part on.
    """
    return parse(type(settings), changed_values(settings, changes, where), where)


def changed_values(settings: Settings, changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What `with_changes` makes settings of: parts that are changed as plain values, the others as they are."""
    flat = leaves(changes)
    touched = {path.partition(".")[0] for path in flat}
    # what is not touched stays the same object: not checked again, and its flat form is known
    tree = dict(settings) | settings.model_dump(mode="json", include=touched)
    # names first, outer before inner: each clears what stood below it
    for path, value in sorted(flat.items(), key=lambda item: (not item[0].endswith(".name"), item[0].count("."))):
        _put(tree, path.split("."), value, type(settings), where)
    return tree


def leaves(changes: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested or dotted changes as `{dotted path: value}`; of one path said twice the later counts."""
    flat: dict[str, Any] = {}
    for name, value in changes.items():
        path = f"{prefix}{name}"
        flat.update(leaves(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value})
    return flat


def value_at(values: Mapping[str, Any], kind: type[Settings], path: str) -> Any:
    """The plain value of a setting in `changed_values` of settings of `kind`; KeyError where they have no such setting.

    A part that is there is `on`.
    """
    node, owners = values, [kind]
    for key in path.split("."):
        if not isinstance(node, Mapping):
            raise KeyError(path)
        owners = [owner for owner in owners if node.get("name") in _names([owner])] or owners
        field = next((owner.model_fields[key] for owner in owners if key in owner.model_fields), None)
        if field is None:
            raise KeyError(path)
        node = node[key] if key in node else field.get_default(call_default_factory=True)
        node = node.model_dump(mode="json") if isinstance(node, Settings) else node
        owners = _classes(field.annotation)
    return "on" if isinstance(node, Mapping) else node


def check_path(kind: type[Settings], path: str, where: str) -> None:
    """Raises BadInput where no settings of `kind` have anything at the dotted path."""
    keys, owners = path.split("."), [kind]
    for depth, key in enumerate(keys):
        parent, allowed = ".".join(keys[:depth]), {name for owner in owners for name in owner.model_fields}
        if not allowed:
            raise BadInput(f"{where}: {parent} is a single value, and has no '{key}' in it")
        if key not in allowed:
            raise BadInput(f"{where}: {_unknown(kind, parent, key, allowed, keys[: depth + 1])}")
        owners = _inside(owners, key)


@lru_cache(10_000)
def can_have(kind: type[Settings], part: str, name: str, path: str) -> bool:
    """Whether the entry called `name` at `part` has a setting at `path`, which lies in that part.

    True also for a name that does not exist, of which nothing can be said.
    """
    *parents, last = path.removeprefix(f"{part}.").split(".")
    owners = [owner for owner in _inside([kind], *part.split(".")) if name in _names([owner])]
    return not owners or any(last in owner.model_fields for owner in _inside(owners, *parents))


def flatten(settings: Settings, defaults: bool = False) -> dict[str, Any]:
    """Settings as `{dotted path: plain value}`.

    Without `defaults`, a value equal to its class's own default is left out, so that a setting added later, whose
    default keeps the old behaviour, changes no trial key. A part that can be off is marked `on`; `name` always stays.
    """
    return _flatten(settings, defaults=True) if defaults else dict(settings._plain)


def difference(before: Settings, after: Settings) -> dict[str, tuple[Any, Any]]:
    """`{dotted path: (value before, value after)}` of every setting in which two settings of one class differ.

    A part that was switched on or off is one entry. A part replaced by another of its kind gives the new `name`, and
    what the new part sets beside its own defaults.
    """
    changed: dict[str, tuple[Any, Any]] = {}
    for name in type(before).model_fields:
        a, b = getattr(before, name), getattr(after, name)
        if a is b:
            continue
        if isinstance(a, Settings) and isinstance(b, Settings):
            inner = difference(a, b) if type(a) is type(b) else _replacement(a, b)
            changed |= {f"{name}.{path}": pair for path, pair in inner.items()}
        elif isinstance(a, Settings) or isinstance(b, Settings):
            changed[name] = ("on", None) if b is None else (None, "on")
        elif a != b:
            old, new = (settings.model_dump(mode="json", include={name})[name] for settings in (before, after))
            changed[name] = (old, new)
    return changed


def _flatten(settings: Settings, defaults: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    said: set[str] = set()
    for name, (default, can_be_off) in _fields(type(settings)).items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            if can_be_off:
                plain[name] = "on"
            plain |= {f"{name}.{inner}": it for inner, it in flatten(value, defaults).items()}
        elif defaults or name == "name" or value != default:
            said.add(name)
            plain[name] = None  # its place in the order
    return plain | settings.model_dump(mode="json", include=said) if said else plain


@cache
def _fields(kind: type[Settings]) -> dict[str, tuple[Any, bool]]:
    """The fields of a class: default, and whether it is a part that can be off."""
    return {
        name: (field.get_default(call_default_factory=True), types.NoneType in typing.get_args(field.annotation))
        for name, field in kind.model_fields.items()
    }


def _replacement(before: Settings, after: Settings) -> dict[str, tuple[Any, Any]]:
    named = {"name": (flatten(before).get("name"), flatten(after).get("name"))}
    beside = difference(type(after)(), after)  # a part that is on by default and is off here keeps its "on"
    return named | {path: (old if old == "on" else None, new) for path, (old, new) in beside.items()}


def _put(tree: dict[str, Any], keys: list[str], value: Any, kind: type[Settings], where: str) -> None:
    *parents, last = keys
    if keys[0] not in tree:
        raise BadInput(f"{where}: {_unknown(kind, '', keys[0], tree, keys)}")
    node = tree
    for key in parents:
        if not isinstance(node.get(key), dict):
            node[key] = {}
        node = node[key]
    if last == "name" and node.get("name") != value:
        node.clear()
    if value == {} and isinstance(node.get(last), dict):
        return
    node[last] = value


def _numbers_from_truth(values: Mapping[str, Any], settings: Settings, prefix: str = "") -> Iterator[str]:
    """Where true or false was given for a number: pydantic would read 1 or 0."""
    for name, value in values.items():
        taken = getattr(settings, name, None)
        if isinstance(value, bool) and isinstance(taken, int | float) and not isinstance(taken, bool):
            yield f"{prefix}{name}"
        elif isinstance(value, Mapping) and isinstance(taken, Settings):
            yield from _numbers_from_truth(value, taken, f"{prefix}{name}.")


def _describe(kind: type[Settings], values: Any, error: ValidationError) -> tuple[str, str]:
    """The first problem of a validation: its path, and 'path: what is wrong; what is allowed'."""
    problem = error.errors(include_url=False)[0]
    sort, given, context = problem["type"], problem["input"], problem.get("ctx", {})
    path, owners = _follow(kind, problem["loc"], values, missing=sort == "missing")
    prefix = f"{path}: " if path else ""
    if sort == "extra_forbidden":
        parent, _, word = path.rpartition(".")
        allowed = {name for owner in owners for name in owner.model_fields}
        return path, _unknown(kind, parent, word, allowed, path.split("."))
    if sort == "union_tag_invalid":
        word = str(context["tag"])
        return path, f"{path}.name: unknown name '{word}'; {nearest(word, _names(owners))}"
    if sort == "union_tag_not_found":
        return path, f"{prefix}expected settings with a name, one of: {', '.join(_names(owners))}"
    if sort == "literal_error" and isinstance(given, str):
        allowed = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
        return path, f"{prefix}'{given}' is not allowed; {nearest(given, allowed)}"
    shown = "" if isinstance(given, Mapping | list | tuple) else f" (given: {str(given)[:60]!r})"
    if isinstance(given, int | float | None):
        shown = f" (given: {json.dumps(given)})"  # true and null, as in the file
    if sort in ("model_type", "model_attributes_type", "dict_type"):
        off = "; what is off is written null" if given in ("off", "none", False) else ""
        return path, f"{prefix}expected settings as 'name: value'{shown}{off}"
    message = problem["msg"].removeprefix("Value error, ")
    return path, f"{prefix}{message[0].lower()}{message[1:]}{shown if sort != 'value_error' else ''}"


def _unknown(kind: type[Settings], parent: str, word: str, allowed: Iterable[str], written: list[str]) -> str:
    """What to say of an unknown setting: where a setting of that name does stand, else the nearest spelling here."""
    leaf = written[-1]
    elsewhere = [path for path in dict.fromkeys(_paths(kind)) if path.split(".")[-1] == leaf]
    elsewhere = [path for path in elsewhere if path != ".".join(written)]  # another encoder's setting, for one
    here = f"{parent}: " if parent else ""
    if elsewhere and leaf not in allowed:
        hint = f"did you mean {' or '.join(repr(path) for path in elsewhere[:3])}? allowed here: "
        return f"{here}unknown setting '{word}'; {hint}{', '.join(sorted(allowed))}"
    return f"{here}unknown setting '{word}'; {nearest(word, allowed)}"


def _follow(
    kind: type[Settings], location: tuple[int | str, ...], values: Any, missing: bool
) -> tuple[str, list[type[Settings]]]:
    """The dotted path that a user wrote (pydantic's own tags of unions left out), and the classes that may own it."""
    path, owners, node, keyed = "", [kind], values, False
    for depth, part in enumerate(location):
        if isinstance(node, list | tuple) and isinstance(part, int):
            path, node = f"{path}[{part}]", node[part] if part < len(node) else None
        elif isinstance(node, Mapping) and (part in node or (missing and depth == len(location) - 1)):
            path, node = f"{path}.{part}" if path else str(part), node.get(part)
            if keyed:  # the key of a dict of settings
                keyed = False
                continue
            fields = [owner.model_fields[str(part)] for owner in owners if part in owner.model_fields]
            if fields:  # an unknown key keeps the owners: those of the part that it stands in
                keyed = any(_allows(dict, field.annotation) for field in fields)
                owners = [found for field in fields for found in _classes(field.annotation)]
                name = node.get("name") if isinstance(node, Mapping) else None
                owners = [owner for owner in owners if name in _names([owner])] or owners
        else:
            owners = [owner for owner in owners if owner.__name__ == part] or owners
    return path, owners


def _classes(annotation: Any) -> list[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [found for inner in typing.get_args(annotation) for found in _classes(inner)]


def _inside(owners: list[type[Settings]], *keys: str) -> list[type[Settings]]:
    """The classes that may stand at a path below those of `owners`."""
    for key in keys:
        fields = [owner.model_fields[key] for owner in owners if key in owner.model_fields]
        owners = [found for field in fields for found in _classes(field.annotation)]
    return owners


def _allows(kind: type, annotation: Any) -> bool:
    """Whether `annotation` is `kind`, or has it as a choice."""
    if annotation is Any or annotation is kind or typing.get_origin(annotation) is kind:
        return True
    if typing.get_origin(annotation) is typing.Literal:
        return any(isinstance(choice, kind) for choice in typing.get_args(annotation))
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated)
    return union and any(_allows(kind, inner) for inner in typing.get_args(annotation))


def _names(kinds: list[type[Settings]]) -> list[str]:
    """The `name` of each class that has one."""
    return [str(kind.model_fields["name"].default) for kind in kinds if "name" in kind.model_fields]


def _paths(kind: type[Settings], prefix: str = "") -> Iterator[str]:
    """Every dotted path that settings of `kind` can have, those of parts that are off included."""
    for name, field in kind.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _classes(field.annotation):
            yield from _paths(inner, f"{prefix}{name}.")
