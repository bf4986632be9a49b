"""Whatever a study, recipe or pretraining file holds: it loads, or one line says which file cannot be used and why."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from fuzzing import examples, in_bounded_time, is_one_line
from hypothesis import example, given
from hypothesis import strategies as st

from raysd.errors import BadInput
from raysd.recipe import Recipe, recipe_key
from raysd.settings import parse
from raysd.study.design import LoadedStudy, load_study, trials_of
from raysd.study.files import load_recipe
from raysd.study.places import predefined_folder, predefined_pretrainings, predefined_studies
from raysd.study.pretrainings import load_pretraining
from raysd.yaml_values import read_yaml

RECIPES = {path.name: path for path in sorted((predefined_folder() / "recipes").glob("*.yaml"))}
DOORS: dict[str, Callable[[Path], Any]] = {"study": load_study, "recipe": load_recipe, "pretraining": load_pretraining}
FILES = {
    "study": list(predefined_studies().values()),
    "recipe": list(RECIPES.values()),
    "pretraining": list(predefined_pretrainings().values()),
}
START = 'question: "Does it load?"\nbaseline: recipes/spectrum_contrastive.yaml\n'
FACTOR = "factors: { epochs: { setting: train.epochs, levels: [1, 2] } }\ndesign: one_at_a_time\n"


def loads_or_is_refused(content: bytes, kind: str = "study") -> Any:
    """What a file of that content gives; None where one line that names it says why it cannot be used."""
    with TemporaryDirectory() as folder, in_bounded_time():
        path = Path(folder) / "fuzzed.yaml"
        path.write_bytes(content)
        try:
            loaded = DOORS[kind](path)
        except BadInput as error:
            refused = error
        else:
            refused = None
        if refused is not None:
            assert is_one_line(refused)
            assert "fuzzed.yaml" in str(refused) or (b"extends" in content and ".yaml: " in str(refused))
            return None
        if isinstance(loaded, LoadedStudy):
            again = Path(folder) / "again.yaml"
            said = loaded.study.model_dump(mode="json", exclude_unset=True, exclude={"extends"})
            again.write_bytes(as_yaml(said).encode())
            assert keys(load_study(again)) == keys(loaded)
        recipes = [row.recipe for row in loaded.variants[:3]] if isinstance(loaded, LoadedStudy) else [loaded.recipe]
        for recipe in recipes:
            assert recipe_key(parse(Recipe, recipe.model_dump(mode="json"), "")) == recipe_key(recipe)
        return loaded


def keys(study: LoadedStudy) -> list[tuple[str, int, str, str]]:
    return [(trial.variant, trial.seed, trial.key, trial.training_key) for trial in trials_of(study, "data")]


def as_yaml(value: Any) -> str:
    """Plain values as text that the loader reads as the same values, or refuses."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(str(key))}: {as_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return re.sub(r"[\x7f-\U0010ffff]", lambda one: f"\\U{ord(one[0]):08x}", text)
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(value)]
    return json.dumps(value)


# --- any bytes, any text ----------------------------------------------------------------------------------------------

TOKENS = st.one_of(
    st.sampled_from(["\t", "\n", "\r\n", "\ufeff", "- ", ": ", "? ", "&a ", "*a", "<<: *a\n", "!!int ", "!!bool x"]),
    st.sampled_from(["!!timestamp x", "!!binary x", "!!set {a, b}", "!!python/name:os.system", "{", "}", "[", "]"]),
    st.sampled_from(["---\n", "...\n", "%YAML 1.1\n", "yes", "off", "~", "12:30:45", "2001-01-01", "0x1f", "0o17"]),
    st.sampled_from(["1_000", ".inf", "-.nan", "1e400", "9" * 30, "|", ">-", "#", "'", '"', '"\\ud800"', "\u2028"]),
    st.sampled_from(['"\\U00110000"', '"\\e[31m"', '"\\0"', "\x85", "seeds", "x", "question: q\n", "design: list\n"]),
    st.sampled_from(["baseline: recipes/classical.yaml\n", "factors: ", "variants: ", "extends: "]),
)


@examples(6)
@given(st.sampled_from(list(DOORS)), st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_bytes(kind: str, content: bytes) -> None:
    loads_or_is_refused(content, kind)


@examples(8)
@given(st.sampled_from(list(DOORS)), st.lists(TOKENS, max_size=12).map("".join), st.booleans())
@example("study", 'changes: { data.machines: ["\\ud800"] }', True)
@example("study", 'question: "\\UFFFFFFFF"', False)
@example("study", "seeds: [!!int '']", True)
@example("study", "seeds: [!!bool x]", True)
@example("study", "seeds: [!!timestamp x]", True)
@example("study", "metric: " + "x" * 10_000, True)
@example("study", 'metric: "\\e[2J"', True)
@example("study", "seeds: " + "[" * 5_000, True)
@example("study", "changes: &a { train: *a }", True)
@example("study", "seeds: [99999999999999999999]", True)
def test_any_words_of_yaml(kind: str, text: str, whole: bool) -> None:
    start = {"study": START + FACTOR, "recipe": "train: { epochs: 2 }\n", "pretraining": "corpus: { name: folder }\n"}
    loads_or_is_refused(((start[kind] if whole else "") + text).encode("utf-8", "surrogatepass"), kind)


def test_what_expands_without_bounds_is_refused_at_once() -> None:
    bombs = [
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)),
        f"a0: &a0 {'x' * 100_000}\nseeds: [{', '.join(['*a0'] * 20_000)}]\n",
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000)),
        "question: " + "x" * 2_000_000,
    ]
    for bomb in bombs:
        assert loads_or_is_refused((START + FACTOR + bomb).encode()) is None


# --- trees ------------------------------------------------------------------------------------------------------------

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([2**31, 2**32, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 5e-324, 1e308]),
    st.floats(),
    st.sampled_from(["", "off", "on", "x", "a.b", "train.epochs", "name", ".", "..", "/", "~", "x" * 300, "é\u202e"]),
    st.sampled_from(["a\0b", "\x1b[31m", "\ud800", "\U0001f40d", "checkpoint:x", "audioset:x"]),
    st.sampled_from(["recipes/classical.yaml", "fuzzed.yaml", "../recipes", "s3://x/y"]),
    st.sampled_from(["knn", "gaussian", "cnn", "supcon", "byol", "log_mel", "factorial", "search", "list", "cutoff"]),
    st.text(max_size=5),
)
WORDS = ("name", "setting", "levels", "off", "range", "low", "high", "log", "when", "x", "", "a.b")
KEYS = st.sampled_from([*Recipe.model_fields, *WORDS])
TREES = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
WAYS = st.sampled_from(["drop", "rename", "replace", "replace", "add", "nest", "swap"])
EDITS = st.lists(st.tuples(WAYS, st.integers(0, 10**6), TREES), min_size=1, max_size=3)


def edited(tree: Any, kind: str, where: int, value: Any) -> Any:
    """A tree with one thing in it changed; `where` chooses which."""
    places = list(_places(tree))
    if not places:
        return value
    node, key = places[where % len(places)]
    other, other_key = places[(where // 7) % len(places)]
    match kind:
        case "drop":
            del node[key]
        case "rename" if isinstance(node, dict):
            node[str(value)[:40]] = node.pop(key)
        case "add" if isinstance(node[key], dict):
            node[key][str(where)] = value
        case "nest":
            node[key] = {"x": node[key]} if where % 2 else [node[key], node[key]]
        case "swap":
            node[key], other[other_key] = json.loads(json.dumps([other[other_key], node[key]]))
        case _:
            node[key] = value
    return tree


def _places(tree: Any) -> Any:
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(entries):
        yield tree, key
        yield from _places(value)


@examples(8)
@given(TREES)
def test_any_tree(tree: Any) -> None:
    for kind in DOORS:
        loads_or_is_refused(as_yaml(tree).encode(), kind)


CUTOFF = "augment.high_frequency.cutoff_hz"
FACTORS_OF_ALL_KINDS = {
    "epochs": {"setting": "train.epochs", "levels": [1, 2]},
    "mixup": {"setting": "augment.log_mixup_exp", "off": None},
    "bundle": {"levels": {"off": {"augment.high_frequency": None}, "low": {CUTOFF: 500}}},
    "cutoff": {"setting": CUTOFF, "levels": [500], "when": {"augment.high_frequency": "on"}},
}
LISTED = {"a": {"train.epochs": 3}, "b": "recipes/classical.yaml"}
MADE = [
    {"design": ["one_at_a_time", "factorial", "list"], "variants": LISTED},
    {"design": "search", "search": {"suggestions": 5}, "pruning": {}, "budget": {"hours": 1}},
    {"extends": "cutoff", "changes": {"data": {"year": 2022}}, "scale": {"workers": 2}, "seeds": [1, 2]},
]


@examples(10)
@given(st.sampled_from(list(DOORS)), st.integers(0, 100), EDITS)
def test_predefined_files_with_odd_changes(kind: str, number: int, edits: list[tuple[str, int, Any]]) -> None:
    trees = [read_yaml(path) for path in FILES[kind]]
    if kind == "study":
        trees += [yaml.safe_load(START) | {"factors": FACTORS_OF_ALL_KINDS} | made for made in MADE]
    tree: Any = json.loads(json.dumps(trees[number % len(trees)]))
    for edit in edits:
        tree = edited(tree, *edit)
    loads_or_is_refused(as_yaml(tree).encode(), kind)


@examples(8)
@given(
    st.sampled_from(list(DOORS)),
    st.integers(0, 100),
    st.lists(
        st.tuples(st.sampled_from(["insert", "delete", "double", "replace"]), st.integers(0, 10**6), TOKENS),
        min_size=1,
        max_size=3,
    ),
)
def test_predefined_files_with_damaged_lines(kind: str, number: int, edits: list[tuple[str, int, str]]) -> None:
    text = FILES[kind][number % len(FILES[kind])].read_text(encoding="utf-8")
    for how, where, token in edits:
        lines = text.splitlines(keepends=True)
        at, line = where % (len(text) + 1), where % max(1, len(lines))
        match how:
            case "insert":
                text = text[:at] + token + text[at:]
            case "delete":
                text = text[:at] + text[at + 1 + where % 40 :]
            case "replace":
                text = text[:at] + token + text[at + len(token) :]
            case "double":
                text = "".join([*lines[: line + 1], *lines[line:]])
    loads_or_is_refused(text.encode("utf-8", "surrogatepass"), kind)
