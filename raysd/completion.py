"""What the shell offers at TAB for studies, profiles, settings and trials.

It has to answer at once, so that nothing here imports torch, and only trials import pandas. Whatever cannot be read is
passed over: a command says what is wrong with it, completion never does.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import typer

from raysd.errors import BadInput
from raysd.model.published import PUBLISHED
from raysd.study.places import beside, find_study, is_file, predefined_folder, predefined_studies

Offers = list[tuple[str, str]]
"""Value and what it is, in a line."""

BROKEN = "_RAYSD_COMPLETE_BROKEN"
"""Environment variable: what bash has cut off the word that is completed; see `mend_bash_words`."""

_OF_THE_FILE = ("extends", "question", "factors", "variants", "changes")
"""Keys of a study file that nobody sets from a command line."""


def mend_bash_words(environ: MutableMapping[str, str]) -> None:
    """Puts together again the words that bash breaks at `=` and `:`, in the variables by which typer gets them.

    Of the word that is completed bash replaces what stands behind the last break only; what stands before it goes to
    the variable `BROKEN`, and is left out of what is offered.
    """
    words, at = environ.get("COMP_WORDS", "").split("\n"), int(environ.get("COMP_CWORD", "0"))
    if at >= len(words):
        return
    mended, glued, tail = list[str](), False, ""
    for word in words[: at + 1]:
        is_break = bool(word) and set(word) <= set("=:")
        if mended and (is_break or glued):
            mended[-1] += word
        else:
            mended.append(word)
        glued, tail = is_break, "" if is_break else word
    option, equals, value = mended[-1].partition("=")
    if equals and option.startswith("--"):
        mended[-1:] = [option, value]
    environ[BROKEN] = mended[-1].removesuffix(tail)
    environ["COMP_WORDS"] = "\n".join([*mended[:-1], tail])
    environ["COMP_CWORD"] = str(len(mended) - 1)


def _offers(found: Callable[[typer.Context, str], Offers]) -> Callable[[typer.Context, str], Offers]:
    """A completion for typer: of what is found, what goes on as the word begins."""

    def complete(ctx: typer.Context, incomplete: str) -> Offers:
        broken = os.environ.get(BROKEN, "")
        word = broken + incomplete
        try:
            offers = found(ctx, word)
        except (BadInput, OSError, ValueError):
            return []
        # a longer text would be folded, and fish would take its second line for another offer
        short = [(value, shorten(about, 60, placeholder=" ...")) for value, about in offers]
        return [
            (value.removeprefix(broken), about) for value, about in short if value.startswith(word) and value != broken
        ]

    return complete


@_offers
def studies(ctx: typer.Context, word: str) -> Offers:
    """The predefined studies, and the study files in the folder that the word begins with."""
    return _studies(word)


@_offers
def profiles(ctx: typer.Context, word: str) -> Offers:
    """The profiles of the baseline recipe of the study that stands on the line already."""
    # where an option still lacks its value, typer leaves the arguments in ctx.args
    parsed = [ctx.params.get(name) for name in ("study", "name", "what")]
    named = next((str(value) for value in [*parsed, *ctx.args] if value), None)
    if named is None:
        return []
    recipe = _baseline(find_study(named.partition(":")[0]))
    return [(str(name), "") for name in _read_yaml(recipe).get("profiles", {})] if recipe else []


@_offers
def settings(ctx: typer.Context, word: str) -> Offers:
    """`SETTING=`, and behind it the values that the setting can have, or else its default."""
    known = _settings()
    path, equals, _ = word.partition("=")
    matching = [path] if equals else [name for name in known if name.startswith(path)]
    if len(matching) != 1:
        return [(f"{name}=", known[name].about) for name in matching]
    setting = known.get(matching[0], _Setting())
    values = [(f"{matching[0]}={value}", setting.about) for value in setting.values]
    return values if equals else [*values, (f"{matching[0]}=", setting.about)]


@_offers
def trials(ctx: typer.Context, word: str) -> Offers:
    """The trials in the results, where they are in a folder of this machine."""
    return _keys(ctx)


@_offers
def studies_or_trials(ctx: typer.Context, word: str) -> Offers:
    """What `raysd explain` takes: `STUDY:VARIANT`, of which only the baseline is known without torch, and trials."""
    found = [(name, about) for name, about in _studies(word) if name.startswith(word.partition(":")[0])]
    only = [(f"{name}:baseline", about) for name, about in found] if len(found) == 1 else []
    return [*((f"{name}:", about) for name, about in found), *only, *(_keys(ctx) if word else [])]


@_offers
def weights(ctx: typer.Context, word: str) -> Offers:
    """The published checkpoints."""
    return [(row.name, row.figures) for row in PUBLISHED.values()]


@_offers
def weights_or_files(ctx: typer.Context, word: str) -> Offers:
    """The same, and the files of weights in the folder that the word begins with."""
    folder = word[: word.rfind("/") + 1]
    files = [path for path in sorted(Path(folder).glob("*.pt*")) if path.suffix in (".pt", ".pth")]
    names = [(row.name, row.figures) for row in PUBLISHED.values()]
    return [*names, *((f"{folder}{path.name}", "a file") for path in files)]


def _studies(word: str) -> Offers:
    folder = word[: word.rfind("/") + 1]
    files = {f"{folder}{path.name}": path for path in sorted(Path(folder).glob("*.yaml"))}
    return [(name, asked) for name, path in {**predefined_studies(), **files}.items() if (asked := _question(path))]


def _keys(ctx: typer.Context) -> Offers:
    root = str(ctx.params.get("results") or os.environ.get("RAYSD_RESULTS") or "results")
    if not Path(root).is_dir():
        return []
    from raysd.results.store import Results

    return [(key, "") for key in sorted(Results(root).done())]


def _question(path: Path) -> str | None:
    """The question of a study file; None for another file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    asked = re.search(r"^question: *[\"']?(.*?)[\"']?$", text, re.MULTILINE)
    extends = re.search(r"^extends: *(\S+)", text, re.MULTILINE)
    return asked[1] if asked else f"extends {extends[1]}" if extends else None


def _baseline(study: Path) -> Path | None:
    """The baseline recipe of a study, or of the one that it extends."""
    for _ in range(10):  # no study extends so many; a circle ends here
        values = _read_yaml(study)
        if "baseline" in values:
            return beside(study, str(values["baseline"]), "baseline")
        if "extends" not in values:
            return None
        other = str(values["extends"])
        study = study.parent / other if is_file(study.parent / other) else find_study(other)
    return None


def _read_yaml(path: Path) -> dict[str, Any]:
    from raysd.yaml_values import read_yaml

    try:
        return read_yaml(path)
    except BadInput:
        return {}


@dataclass(frozen=True)
class _Setting:
    """What a schema says of one setting."""

    values: tuple[str, ...] = ()
    """All that it can be, where that is a few words; else its default, and null where it can be that."""
    about: str = ""


def _settings() -> dict[str, _Setting]:
    """All that `--set` takes, by dotted path, out of the JSON schema of study files."""
    schema = json.loads((predefined_folder() / "study.schema.json").read_text(encoding="utf-8"))
    alone = schema.get("else", {}).get("properties", {})  # of a study that extends no other
    of_study = {key: of for key, of in {**schema["properties"], **alone}.items() if key not in _OF_THE_FILE}
    found: dict[str, _Setting] = {}
    for part in (schema["$defs"]["Recipe"], {"properties": of_study}):
        for path, setting in _below(schema, part, ""):
            known = found.get(path, _Setting())  # several encoders have a setting of one name
            found[path] = replace(setting, values=(*dict.fromkeys(known.values + setting.values),))
    return found


def _below(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> Iterator[tuple[str, _Setting]]:
    for name, value in node.get("properties", {}).items():
        path, of = f"{prefix}{name}", _resolved(schema, value)
        choices = list(_choices(schema, of))
        parts = [choice for choice in choices if "properties" in choice]
        if len(parts) < len(choices):  # a setting, or a part that can be off
            values = [value for choice in choices for value in _values(choice)]
            if not all(_values(choice) for choice in choices) and not isinstance(of.get("default"), dict | list):
                values = [of["default"], *values] if "default" in of else values
            words = [value if isinstance(value, str) else json.dumps(value) for value in values]
            yield path, _Setting(tuple(dict.fromkeys(words)), str(of.get("description", "")).partition(". ")[0])
        for part in parts:
            yield from _below(schema, part, f"{path}.")


def _choices(schema: dict[str, Any], of: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a value may be, alternatives within alternatives included."""
    if "anyOf" not in of:
        yield of
    for choice in of.get("anyOf", []):
        yield from _choices(schema, _resolved(schema, choice))


def _values(of: dict[str, Any]) -> list[Any]:
    """What is allowed, where it is a few words."""
    by_type = {"boolean": [True, False], "null": [None]}
    return of.get("enum") or ([of["const"]] if "const" in of else by_type.get(str(of.get("type")), []))


def _resolved(schema: dict[str, Any], value: Any) -> dict[str, Any]:
    """A schema's entry with its references followed."""
    while isinstance(value, dict) and "$ref" in value:
        target: Any = schema
        for key in value["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        value = {**target, **{key: of for key, of in value.items() if key != "$ref"}}
    return value if isinstance(value, dict) else {}
