"""What a trial's key covers, in what two trials differ, and which records are most like a trial. Launches nothing."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from raysd.data.store import open_store
from raysd.detect.proxies import HELD_OUT
from raysd.errors import BadInput, nearest
from raysd.recipe import NUMERICS, Recipe, recipe_key, training_key, trial_key
from raysd.results.store import Record, Results
from raysd.session import Session
from raysd.settings import difference, flatten, parse

Part = Literal["settings", "scoring", "seed", "data", "numerics"]
PARTS: dict[Part, tuple[str, bool, bool]] = {
    "settings": ("the settings, but those of the scoring", True, True),
    "scoring": ("the settings of the scoring", True, False),
    "seed": ("the seed", False, True),
    "data": ("the fingerprint of the data", False, True),
    "numerics": ("the revision of the code's numerics", False, True),
}
"""What a trial's key covers: in words, and whether the recipe key and the training key cover it too."""

ABSENT = "(no such setting)"

_COLUMNS = [
    *("key", "training_key", "recipe_key", "numerics", "seed", "data_fingerprint", "recipe"),
    *("study", "variant", "finished"),
]

Corpus = dict[tuple[str, str, str, str], frozenset[str]]
"""(part, machine, section, split) -> the paths of its clips."""


@dataclass(frozen=True)
class Subject:
    """A trial to be explained: one of a study, or one that the results hold."""

    label: str
    recipe: Recipe | None
    """None: a record's recipe that today's code cannot read."""
    plain: dict[str, Any]
    """Every setting by dotted path, as JSON has it; of a record as it was written."""
    seed: int
    fingerprint: str | None
    """None: the data is not known."""
    numerics: int
    recipe_key: str
    training_key: str | None
    key: str | None
    notes: tuple[str, ...] = ()
    corpus: Callable[[], Corpus | None] = field(default=lambda: None, repr=False, compare=False)
    """Its clips, looked up only where they are asked for; None where they are not known."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the recipe key is made of; every setting where today's code cannot read the recipe."""
        return self.plain if self.recipe is None else flatten(self.recipe)


@dataclass(frozen=True)
class Difference:
    """What a key covers and two trials do not share; None, or nothing, where they do."""

    settings: dict[str, tuple[Any, Any]]
    """Dotted path -> the value of either."""
    plain: bool
    """The settings were compared as JSON, because today's code cannot read one of the recipes."""
    seed: tuple[int, int] | None
    fingerprint: tuple[str, str] | None
    numerics: tuple[int, int] | None
    data_known: bool
    """False: the data of one is not known, and could not be compared."""

    @cached_property
    def parts(self) -> frozenset[Part]:
        """In which parts of a key they differ."""
        scoring = [path for path in self.settings if path.startswith("scoring.")]
        found: dict[Part, bool] = {
            "settings": len(scoring) < len(self.settings),
            "scoring": bool(scoring),
            "seed": self.seed is not None,
            "data": self.fingerprint is not None,
            "numerics": self.numerics is not None,
        }
        return frozenset(part for part, differs in found.items() if differs)


@dataclass(frozen=True)
class Near:
    """A record like the trial, and in what it differs; `others` more differ in the same parts."""

    there: Subject
    difference: Difference
    others: int


@dataclass(frozen=True)
class Explanation:
    """One trial against the results."""

    subject: Subject
    results: str
    found: str | None
    """How the results name it; None where they do not hold it."""
    failed: int
    """Failed attempts at it."""
    trained: bool
    """Its embeddings are there, so that only the scoring is missing."""
    records: int
    """Trials that the results hold."""
    near: tuple[Near, ...]
    """The records most like it, where it is not there. Each differs in parts of the key of which no record differs in
    fewer."""


def of_variant(session: Session, words: str) -> Subject:
    """The trial that `VARIANT` or `VARIANT:SEED` names, without a seed the first of the study's.

    Raises BadInput for a variant that the study does not have.
    """
    known = {variant.name: variant for variant in session.study.variants}
    name, colon, seed_text = words.rpartition(":")
    if words in known or not (colon and seed_text.isdecimal()):
        name, seed_text = words, str(session.study.study.seeds[0])
    if name not in known:
        raise BadInput(f"{session.study.name}: no variant '{name}'; {nearest(name, known)}")
    recipe, seed, fingerprint = known[name].recipe, int(seed_text), session.fingerprint(known[name].recipe)

    def corpus() -> Corpus | None:
        if session.data_root is None or fingerprint is None:
            return None
        return corpus_of(open_store(session.data_root, recipe.data, session.cache, session.skip_bad).clips)

    return Subject(
        label=f"{session.study.name}: {name}, seed {seed}",
        recipe=recipe,
        plain=_flat(recipe.model_dump(mode="json")),
        seed=seed,
        fingerprint=fingerprint,
        numerics=NUMERICS,
        recipe_key=recipe_key(recipe),
        training_key=fingerprint and training_key(recipe, seed, fingerprint),
        key=fingerprint and trial_key(recipe, seed, fingerprint),
        corpus=corpus,
    )


def of_record(results: Results, record: Record) -> Subject:
    """The trial of a record."""
    row = {column: getattr(record, column) for column in _COLUMNS}
    return _of_row(results, row, *_read_recipe(record.recipe))


def differ(a: Subject, b: Subject) -> Difference:
    """In what two trials differ."""
    if a.recipe is not None and b.recipe is not None:
        settings, plain = difference(a.recipe, b.recipe), False
    else:
        settings, plain = _between(a.plain, b.plain), True
    fingerprint, known = None, False
    if a.fingerprint is not None and b.fingerprint is not None:
        fingerprint, known = (a.fingerprint, b.fingerprint), True
    return Difference(
        settings=settings,
        plain=plain,
        seed=None if a.seed == b.seed else (a.seed, b.seed),
        fingerprint=None if a.fingerprint == b.fingerprint else fingerprint,
        numerics=None if a.numerics == b.numerics else (a.numerics, b.numerics),
        data_known=known,
    )


def explain(subject: Subject, results: Results) -> Explanation:
    """Whether the results hold the trial, and if not, what they hold that is most like it."""
    rows = results.rows(_COLUMNS)
    own = next((row for row in rows if subject.key == row["key"]), None)
    return Explanation(
        subject=subject,
        results=str(results),
        found=None if own is None else f"{_name(own)}, finished {own['finished']:%Y-%m-%d %H:%M} UTC",
        failed=len(results.failures(["key"], {subject.key or ""})),
        trained=subject.training_key in results.trained(),
        records=len(rows),
        near=() if own is not None else _nearest(subject, results, rows),
    )


def corpus_of(clips: pd.DataFrame) -> Corpus:
    """The clips of a store's index, or of a record's scores. Those held out of the training are training clips."""
    found: dict[tuple[str, str, str, str], set[str]] = {}
    columns = ["part", "machine", "section", "split", "path"]
    for part, machine, section, split, path in clips[columns].itertuples(index=False, name=None):
        kind = "train" if split == HELD_OUT else split
        if kind in ("train", "test"):  # the rest are stand-ins made of these
            found.setdefault((part, machine, section, kind), set()).add(path)
    return {at: frozenset(paths) for at, paths in found.items()}


def _nearest(subject: Subject, results: Results, rows: Iterable[dict[str, Any]]) -> tuple[Near, ...]:
    recipes: dict[str, tuple[Recipe | None, dict[str, Any]]] = {}
    alike: dict[frozenset[Part], list[tuple[int, datetime, Subject, Difference]]] = {}
    for row in rows:
        text = row["recipe"]
        if text not in recipes:
            recipes[text] = _read_recipe(text)
        there = _of_row(results, row, *recipes[text])
        how = differ(there, subject)
        alike.setdefault(how.parts, []).append((len(how.settings), row["finished"], there, how))
    found = []
    for parts in sorted(alike, key=lambda parts: (len(parts), [part not in parts for part in PARTS])):
        if not any(fewer < parts for fewer in alike):
            best = min(alike[parts], key=lambda one: (one[0], -one[1].timestamp()))
            found.append(Near(best[2], best[3], len(alike[parts]) - 1))
    return tuple(found)


def _of_row(results: Results, row: Mapping[str, Any], recipe: Recipe | None, plain: dict[str, Any]) -> Subject:
    notes = []
    if recipe is None:
        notes.append(
            "an earlier code wrote its recipe, and this one cannot read it: settings are compared as they stand"
        )
    elif recipe_key(recipe) != row["recipe_key"]:
        notes.append("an earlier code named its recipe in another way, so that this one would give it other keys")
    if row["numerics"] != NUMERICS:
        notes.append(f"this code has revision {NUMERICS} of the numerics, and would train it anew")
    return Subject(
        label=f"{row['key']} ({_name(row)})",
        recipe=recipe,
        plain=plain,
        notes=tuple(notes),
        fingerprint=row["data_fingerprint"],
        corpus=lambda: corpus_of(pd.DataFrame(results.read(row["key"]).scores)),
        **{name: row[name] for name in ("seed", "numerics", "recipe_key", "training_key", "key")},
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['study']}: {row['variant']}, seed {row['seed']}"


def _read_recipe(text: str) -> tuple[Recipe | None, dict[str, Any]]:
    """A record's recipe as today's code reads it, settings added since at their defaults; and as it stands."""
    tree = json.loads(text)
    try:
        return parse(Recipe, tree, "recipe"), _flat(tree)
    except BadInput:
        return None, _flat(tree)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _between(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    pairs = {path: (a.get(path, ABSENT), b.get(path, ABSENT)) for path in {**a, **b}}
    return {path: (one, other) for path, (one, other) in pairs.items() if one != other}
