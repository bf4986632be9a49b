"""A study file -> variants -> trials."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raysd
from raysd.errors import BadInput
from raysd.recipe import Recipe, recipe_key
from raysd.study.design import LoadedStudy, find_study, load_study, trials_of
from raysd.study.files import load_recipe
from raysd.study.places import predefined_studies

RECIPE = {
    "description": "for tests",
    "augment": {"high_frequency": {"cutoff_hz": 1000}, "log_mixup_exp": {}, "random_resize_crop": {}},
    "loss": {"contrastive": {"name": "nt_xent", "temperature": 0.1}},
    "train": {"epochs": 5},
    "profiles": {"cpu": {"train": {"epochs": 2, "batch_size": 8}}, "broken": {"train": {"epoch": 2}}},
}
FLOOR = {"encoder": {"name": "spectral_mean"}, "scoring": {"name": "gaussian"}}
STUDY = {
    "question": "does it help?",
    "baseline": "base.yaml",
    "factors": {
        "cutoff": {"setting": "augment.high_frequency.cutoff_hz", "levels": [500, 1000, 2000]},
        "mixup": {"setting": "augment.log_mixup_exp", "off": None},
        "crop": {"setting": "augment.random_resize_crop"},
    },
    "design": "one_at_a_time",
    "references": ["floor.yaml"],
}
INGREDIENTS = {
    "mixup": {"setting": "augment.log_mixup_exp"},
    "crop": {"setting": "augment.random_resize_crop", "off": None},
    "segments": {"setting": "segments.two_crops", "off": False},
}


def write(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    for name, content in (("base", RECIPE), ("floor", FLOOR), ("s", STUDY | (changes or {}))):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "s.yaml"


@pytest.fixture
def load(tmp_path: Path):
    def loaded(changes: dict[str, Any] | None = None, **options: Any) -> LoadedStudy:
        return load_study(write(tmp_path, changes), **options)

    return loaded


def names(study: LoadedStudy) -> list[str]:
    return [variant.name for variant in study.variants]


def test_one_at_a_time_takes_every_level_that_differs_from_the_baseline(load) -> None:
    study = load()
    assert names(study) == ["baseline", "cutoff=500", "cutoff=2000", "without mixup", "without crop", "floor"]
    assert [variant.role for variant in study.variants] == ["baseline", *["variant"] * 4, "reference"]
    changed = {variant.name: variant.changed for variant in study.variants}
    assert changed["baseline"] == {}
    assert changed["cutoff=500"] == {"augment.high_frequency.cutoff_hz": (1000.0, 500.0)}
    assert changed["without mixup"] == {"augment.log_mixup_exp": ("on", None)}
    assert study.notes == ("'cutoff=1000' is the same recipe as 'baseline'",)
    assert study.name == "s"


def test_leaving_out_and_keeping_only_one_are_united(load) -> None:
    study = load({"factors": INGREDIENTS, "design": ["leave_one_out", "only_one"], "references": []})
    assert names(study) == [
        *["baseline", "without mixup", "without crop", "without segments"],
        *["none", "only mixup", "only crop", "only segments"],
    ]
    recipes = {variant.name: variant.recipe for variant in study.variants}
    assert recipes["only crop"].augment.random_resize_crop is not None
    assert recipes["only crop"].augment.log_mixup_exp is None
    assert recipes["only crop"].segments.two_crops is False
    assert recipes["none"].augment.random_resize_crop is None
    two = {name: INGREDIENTS[name] for name in ("mixup", "crop")}
    study = load({"factors": two, "design": ["leave_one_out", "only_one"], "references": []})
    assert names(study) == ["baseline", "without mixup", "without crop", "none"]
    assert study.notes == (
        "'only mixup' is the same recipe as 'without crop'",
        "'only crop' is the same recipe as 'without mixup'",
    )


def test_factorial_crosses_levels_and_off_stays_off(load) -> None:
    factors = {"hf": {"setting": "augment.high_frequency"}, "cutoff": STUDY["factors"]["cutoff"]}
    study = load({"factors": factors, "design": "factorial", "references": []})
    assert names(study) == ["baseline", "hf=on, cutoff=500", "hf=on, cutoff=2000", "hf=off"]
    assert study.variants[-1].recipe.augment.high_frequency is None
    assert study.notes == ("'hf=on, cutoff=1000' is the same recipe as 'baseline'",)


def test_rows_of_a_design_know_their_levels(load) -> None:
    def levels(**changes: Any) -> dict[str, dict[str, str]]:
        study = load({"references": ["floor.yaml"], **changes})
        return {variant.name: variant.levels for variant in study.variants}

    own = {"cutoff": "1000", "mixup": "on", "crop": "on"}
    one_at_a_time = levels()
    assert one_at_a_time["baseline"] == own
    assert one_at_a_time["cutoff=500"] == own | {"cutoff": "500"}
    assert one_at_a_time["without crop"] == own | {"crop": "off"}
    assert one_at_a_time["floor"] == {}

    factors = {"hf": {"setting": "augment.high_frequency"}, "cutoff": STUDY["factors"]["cutoff"]}
    crossed = levels(factors=factors, design=["list", "factorial"], variants={"plain": {"augment.log_mixup_exp": None}})
    assert crossed["baseline"] == {"hf": "on", "cutoff": "1000"}  # a cell that was merged with it
    assert crossed["hf=on, cutoff=2000"] == {"hf": "on", "cutoff": "2000"}
    assert crossed["hf=off"] == {"hf": "off"}  # where a cutoff means nothing
    assert crossed["plain"] == {}
    assert levels(factors=factors)["without hf"] == {"hf": "off"}

    others = {"cutoff": {"setting": "augment.high_frequency.cutoff_hz", "levels": [500]}}
    others["epochs"] = {"levels": {"short": {"train.epochs": 1, "train.batch_size": 4}, "batch": {}}}
    others["more"] = {"levels": {"cutoff too": {"augment.high_frequency.cutoff_hz": 250, "train.epochs": 9}}}
    beside = levels(factors=others)
    assert beside["baseline"] == {"cutoff": "1000", "epochs": "batch", "more": "baseline"}
    assert beside["epochs=short"] == {"cutoff": "1000", "epochs": "short", "more": "baseline"}
    assert beside["more=cutoff too"] == {"epochs": "batch", "more": "cutoff too"}
    crossed = levels(factors={name: others[name] for name in ("cutoff", "epochs")}, design="factorial")
    assert crossed["baseline"] == {}  # none of its cells
    assert crossed["cutoff=500, epochs=batch"] == {"cutoff": "500", "epochs": "batch"}
    assert load({"factors": others}).own_levels == {"cutoff": "1000", "epochs": "batch", "more": "baseline"}


def test_bundles_and_lists(load) -> None:
    bundles = {"levels": {"off": {"segments.two_crops": False}, "long": {"segments": {"train_seconds": 4}}}}
    study = load({"factors": {"segments": bundles}, "design": ["one_at_a_time", "leave_one_out"]})
    assert names(study) == ["baseline", "without segments", "segments=long", "floor"]
    assert study.notes == ("'without segments' is made twice",)
    listed = {"tiny": {"encoder": {"name": "cnn", "width": 0.5}}, "same": {}}
    study = load({"factors": {}, "design": "list", "variants": listed})
    assert names(study) == ["baseline", "tiny", "floor"]
    assert study.variants[1].changed["encoder.name"] == ("mobilefacenet", "cnn")


def test_whole_parts_are_levels_too(load) -> None:
    losses = {"setting": "loss.contrastive", "levels": [{"name": "byol"}, {"name": "supcon"}, None]}
    study = load({"factors": {"loss": losses}})
    assert names(study)[1:-1] == ["loss=byol", "loss=supcon", "loss=none"]


def test_changes_come_in_the_order_recipe_profile_study_command_line(load) -> None:
    study = load({"changes": {"train": {"batch_size": 16}}}, profile="cpu", overrides={"train.learning_rate": 0.5})
    trained = study.baseline.recipe.train
    assert (trained.epochs, trained.batch_size, trained.learning_rate) == (2, 16, 0.5)
    assert all(variant.recipe.train == trained for variant in study.variants if variant.role == "variant")
    assert study.profile == "cpu"
    assert load({"profile": "cpu"}, overrides={"profile": None}).profile is None


def test_study_keys_can_be_set(load) -> None:
    study = load(overrides={"seeds": [3, 4], "scale.cpus_per_worker": 2, "factors.cutoff.levels": [1, 2, 3]})
    assert study.study.seeds == (3, 4)
    assert study.study.scale.cpus_per_worker == 2
    assert len([name for name in names(study) if "cutoff" in name]) == 3
    assert load(overrides={"seeds": [3, 4]}, seeds=(5,)).study.seeds == (5,)


def test_references_stand_on_the_studys_data_and_keep_all_else(load) -> None:
    study = load({"changes": {"data.year": 2022, "features.num_bands": 64}}, overrides={"data.machines": ["valve"]})
    reference = study.variants[-1].recipe
    assert (reference.data.year, reference.data.machines) == (2022, ("valve",))
    assert reference.features.num_bands == Recipe().features.num_bands
    assert reference.train == Recipe().train


def test_what_does_not_depend_on_the_seed_is_run_once(load, tmp_path: Path) -> None:
    study = load({"seeds": [7, 1, 2]})
    trials = trials_of(study, "data")
    rows = len(study.variants) - 1
    assert len(trials) == 3 * rows + 1
    assert [trial.seed for trial in trials] == [7] * (rows + 1) + [1] * rows + [2] * rows
    assert [trial.variant for trial in trials[: rows + 1]] == names(study)
    assert trials[rows + 1].variant == "baseline"
    assert len({trial.key for trial in trials}) == len(trials)
    mixture = {"encoder": {"name": "spectral_mean"}, "scoring": {"name": "gaussian_mixture"}}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump(mixture))
    study = load({"seeds": [7, 1, 2], "references": ["mixture.yaml"]})
    assert study.seeds_of(study.variants[-1]) == (7, 1, 2)


def test_data_can_differ_between_variants(load) -> None:
    factors = {"channel": {"setting": "data.channel", "levels": [0, 1]}}
    study = load({"factors": factors, "references": []})
    trials = trials_of(study, lambda recipe: f"channel {recipe.data.channel}")
    assert [(trial.variant, trial.fingerprint) for trial in trials] == [
        ("baseline", "channel 0"),
        ("channel=1", "channel 1"),
    ]


def test_ten_thousand_trials_take_less_than_three_seconds(load) -> None:
    cutoff = STUDY["factors"]["cutoff"] | {"levels": [100 + i for i in range(98)]}
    epochs = {"setting": "train.epochs", "levels": list(range(1, 11))}
    width = {"setting": "encoder.width", "levels": [0.25, 0.5], "when": {"encoder.name": "mobilefacenet"}}
    started = time.perf_counter()
    study = load(
        {
            "factors": {"cutoff": cutoff, "epochs": epochs, "width": width},
            "design": "factorial",
            "seeds": [0, 1, 2, 3, 4],
        }
    )
    trials = trials_of(study, "data")
    assert len({trial.key for trial in trials}) == 5 * (98 * 10 * 2 + 1) + 1
    assert all(trial.training_key for trial in trials)
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"desing": "list"}, "s.yaml: unknown setting 'desing'; did you mean 'design'?"),
        ({"design": "one_at_time"}, "s.yaml: design: 'one_at_time' is not allowed; did you mean 'one_at_a_time'?"),
        ({"design": ["list", "all"]}, "s.yaml: design[1]: 'all' is not allowed"),
        ({"design": "list"}, "s.yaml: design list makes no use of the factors"),
        ({"design": ["list", "factorial"]}, "s.yaml: 'variants' and design list need each other"),
        ({"variants": {"a": {}}}, "s.yaml: 'variants' and design list need each other"),
        ({"factors": {}}, "s.yaml: design one_at_a_time needs factors"),
        (
            {"factors": {"cutoff": {"seting": "x"}}},
            "s.yaml: factors.cutoff: unknown setting 'seting'; did you mean 'sett",
        ),
        (
            {"factors": {"c": {"setting": "train.epochs", "levels": 3}}},
            "s.yaml: factors.c.levels: expected a list of val",
        ),
        (
            {"factors": {"c": {"setting": "train.epochs", "levels": []}}},
            "s.yaml: factors.c.levels: expected a list of va",
        ),
        ({"factors": {"c": {"levels": [1]}}}, "s.yaml: factors.c: expected a setting, or levels as"),
        ({"factors": {"c": {"setting": "a", "levels": {"x": {}}}}}, "s.yaml: factors.c: bundles of settings take no"),
        ({"factors": {"c": {"levels": {"x": {}}, "off": 1}}}, "s.yaml: factors.c: 'off' needs a setting"),
        ({"seeds": [0, 0]}, "s.yaml: seeds: a seed stands twice"),
        ({"seeds": [0, -1]}, "s.yaml: seeds[1]: input should be greater than or equal to 0"),
        ({"seeds": []}, "s.yaml: seeds: "),
        ({"question": ""}, "s.yaml: question: "),
        ({"baseline": "bse.yaml"}, "s.yaml: baseline: no file bse.yaml"),
        ({"references": ["nothing.yaml"]}, "s.yaml: references: no file nothing.yaml"),
        ({"profile": "gpu"}, "base.yaml: no profile 'gpu'; did you mean 'cpu'? allowed: broken, cpu"),
        ({"profile": "broken"}, "base.yaml: profiles.broken: train: unknown setting 'epoch'; did you mean 'epochs'"),
        ({"changes": {"data": {"yaer": 1}}}, "s.yaml: changes: data: unknown setting 'yaer'; did you mean 'year'"),
        ({"metric": "auc_source"}, "s.yaml: metric: 'auc_source' is no metric of 2020"),
        ({"scale": {"cpus_per_worker": 0}}, "s.yaml: scale.cpus_per_worker: input should be greater than 0"),
        ({"design": "leave_one_out"}, "s.yaml: factors.cutoff: design leave_one_out needs to know what 'off' is"),
        (
            {"factors": {"cutoff": {"setting": "augment.high_frequency.cutoff_hz", "levels": [1, 2, -3]}}},
            "s.yaml: factors.cutoff.levels[2]: augment.high_frequency.cutoff_hz: input should be greater than 0",
        ),
        (
            {"factors": {"cutoff": {"setting": "augment.high_freq.cutoff_hz", "levels": [1]}}},
            "s.yaml: factors.cutoff.levels[0]: augment: unknown setting 'high_freq'; did you mean 'high_frequency'?",
        ),
        (
            {"factors": INGREDIENTS | {"x": {"setting": "train.epochs", "levels": [1, -1]}}, "design": "factorial"},
            "s.yaml: factors.x.levels[1]: train.epochs: input should be greater than or equal to 0",
        ),
        (
            {"factors": {"crop": {"setting": "augment.cropp"}}},
            "s.yaml: factors.crop.off: augment: unknown setting 'crop",
        ),
        (
            {
                "factors": {
                    "a": {"setting": "train.epochs", "levels": [1]},
                    "b": {"setting": "train.epochs", "levels": [2]},
                }
            }
            | {"design": "factorial"},
            "s.yaml: design factorial, variant 'a=1, b=2': two factors set train.epochs",
        ),
        (
            {"factors": {f"f{i}": {"setting": "train.epochs", "levels": list(range(1, 11))} for i in range(12)}}
            | {"design": "factorial"},
            "s.yaml: design: the factorial design has more than 100,000 variants",
        ),
        (
            {"factors": {}, "design": "list", "variants": {"baseline": {"train.epochs": 3}}},
            "s.yaml: two different variants have the name 'baseline'",
        ),
    ],
)
def test_a_mistake_gives_one_line_with_its_place(load, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        load(changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_override_that_is_wrong_says_so(load) -> None:
    with pytest.raises(
        BadInput, match=r"^--set: loss: unknown setting 'temperature'; did you mean 'loss.contrastive.tem"
    ):
        load(overrides={"loss.temperature": 0.1})
    with pytest.raises(BadInput, match=r"s.yaml with seeds set: seeds\[0\]: "):
        load(overrides={"seeds": ["x"]})


def test_recipe_files_are_strict_too(tmp_path: Path) -> None:
    path = write(tmp_path).with_name("base.yaml")
    assert load_recipe(path).description == "for tests"
    path.write_text("profiles: {cpu: 3}")
    with pytest.raises(BadInput, match=r"base.yaml: profiles.cpu: "):
        load_recipe(path)
    path.write_text("extends: other.yaml")
    with pytest.raises(BadInput, match=r"base.yaml: unknown setting 'extends'"):
        load_recipe(path)


def test_studies_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    assert find_study(write(tmp_path)) == tmp_path / "s.yaml"
    assert find_study("cutoff").name == "cutoff.yaml"
    with pytest.raises(BadInput, match="cutof: no such file, and no study of that name; did you mean 'cutoff'"):
        find_study("cutof")


@pytest.mark.parametrize("name", ["augmentation", "cutoff", "quickstart"])
@pytest.mark.parametrize("profile", [None, "cpu"])
def test_predefined_studies_load(name: str, profile: str | None) -> None:
    study = load_study(name, profile=profile)
    assert study.variants[0].role == "baseline"
    assert "classical" in [variant.name for variant in study.variants if variant.role == "reference"]
    assert name in predefined_studies()


def test_an_installed_package_has_its_own_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raysd, "__file__", str(tmp_path / "raysd" / "__init__.py"))
    (tmp_path / "raysd" / "studies").mkdir(parents=True)
    write(tmp_path / "raysd" / "studies")
    assert find_study("s") == tmp_path / "raysd" / "studies" / "s.yaml"
    assert load_study("s").baseline.recipe.train.epochs == 5


# --- properties -------------------------------------------------------------------------------------------------------

cutoffs_hz = st.lists(st.integers(100, 7000).filter(lambda hz: hz != 1000), min_size=1, max_size=4, unique=True)
ingredients = st.lists(st.sampled_from(sorted(INGREDIENTS)), min_size=1, max_size=3, unique=True)


def count(changes: dict[str, Any]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return len(load_study(write(Path(folder), changes | {"references": []})).variants)


@settings(max_examples=25, deadline=None)
@given(cutoffs_hz, ingredients, st.booleans())
def test_designs_have_the_number_of_variants_of_their_formula(
    levels: list[int], chosen: list[str], with_baseline_level: bool
) -> None:
    on_off = {name: INGREDIENTS[name] for name in chosen}
    all_levels = levels + [1000] * with_baseline_level
    cutoff = {"cutoff": {"setting": "augment.high_frequency.cutoff_hz", "levels": all_levels}}
    k = len(chosen)
    assert count({"factors": cutoff | on_off, "design": "one_at_a_time"}) == 1 + len(levels) + k
    assert count({"factors": on_off, "design": "leave_one_out"}) == 1 + k
    assert count({"factors": on_off, "design": "only_one"}) == (2 if k == 1 else 2 + k)
    cells = prod([len(all_levels), *[2] * k])
    assert count({"factors": cutoff | on_off, "design": "factorial"}) == cells + (not with_baseline_level)
    listed = {str(hz): {"augment.high_frequency.cutoff_hz": hz} for hz in levels}
    assert count({"factors": {}, "design": "list", "variants": listed}) == 1 + len(levels)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(["", "off", "a.b", "train.epochs", "x", "base.yaml", "s.yaml", "cutoff", "search", "y" * 300]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["setting", "levels", "off", "train", "name", "x", "range", "low", "high", "when"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=6,
)
MORE = ("changes", "variants", "seeds", "scale", "metric", "profile", "extends", "budget", "search", "pruning")
places = st.sampled_from(
    [(key,) for key in (*STUDY, *MORE)]
    + [("factors", "cutoff"), ("factors", "mixup"), ("factors", "new")]
    + [("factors", "cutoff", key) for key in ("setting", "levels", "off", "range", "when")]
    + [("factors", "crop", "when", "augment.log_mixup_exp"), ("factors", "crop", "range", "low")]
    + [("changes", "train"), ("changes", "augment"), ("changes", "encoder"), ("variants", "new"), ("scale", "x")]
    + [("search", "oracle"), ("budget", "hours"), ("pruning", "reduction")]
)
DESIGNS = ["one_at_a_time", "leave_one_out", "only_one", "factorial", "search", "list"]
no_fixture_is_changed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(no_fixture_is_changed, max_examples=60)
@given(st.lists(st.tuples(places, plain), min_size=1, max_size=2), st.sampled_from(DESIGNS))
def test_whatever_a_study_file_holds_it_is_planned_or_gives_one_line_and_status_2(
    raysd: Callable[..., tuple[int, str, str]], edits: list[tuple[tuple[str, ...], Any]], design: str
) -> None:
    content: Any = json.loads(json.dumps(STUDY | {"design": design}))
    for place, value in edits:
        node = content
        for key in place[:-1]:
            if not isinstance(node.get(key), dict):
                node[key] = {}
            node = node[key]
        node[place[-1]] = value
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder))
        path.write_text(yaml.safe_dump(content))
        assert ".yaml" in planned_or_one_line(raysd, path)


@settings(no_fixture_is_changed, max_examples=40)
@given(st.text(max_size=60) | st.binary(max_size=40))
def test_whatever_bytes_a_study_file_holds_it_gives_one_line_and_status_2(
    raysd: Callable[..., tuple[int, str, str]], content: str | bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.yaml"
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        assert "s.yaml" in planned_or_one_line(raysd, path)


def planned_or_one_line(raysd: Callable[..., tuple[int, str, str]], path: Path) -> str:
    """What `raysd plan` says of a broken study file; the path of one that it plans."""
    files = sorted(path.parent.iterdir())
    status, out, err = raysd("plan", path, "--results", path.parent / "results", "--json")
    assert sorted(path.parent.iterdir()) == files  # nothing was written
    if status == 0:
        study, plan = load_study(path), json.loads(out)
        asked = [row["name"] for row in plan["rows"]]
        if study.study.search is not None:
            assert asked.pop(1).startswith(f"{study.study.search.suggestions - 1} suggestion")
        assert asked == names(study)
        assert len({recipe_key(variant.recipe) for variant in study.variants}) == len(study.variants)
        return str(path)
    assert status == 2
    assert out == ""
    assert err.startswith("raysd: ")
    assert err.count("\n") == 1
    return err


# --- keys -------------------------------------------------------------------------------------------------------------

ELSEWHERE = """
import sys
from raysd.study.design import load_study, trials_of
for line in sys.stdin:
    print(*[trial.key for trial in trials_of(load_study(line.strip()), "data")], flush=True)
"""


@contextmanager
def other_process(folder: Path) -> Iterator[Callable[[Path], list[str]]]:
    """Study file -> keys of its trials, as a Python computes them elsewhere and with another order of sets."""
    environment = os.environ | {"PYTHONHASHSEED": "271828", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    with subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE], cwd=folder, env=environment, stdin=-1, stdout=-1, text=True
    ) as process:
        question, answer = process.stdin, process.stdout
        assert question is not None
        assert answer is not None

        def keys(path: Path) -> list[str]:
            print(path, file=question, flush=True)
            return answer.readline().split()

        yield keys
        question.close()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], list[str]]]:
    with other_process(tmp_path_factory.mktemp("elsewhere")) as keys:
        yield keys


@settings(max_examples=12, deadline=None)
@given(cutoffs_hz, ingredients, st.sampled_from(["one_at_a_time", "factorial"]), st.integers(0, 2**31))
def test_keys_are_the_same_in_another_process(
    elsewhere: Callable[[Path], list[str]], levels: list[int], chosen: list[str], design: str, seed: int
) -> None:
    cutoff = {"cutoff": {"setting": "augment.high_frequency.cutoff_hz", "levels": levels}}
    factors = cutoff | {name: INGREDIENTS[name] for name in chosen}
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), {"factors": factors, "design": design, "seeds": [seed, 1 + seed]})
        here = [trial.key for trial in trials_of(load_study(path), "data")]
        recipe = {name: RECIPE[name] for name in reversed(RECIPE)}  # the order of a file's lines is no part of a key
        path.with_name("base.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        assert elsewhere(path) == here
        assert len(set(here)) == len(here)


def test_keys_are_those_of_earlier_releases(elsewhere: Callable[[Path], list[str]]) -> None:
    """Where a key changes, every finished trial is unknown. If that is meant, raise NUMERICS and write down the new."""
    trials = trials_of(load_study("augmentation", profile="cpu"), "data")
    assert [(trial.variant, trial.key, trial.training_key) for trial in trials[:3]] == [
        ("baseline", "1810ff8c6348aae87cb7", "2e97f95ad4b026575171"),
        ("without log_mixup_exp", "0acc94c38d76cd073443", "33334b02f4433b881865"),
        ("without random_resize_crop", "158cc9f96a5dbdec2f5f", "8fa35fd0e69420a4138b"),
    ]
    path = predefined_studies()["augmentation"]
    assert elsewhere(path)[:2] == ["4e8209b0e9a29ee0aad2", "b4f71748a21f0e080c02"]


def test_says_where_clips_hold_nothing_of_what_is_changed(load) -> None:
    front_end = {"features": {"front_end": "efficientat", "normalise": "fixed"}}
    cutoffs = {"cutoff": {"setting": "augment.high_frequency.cutoff_hz", "levels": [1000, 9000]}}
    study = load({"changes": front_end | {"augment.high_frequency": {}}, "factors": cutoffs, "design": "one_at_a_time"})
    above = "front end efficientat resamples the clips from 16,000 to 32,000 Hz: what high_frequency changes above"
    empty = "'cutoff=9000' changes nothing that is in a clip: its cutoff is 9,000 Hz"
    assert study.notes[-2:] == (f"{above} 8,000 Hz is empty in them", empty)
    assert not any("efficientat" in note for note in load({"factors": cutoffs, "design": "one_at_a_time"}).notes)
