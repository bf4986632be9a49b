"""The weights that recipes start from: named by name, path or key, keyed by content, brought to where trials run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from raysd.errors import BadInput
from raysd.initial import Checkpoints
from raysd.model.encoding import build_encoder
from raysd.recipe import Recipe, trial_key
from raysd.results.store import Results
from raysd.results.weights import own_weights, read_weights, write_weights
from raysd.session import Session, open_study
from raysd.settings import with_changes
from raysd.trial import run_trial

ABOUT = {"name": "small", "licence": "ours"}


def encoder_state(recipe: Recipe, seed: int = 5) -> dict[str, torch.Tensor]:
    return build_encoder(recipe.encoder, recipe.features.num_bands, seed).state_dict()


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


@pytest.fixture
def file(tmp_path: Path, tiny_recipe: Recipe) -> Path:
    path = tmp_path / "elsewhere" / "weights.pt"
    path.parent.mkdir()
    torch.save(encoder_state(tiny_recipe), path)
    return path


@pytest.fixture
def opened(
    tmp_path: Path, tiny_recipe: Recipe, corpus: Callable[[int], Path], cache_dir: Path, results: Results
) -> Callable[..., Session]:
    """A study with a variant whose `pretrained` is what is said."""

    def make(said: str, **more: object) -> Session:
        folder = tmp_path / "studies"
        folder.mkdir(exist_ok=True)
        (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
        study = {
            "question": "Do weights help?",
            "baseline": "tiny.yaml",
            "variants": {"given": {"pretrained": said, "train.epochs": 0}},
            "design": "list",
            "seeds": [0],
            "references": [],
            **more,
        }
        (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        return open_study(folder / "study.yaml", {}, None, None, corpus(2020), results, cache_dir)

    return make


def test_same_content_has_one_key_wherever_it_lies(file: Path, results: Results, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(file.read_bytes())
    checkpoints = Checkpoints(results)
    pinned = checkpoints.pinned(f"checkpoint:{file}", tmp_path)
    assert checkpoints.pinned("checkpoint:other.pth", tmp_path) == pinned
    assert checkpoints.pinned(pinned, tmp_path) == pinned
    other.write_bytes(file.read_bytes() + b" ")
    assert checkpoints.pinned("checkpoint:other.pth", tmp_path) != pinned


def test_what_is_not_there_is_named(results: Results, tmp_path: Path, tiny_recipe: Recipe) -> None:
    checkpoints = Checkpoints(results)
    with pytest.raises(BadInput, match=r"pretrained checkpoint:a/b\.pt: no such file"):
        checkpoints.pinned("checkpoint:a/b.pt", tmp_path)
    for number in (1, 2):
        write_weights(results, f"{number}" * 20, encoder_state(tiny_recipe), ABOUT)
    with pytest.raises(BadInput, match=f"has 2 of that name; give one's key: {'1' * 20}, {'2' * 20}"):
        Checkpoints(results).pinned("checkpoint:small", tmp_path)
    with pytest.raises(BadInput, match="no pre-trained weights 33333333333333333333; make them with raysd pretrain"):
        read_weights(results, "3" * 20)


def test_study_waits_for_weights_of_a_name_and_then_runs(
    opened: Callable[..., Session], results: Results, tiny_recipe: Recipe
) -> None:
    session = opened("checkpoint:small")
    session.decode()
    assert [trial.variant for trial in session.missing()] == ["baseline"]
    plan = session.plan()
    assert [row.seeds for row in plan.rows] == [1, 0]
    assert plan.notes[-1].startswith("'given' waits for checkpoint:small: make it with raysd pretrain")
    assert next(row for row in session.study.variants if row.name == "given").recipe.pretrained == "checkpoint:small"

    key = "a" * 20
    write_weights(results, key, encoder_state(tiny_recipe), ABOUT)
    session = opened("checkpoint:small")
    session.decode()
    given = next(trial for trial in session.missing() if trial.variant == "given")
    assert given.recipe.pretrained == f"checkpoint:{key}"
    record = run_trial(given, session.place())
    said = json.loads(record.provenance)["pretrained"]
    assert (said["weights"], said["name"], said["licence"]) == (f"checkpoint:{key}", "small", "ours")
    assert said["loaded"].endswith("tensors loaded")


def test_file_named_by_its_path_is_copied_into_the_results_and_leaves_no_path_in_the_record(
    opened: Callable[..., Session], results: Results, file: Path, tmp_path: Path
) -> None:
    session = opened("checkpoint:../elsewhere/weights.pt")
    session.decode()
    given = next(trial for trial in session.missing() if trial.variant == "given")
    assert not own_weights(results)
    session.bring_weights(lambda line: None, lambda done, total: None)
    assert [about["name"] for about in own_weights(results)] == ["weights.pt"]
    file.unlink()  # what a node of a cluster sees
    record = run_trial(given, session.place())
    assert str(tmp_path) not in record.provenance + record.recipe
    assert given.recipe.pretrained.removeprefix("checkpoint:") == own_weights(results)[0]["key"]


def test_weights_change_the_trial_and_are_part_of_its_key(
    opened: Callable[..., Session], results: Results, tiny_recipe: Recipe
) -> None:
    keys = set()
    for number, seed in ((1, 5), (2, 6)):
        write_weights(results, f"{number}" * 20, encoder_state(tiny_recipe, seed), ABOUT | {"name": str(number)})
        recipe = with_changes(tiny_recipe, {"pretrained": f"checkpoint:{str(number) * 20}"}, "test")
        keys.add(trial_key(recipe, 0, "corpus"))
    assert len(keys | {trial_key(tiny_recipe, 0, "corpus")}) == 3
    scores = []
    for name in ("1", "2"):
        session = opened(f"checkpoint:{name}")
        session.decode()
        given = next(trial for trial in session.missing() if trial.variant == "given")
        scores.append([clip["score"] for clip in run_trial(given, session.place()).scores])
    assert scores[0] != scores[1]


def test_levels_of_factors_may_name_weights(opened: Callable[..., Session], file: Path, results: Results) -> None:
    factor = {"weights": {"setting": "pretrained", "levels": [f"checkpoint:{file}", "none"]}}
    session = opened("none", variants={}, factors=factor, design="one_at_a_time")
    session.decode()
    key = next(iter(session.weights.files))
    assert {row.recipe.pretrained for row in session.study.variants} == {"none", f"checkpoint:{key}"}
    assert len(session.missing()) == 2
