"""The YAML of study and recipe files: plain values, read with the safe loader and within bounds."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from raysd.errors import BadInput

MOST_CHARACTERS = 2**20
"""Of a file of settings, with what its aliases stand for written out: far more than anybody writes."""
MOST_LEVELS = 100
"""How deeply values may be nested."""
LARGEST = 2**63 - 1
"""Whole numbers beyond it fit neither records nor the arithmetic of a plan."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, read with the safe loader; raises BadInput where there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARACTERS + 1)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    try:
        values = _load_yaml(text)
    except _YAML_ERRORS as error:
        raise BadInput(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise BadInput(f"{path}: expected settings as 'name: value' lines, found {found}")
    return values


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`["loss.temperature=0.1"]` from a command line as `{"loss.temperature": 0.1}`; values are YAML."""
    changes: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals or not path.strip():
            raise BadInput(f"--set {assignment}: expected SETTING=VALUE, for instance --set train.epochs=20")
        try:
            changes[path.strip()] = _load_yaml(value)
        except _YAML_ERRORS as error:
            raise BadInput(f"--set {assignment}: not a YAML value: {error}") from None
    return changes


class _Loader(yaml.SafeLoader):
    """The safe loader with the plain words of YAML 1.2: `off`, `yes`, `01` and dates are text, `1e-3` is a number.

    Keys are always text and may stand once. (YAML 1.1 would read the key `off` as false and `1e-3` as text.) Whole
    numbers have a limit.
    """

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"'{key.value}' stands twice", key.start_mark
                        )
                    seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        if abs(number) > LARGEST:
            raise yaml.constructor.ConstructorError(None, None, "this number is too large", node.start_mark)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _tag, _pattern, _first in [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


_YAML_ERRORS = (
    *(yaml.YAMLError, RecursionError, ValueError, TypeError),
    *(ArithmeticError, AttributeError, LookupError),  # what PyYAML makes of `!!int ''`, `!!bool x` or "\UFFFFFFFF"
)


def _load_yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"more than {MOST_CHARACTERS:,} characters")
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, {})
        values = loader.construct_document(node)
    finally:
        loader.dispose()
    json.dumps(values, ensure_ascii=False).encode()  # a binary, a set or half of a surrogate pair raises here
    return values


def _check_size(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Characters and levels of a node with aliases written out; raises ValueError where they are too many.

    A few lines of aliases of aliases can stand for more than any memory holds.
    """
    if isinstance(node, yaml.ScalarNode):
        return len(node.value) + 1, 1
    if id(node) not in known:
        known[id(node)] = None
        inner = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
        sizes = [_check_size(part, known) for part in inner]
        characters = 1 + sum(size for size, _ in sizes)
        levels = 1 + max((level for _, level in sizes), default=0)
        if characters > MOST_CHARACTERS:
            raise ValueError(f"its aliases stand for more than {MOST_CHARACTERS:,} characters")
        if levels > MOST_LEVELS:
            raise ValueError(f"nested more than {MOST_LEVELS} levels deep")
        known[id(node)] = characters, levels
    size = known[id(node)]
    if size is None:
        raise ValueError("an anchor stands inside itself")
    return size
