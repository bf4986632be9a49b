"""What `raysd explain` prints of one trial, or of two."""

import json
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raysd.explain import PARTS, Corpus, Difference, Explanation, Near, Part, Subject, differ

FINGERPRINT = (
    "A data fingerprint covers how clips are decoded (data.sample_rate_hz, channel, dtype) and of each clip its path, "
    "the checksum of its file, machine, section, part, split and attributes, and the domain of a training clip."
)
NO_DATA = "not known: give --data-root"

_SHOWN = 3  # paths that are named of those that one corpus has and the other has not


def render(explanation: Explanation) -> Group:
    """For a terminal: what the key covers, whether the results hold the trial, and if not, what is most like it."""
    subject, here = explanation.subject, explanation.results
    lines = [f"note: {note}" for note in subject.notes]
    if explanation.found is not None:
        lines.append(f"in {here}: {explanation.found}")
    elif subject.key is None:
        lines.append(f"the data is not known (give --data-root), so {here} was searched for everything but the data")
    else:
        failed = f", but {explanation.failed} failed attempts" if explanation.failed else ""
        lines.append(f"not in {here}{failed}")
        if explanation.trained:
            lines.append("its training is there: only the scoring is missing")
    if explanation.found is None and not explanation.records:
        lines.append("it holds no finished trial, so there was nothing to reuse")
    elif explanation.near:
        lines.append(f"the nearest of its {explanation.records} trials, and why they are not this one:")
    nearest_ones = [renderable for near in explanation.near for renderable in _render_near(near, subject)]
    return Group(
        Text(subject.label, style="bold"), _covered(subject), _listed(subject), *map(Text, lines), *nearest_ones
    )


def render_difference(a: Subject, b: Subject) -> Group:
    """The difference between two trials, for a terminal; or that they are one."""
    how = differ(a, b)
    heading = [Text(f"first:  {a.label}", style="bold"), Text(f"second: {b.label}", style="bold")]
    notes = [Text(f"note, {place}: {note}") for place, one in (("first", a), ("second", b)) for note in one.notes]
    if how.parts:
        return Group(*heading, *notes, *_render_parts(how, a, b, ("first", "second")))
    if not how.data_known:
        return Group(*heading, *notes, Text(f"the same but for the data, which is {NO_DATA}"))
    if a.key == b.key:
        return Group(*heading, *notes, Text(f"one trial: {a.key}"))
    return Group(*heading, *notes, Text("the same in all that this code can compare, but their keys differ"))


def _covered(subject: Subject) -> Table:
    """What each key covers."""
    table = Table(box=box.SIMPLE_HEAD)
    names = ("recipe key", "training key", "trial key")
    keys = (subject.recipe_key, subject.training_key, subject.key)
    table.add_column("what it covers")
    table.add_column("here", overflow="fold")
    for name, key in zip(names, keys, strict=True):
        table.add_column(Text(f"{name}\n{key or 'needs the data'}"), justify="center")
    values: dict[Part, str] = {
        "settings": "below",
        "scoring": "below",
        "seed": str(subject.seed),
        "data": subject.fingerprint or NO_DATA,
        "numerics": str(subject.numerics),
    }
    for part, (words, of_recipe, of_training) in PARTS.items():
        marks = ["yes" if covers else "-" for covers in (of_recipe, of_training, True)]
        table.add_row(words, Text(values[part]), *marks)
    return table


def _listed(subject: Subject) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("setting" if subject.recipe is None else "setting, where not at its default", overflow="fold")
    table.add_column("value", overflow="fold")
    for path, value in subject.settings.items():
        table.add_row(Text(path), Text(_text(value)))
    return table


def _render_near(near: Near, here: Subject) -> list[RenderableType]:
    parts = " and ".join(part for part in PARTS if part in near.difference.parts)
    likewise = f"; {near.others} more likewise" if near.others else ""
    what = "the same, but named in another way" if near.difference.data_known else "the same, if the data is the same"
    what = f"differs in {parts}{likewise}" if parts else f"{what} ({near.there.fingerprint})"
    notes = [Text(f"note: {note}") for note in near.there.notes]
    shown = _render_parts(near.difference, near.there, here, ("there", "here"))
    return [Text(f"\n{near.there.label}: {what}", style="bold"), *notes, *shown]


def _render_parts(how: Difference, a: Subject, b: Subject, columns: tuple[str, str]) -> list[RenderableType]:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("what differs", *columns):
        table.add_column(name, overflow="fold")
    for path, pair in how.settings.items():
        off = "on" in pair and None in pair
        table.add_row(Text(path), *(Text("off" if off and value is None else _text(value)) for value in pair))
    for name, pair in (("seed", how.seed), ("data fingerprint", how.fingerprint), ("numerics revision", how.numerics)):
        if pair is not None:
            table.add_row(name, *map(Text, map(str, pair)))
    shown: list[RenderableType] = [table] if table.row_count else []
    if how.parts and not how.data_known:
        shown.append(Text("the data was not compared: it is not known here (give --data-root)"))
    if how.plain:
        shown.append(Text("settings compared as they stand in the results: this code cannot read one of the recipes"))
    if how.parts == {"scoring"}:
        shown.append(Text("only the scoring differs: both share one training"))
    return shown + (_render_corpora(a.corpus(), b.corpus(), columns) if how.fingerprint is not None else [])


def _render_corpora(a: Corpus | None, b: Corpus | None, columns: tuple[str, str]) -> list[RenderableType]:
    """Where two corpora differ, as far as it is known."""
    shown: list[RenderableType] = [Text(FINGERPRINT)]
    if a is None or b is None:
        return [*shown, Text("the clips of one of the two are not known, so that no more can be said")]
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("clips", *columns):
        table.add_column(name, justify="right" if table.columns else "left")
    for at in sorted(a.keys() | b.keys()):
        if a.get(at) != b.get(at):
            table.add_row(Text(" ".join(at)), *(str(len(corpus.get(at, ()))) for corpus in (a, b)))
    paths = [frozenset[str]().union(*corpus.values()) for corpus in (a, b)]
    table.add_row("all", *(str(len(own)) for own in paths), end_section=True)
    shown.append(table)
    for place, own, other in ((columns[0], *paths), (columns[1], *reversed(paths))):
        if own - other:
            some = sorted(own - other)
            more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
            shown.append(Text(f"only {place}: {', '.join(some[:_SHOWN])}{more}"))
    if a == b:
        shown.append(
            Text(
                "the same clips by name: the recordings themselves, what they are labelled with, or the decoding differ"
            )
        )
    return shown


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
