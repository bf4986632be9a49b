"""A study file put together with those that it extends."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raysd.errors import BadInput, nearest
from raysd.recipe import pin_all
from raysd.study.files import Changes
from raysd.study.places import is_file, predefined_studies, shown
from raysd.yaml_values import read_yaml


@dataclass(frozen=True)
class Source:
    """A file that a study names."""

    path: Path
    named: str
    """As it is named there."""
    where: str
    """The file and the key that name it."""


@dataclass(frozen=True)
class StudyFile:
    """A study file, put together with those that it extends."""

    path: Path
    values: Changes
    """What it says and what it inherits, not yet checked."""
    said_in: dict[str, Path]
    """`seeds` or `factors.NAME` -> the file that says it."""
    extended: tuple[Source, ...] = ()
    """The study that it extends, the one that that extends, and so on."""

    def origin(self, setting: str = "") -> Path:
        """The file in which a dotted path of the study stands."""
        said = [key for key in self.said_in if setting == key or setting.startswith((f"{key}.", f"{key}["))]
        return self.said_in[max(said, key=len)] if said else self.path

    def where(self, setting: str = "") -> str:
        """The same as a user reads it."""
        return shown(self.origin(setting))

    def pinned(self, pin: Callable[[str, Path], str]) -> "StudyFile":
        """With `pin` applied to what names a checkpoint, and to the folder of the file that says it."""

        def of(path: str, value: Any) -> Any:
            if path in _BY_ENTRY and isinstance(value, dict):
                return {entry: of(f"{path}.{entry}", inner) for entry, inner in value.items()}
            return pin_all(value, lambda said: pin(said, self.origin(path).parent))

        return replace(self, values={key: of(key, value) for key, value in self.values.items()})

    def with_values(self, changes: Changes) -> "StudyFile":
        """With some values replaced, given by dotted path, as if this file said so."""
        values = json.loads(json.dumps(self.values))
        for path, value in changes.items():
            *parents, last = path.split(".")
            node = values
            for key in parents:
                if not isinstance(node.get(key), dict):
                    node[key] = {}
                node = node[key]
            node[last] = value
        here = dict.fromkeys((".".join(path.split(".")[:2]) for path in changes), self.path)
        return replace(self, values=values, said_in=self.said_in | here)


def read_study(path: Path) -> StudyFile:
    """A study file with all that it extends. Raises BadInput for a file that is not there, or that extends itself."""
    return _read_study(path, ())


_BY_ENTRY = ("factors", "variants", "changes", "scale")


def _read_study(path: Path, below: tuple[Path, ...]) -> StudyFile:
    values = read_yaml(path)
    said_in = dict.fromkeys(values, path)
    for key in _BY_ENTRY:
        if isinstance(values.get(key), dict):
            said_in |= {f"{key}.{entry}": path for entry in values[key]}
    extends = values.get("extends")
    if extends is None:
        return StudyFile(path, values, said_in)

    below = (*below, path)
    other = _extended(path, extends)
    if other.resolve() in [known.resolve() for known in below]:
        circle = " -> ".join(shown(known) for known in (*below, other))
        raise BadInput(f"{shown(path)}: extends: the files extend each other in a circle: {circle}")
    base = _read_study(other, below)
    merged, inherited = dict(base.values), dict(base.said_in)
    for key, value in values.items():
        if value is None and key in merged:  # left out
            del merged[key]
            continue
        if key in _BY_ENTRY and isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = _entries(key, merged[key], value)
        else:
            inherited = {said: file for said, file in inherited.items() if not said.startswith(f"{key}.")}
        merged[key] = value
    source = Source(other, extends, f"{shown(path)}: extends")
    return StudyFile(path, merged | {"extends": extends}, inherited | said_in, (source, *base.extended))


def _entries(key: str, inherited: Changes, own: Changes) -> Changes:
    if key == "changes":  # later ones win, so that `train.epochs` here counts more than `train: {epochs: 5}` there
        return {name: value for name, value in inherited.items() if name not in own} | own
    left_out = {name for name in inherited if name in own and own[name] is None}
    return {name: value for name, value in (inherited | own).items() if name not in left_out}


def _extended(path: Path, name: Any) -> Path:
    if not isinstance(name, str) or not name:
        raise BadInput(f"{shown(path)}: extends: expected the file or the name of another study")
    if is_file(path.parent / name):
        return path.parent / name
    known = predefined_studies()
    if name not in known:
        hint = nearest(name, known)
        raise BadInput(f"{shown(path)}: extends: {name}: no such file beside it, and no study of that name; {hint}")
    return known[name]
