"""Settings: strict parsing, error lines, dotted changes, flattening, differences."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from raysd.errors import BadInput
from raysd.settings import Settings, difference, flatten, parse, with_changes
from raysd.yaml_values import parse_assignments, read_yaml


class Noise(Settings):
    cutoff_hz: Annotated[float, Field(gt=0)] = 1000.0
    strength: tuple[float, float] = (0.0, 1.0)


class Mean(Settings):
    name: Literal["mean"] = "mean"
    power: float = 1.0


class Gem(Settings):
    name: Literal["gem"] = "gem"
    power: float = 3.0


class Small(Settings):
    name: Literal["small"] = "small"
    width: Annotated[int, Field(ge=1)] = 8


class Large(Settings):
    name: Literal["large"] = "large"
    width: int = 64
    depth: int | None = None
    pool: Annotated[Mean | Gem, Field(discriminator="name")] = Mean()


class Contrastive(Settings):
    temperature: float = 0.1


class Loss(Settings):
    contrastive: Contrastive | None = Contrastive()
    weight: float = 1.0


class Tree(Settings):
    encoder: Annotated[Small | Large, Field(discriminator="name")] = Small()
    noise: Noise | None = None
    loss: Loss = Loss()
    mode: Literal["fast", "exact", "off"] = "fast"
    year: Literal[2020, 2022] = 2020
    two_crops: bool = True
    epochs: Annotated[int, Field(ge=1)] = 10
    sections: tuple[str, ...] | None = None
    either: int | tuple[int, int] = 3
    parts: dict[str, Noise] = Field(default={})
    free: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _no_large_and_fast(self) -> "Tree":
        if isinstance(self.encoder, Large) and self.epochs == 13:
            raise ValueError("a large encoder takes no 13 epochs")
        return self


def line(values: dict[str, Any]) -> str:
    with pytest.raises(BadInput) as error:
        parse(Tree, values, "a.yaml")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("a.yaml: ")
    return str(error.value).removeprefix("a.yaml: ")


@pytest.mark.parametrize(
    ("values", "starts"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'? allowed: either, encoder, epochs,"),
        (
            {"loss": {"weigth": 1}},
            "loss: unknown setting 'weigth'; did you mean 'weight'? allowed: contrastive, weight",
        ),
        (
            {"loss": {"contrastive": {"temprature": 1}}},
            "loss.contrastive: unknown setting 'temprature'; did you mean 'temperature'?",
        ),
        (
            {"loss": {"temperature": 1}},
            "loss: unknown setting 'temperature'; did you mean 'loss.contrastive.temperature'? allowed here: c",
        ),
        ({"noise": {"cutof_hz": 1}}, "noise: unknown setting 'cutof_hz'; did you mean 'cutoff_hz'?"),
        ({"noise": {"cutoff_hz": "high"}}, "noise.cutoff_hz: input should be a valid number"),
        ({"noise": {"cutoff_hz": -1}}, "noise.cutoff_hz: input should be greater than 0 (given: -1)"),
        ({"noise": {"strength": [0, "x"]}}, "noise.strength[1]: input should be a valid number"),
        ({"noise": "on"}, "noise: expected settings as 'name: value' (given: 'on')"),
        ({"noise": "off"}, "noise: expected settings as 'name: value' (given: 'off'); what is off is written null"),
        (
            {"encoder": {"name": "larg"}},
            "encoder.name: unknown name 'larg'; did you mean 'large'? allowed: large, small",
        ),
        ({"encoder": {"width": 2}}, "encoder: expected settings with a name, one of: small, large"),
        (
            {"encoder": {"name": "small", "depth": 2}},
            "encoder: unknown setting 'depth'; did you mean 'width'? allowed: n",
        ),
        (
            {"encoder": {"name": "small", "witdh": 2}},
            "encoder: unknown setting 'witdh'; did you mean 'width'? allowed: n",
        ),
        (
            {"encoder": {"name": "small", "width": 0}},
            "encoder.width: input should be greater than or equal to 1 (given: 0)",
        ),
        (
            {"encoder": {"name": "large", "pool": {"name": "max"}}},
            "encoder.pool.name: unknown name 'max'; allowed: gem, me",
        ),
        (
            {"encoder": {"name": "large", "pool": {"name": "gem", "p": 1}}},
            "encoder.pool: unknown setting 'p'; allowed: na",
        ),
        ({"mode": "exakt"}, "mode: 'exakt' is not allowed; did you mean 'exact'? allowed: exact, fast, off"),
        ({"mode": 3}, "mode: input should be 'fast', 'exact' or 'off' (given: 3)"),
        ({"year": 2019}, "year: input should be 2020 or 2022 (given: 2019)"),
        ({"epochs": None}, "epochs: input should be a valid integer (given: null)"),
        ({"epochs": 2.5}, "epochs: input should be a valid integer, got a number with a fractional part (given: 2.5)"),
        ({"epochs": True}, "epochs: expected a value other than true and false"),
        ({"epochs": [1]}, "epochs: input should be a valid integer"),
        ({"noise": {"cutoff_hz": float("inf")}}, "noise.cutoff_hz: input should be a finite number"),
        ({"either": "x"}, "either: input should be a valid integer"),
        ({"either": [1, "x"]}, "either: input should be a valid integer"),
        ({"sections": "00"}, "sections: input should be a valid tuple"),
        ({"parts": {"parts": {"cutof_hz": 1}}}, "parts.parts: unknown setting 'cutof_hz'; did you mean 'cutoff_hz'?"),
        ({"parts": {"b": {"cutoff_hz": "x"}}}, "parts.b.cutoff_hz: input should be a valid number"),
        ({"encoder": {"name": "large"}, "epochs": 13}, "a large encoder takes no 13 epochs"),
    ],
)
def test_a_mistake_gives_one_line_with_path_and_fix(values: dict[str, Any], starts: str) -> None:
    assert line(values).startswith(starts)


def test_numbers_written_as_text_are_numbers() -> None:
    assert parse(Tree, {"noise": {"cutoff_hz": "1e3"}}, "a").noise == Noise(cutoff_hz=1000.0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["encoder", "noise", "loss", "name", "contrastive", "parts", "either", "free", "x"])


@given(st.recursive(json_values, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=12))
def test_whatever_is_parsed_is_a_tree_or_one_line(value: Any) -> None:
    values = value if isinstance(value, dict) else {"encoder": value}
    try:
        tree = parse(Tree, values, "a.yaml")
    except BadInput as error:
        message = str(error)
        assert "\n" not in message
    else:
        assert parse(Tree, tree.model_dump(mode="json"), "again") == tree


# --- changes by dotted path -------------------------------------------------------------------------------------------


def test_changes_are_merged_into_what_stands_there() -> None:
    changed = with_changes(Tree(), {"loss": {"weight": 2}, "epochs": 3, "loss.contrastive.temperature": 0.5}, "x")
    assert changed == Tree(loss=Loss(weight=2.0, contrastive=Contrastive(temperature=0.5)), epochs=3)


def test_a_new_name_starts_from_its_own_defaults_in_any_order() -> None:
    before = with_changes(Tree(), {"encoder.width": 3}, "x")
    assert with_changes(before, {"encoder.name": "large"}, "x").encoder == Large()
    inner_first = {"encoder.pool.name": "gem", "encoder.depth": 2, "encoder.name": "large"}
    assert with_changes(before, inner_first, "x").encoder == Large(depth=2, pool=Gem())
    assert with_changes(before, {"encoder.name": "small"}, "x") == before


def test_parts_are_switched_off_and_on() -> None:
    assert with_changes(Tree(), {"noise": {}}, "x").noise == Noise()
    assert with_changes(Tree(), {"noise.cutoff_hz": 5}, "x").noise == Noise(cutoff_hz=5.0)
    on = Tree(noise=Noise(cutoff_hz=5.0))
    assert with_changes(on, {"noise": {}}, "x") == on
    assert with_changes(on, {"noise": None}, "x") == Tree()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("epoch", "x: unknown setting 'epoch'; did you mean 'epochs'?"),
        (
            "temperature",
            "x: unknown setting 'temperature'; did you mean 'loss.contrastive.temperature'? allowed here: ",
        ),
        ("los.weight", "x: unknown setting 'los'; did you mean 'loss.weight'?"),
        ("loss.temperature", "x: loss: unknown setting 'temperature'; did you mean 'loss.contrastive.temperature'?"),
        ("noise.cutoff.hz", "x: noise: unknown setting 'cutoff'; did you mean 'cutoff_hz'?"),
        ("epochs.most", "x: epochs: input should be a valid integer"),
        ("", "x: unknown setting ''; allowed: "),
        ("loss..weight", "x: loss: unknown setting ''; allowed: contrastive, weight"),
    ],
)
def test_an_unknown_path_names_the_nearest(path: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        with_changes(Tree(), {path: 1}, "x")
    assert str(error.value).startswith(message)


# --- flat settings ----------------------------------------------------------------------------------------------------


def test_flatten_leaves_defaults_out_but_says_names_and_parts() -> None:
    assert flatten(Tree()) == {"encoder.name": "small", "loss.contrastive": "on"}
    tree = Tree(noise=Noise(strength=(0.0, 2.0)), loss=Loss(contrastive=None), epochs=3)
    assert flatten(tree) == {
        "encoder.name": "small",
        "noise": "on",
        "noise.strength": [0.0, 2.0],
        "loss.contrastive": None,
        "epochs": 3,
    }
    everything = flatten(Tree(noise=Noise()), defaults=True)
    assert everything["noise.cutoff_hz"] == 1000.0
    assert everything["epochs"] == 10


def test_what_flatten_returns_may_be_changed() -> None:
    tree = Tree()
    flatten(tree)["epochs"] = 99
    assert "epochs" not in flatten(tree)
    assert tree == Tree()
    assert hash(Noise()) == hash(Noise())
    assert flatten(tree.model_copy(update={"epochs": 4}))["epochs"] == 4


trees = st.builds(
    Tree,
    encoder=st.builds(Small, width=st.integers(1, 4)) | st.builds(Large, depth=st.none() | st.integers(1, 2)),
    noise=st.none() | st.builds(Noise, cutoff_hz=st.sampled_from([500.0, 1000.0])),
    loss=st.builds(Loss, contrastive=st.none() | st.just(Contrastive()), weight=st.sampled_from([0.0, 1.0])),
    two_crops=st.booleans(),
)


@given(trees, trees)
def test_flat_settings_are_equal_exactly_where_settings_are(a: Tree, b: Tree) -> None:
    assert (flatten(a) == flatten(b)) == (a == b)
    assert (difference(a, b) == {}) == (a == b)


@given(trees, trees)
def test_a_difference_is_enough_to_make_the_other(a: Tree, b: Tree) -> None:
    changes = {path: {} if new == "on" else new for path, (_, new) in difference(a, b).items()}
    switched_on = {path: b.model_dump(mode="json")["noise"] for path in changes if path == "noise" and b.noise}
    assert with_changes(a, changes | switched_on, "x") == b


def test_a_difference_is_said_once() -> None:
    assert difference(Tree(), Tree(noise=Noise(cutoff_hz=5.0))) == {"noise": (None, "on")}
    assert difference(Tree(noise=Noise(cutoff_hz=5.0)), Tree()) == {"noise": ("on", None)}
    assert difference(Tree(noise=Noise()), Tree(noise=Noise(cutoff_hz=5.0))) == {"noise.cutoff_hz": (1000.0, 5.0)}
    assert difference(Tree(encoder=Small(width=2)), Tree(encoder=Large(depth=2))) == {
        "encoder.name": ("small", "large"),
        "encoder.depth": (None, 2),
    }


# --- files and command lines ------------------------------------------------------------------------------------------


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def test_yaml_words_are_read_as_a_user_means_them(tmp_path: Path) -> None:
    text = "mode: off\noff: null\nrate: 1e-3\nsmall: 5.\nid: 01\nday: 2024-02-31\n250: yes\ntrue: [true, .5, -3, 0]\n"
    assert read_yaml(yaml_file(tmp_path, text)) == {
        "mode": "off",
        "off": None,
        "rate": 0.001,
        "small": 5.0,
        "id": "01",
        "day": "2024-02-31",
        "250": "yes",
        "true": [True, 0.5, -3, 0],
    }
    assert read_yaml(yaml_file(tmp_path, "a: &a {x: 1}\nb: {<<: *a, x: 2}\n"))["b"] == {"x": 2}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "word",
        "a: [",
        "a: &a {b: *a}",
        "a: !!python/object:os.system {}",
        "a: 1\na: 2",
        "a: {b: 1, b: 2}",
        "? [1]\n: 2",
        "a: !!binary aGk=",
        "a: !!set {b}",
        "a: " + "[" * 3000,
        "\tx: 1",
        "a: b: c",
        "a: " + "9" * 5000,
    ],
)
def test_a_broken_file_gives_one_line(tmp_path: Path, text: str) -> None:
    path = yaml_file(tmp_path, text)
    with pytest.raises(BadInput, match=r"a\.yaml: ") as error:
        read_yaml(path)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(BadInput, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(BadInput, match="cannot be read"):
        read_yaml(tmp_path / "bytes.yaml")


def test_assignments() -> None:
    given_ = ["train.epochs=20", " a.b = [1, x]", "off=off", "c=null", "d={e: 1}", "rate=1e-3", "empty="]
    assert parse_assignments(given_) == {
        "train.epochs": 20,
        "a.b": [1, "x"],
        "off": "off",
        "c": None,
        "d": {"e": 1},
        "rate": 0.001,
        "empty": None,
    }
    for wrong in ["epochs", "=3", " =3", "a=[1", "a=&x [*x]"]:
        with pytest.raises(BadInput, match="--set"):
            parse_assignments([wrong])
