"""The same trials of two studies, of two revisions of the code, or of two results roots, side by side."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from raysd.compare import Comparison, compare
from raysd.errors import BadInput
from raysd.recipe import Recipe
from raysd.results.launches import Launch, LaunchedTrial, write_launch
from raysd.results.store import Results
from raysd.study.design import LoadedStudy, Trial, load_study, trials_of
from raysd.trial import Place, Run

STUDY = {
    "question": "Which?",
    "baseline": "tiny.yaml",
    "factors": {"high_frequency": {"setting": "augment.high_frequency"}},
    "design": "leave_one_out",
    "seeds": [0, 1],
    "references": [],
}
NOW = datetime.now(UTC)


@pytest.fixture
def study(tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> LoadedStudy:
    monkeypatch.chdir(tmp_path)
    masks = STUDY | {"factors": {"spec_mask": {"setting": "augment.spec_mask"}}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
    for name, content in (("one", STUDY), ("other", masks)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_study("one.yaml")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


def finish(results: Results, trial: Trial, value: float, commit: str = "aaaa1111", **changes: Any) -> None:
    run = Run(trial, Place(Path(), Path(), results.root, study="one"), NOW)
    about = {"part": "dev", "section": "arithmetic_mean", "num_normal": 1, "num_anomaly": 1}
    metrics = [
        about | {"machine": machine, "metric": metric, "value": value}
        for machine in ("fan", "all")
        for metric in ("auc", "official")
    ]
    changes = {"key": trial.key, "provenance": json.dumps({"commit": commit}), "metrics": metrics} | changes
    record = dataclasses.replace(run.failed("code", ""), state="done", failure_kind=None, traceback=None, **changes)
    assert results.write(record)


def by_name(study: LoadedStudy, corpus: str = "c0ffee") -> dict[tuple[str, int], Trial]:
    return {(trial.variant, trial.seed): trial for trial in trials_of(study, corpus)}


def gaps(found: Comparison) -> dict[tuple[str, int], float]:
    return {
        (found.a.trials[same].variant, same[1]): round(found.difference(same, "dev") or 0.0, 9) for same in found.both
    }


def shown(found: Comparison) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(found.to_rich())
    return " ".join(captured.get().split())


def test_one_study_at_two_revisions(study: LoadedStudy, results: Results) -> None:
    own, changed = by_name(study), ("without high_frequency", 0)
    for i, (name, trial) in enumerate(own.items()):
        finish(results, trial, 0.8)
        if name != ("baseline", 1):
            later = {"key": f"new {i}", "numerics": 2, "finished": NOW + timedelta(hours=1)}
            finish(results, trial, 0.8 + 0.01 * (name == changed), "bbbb2222", **later)
    found = compare("one.yaml@aaaa", "one.yaml@bbbb", results, results)
    assert gaps(found) == {name: 1.0 if name == changed else 0.0 for name in own if name != ("baseline", 1)}
    assert [trial.seed for trial in found.only(found.a)] == [1]
    assert found.only(found.b) == []
    assert [found.equal(same) for same in found.both].count(False) == 1
    said = shown(found)
    assert "3 trials in both: 2 equal to the bit in all metrics, 1 differ" in said
    assert "largest difference in official +1 points (without high_frequency, seed 0)" in said
    assert "only in A (1):" in said
    assert "commit aaaa1111; numerics 1" in said

    latest = compare("one.yaml", "one.yaml@aaaa", results, results)  # without a commit the newest counts
    assert gaps(latest)[changed] == -1.0
    assert "3 of an earlier revision passed over" in shown(latest)


def test_two_studies_share_what_is_the_same(study: LoadedStudy, results: Results) -> None:
    for trial in (by_name(study) | by_name(load_study("other.yaml"))).values():
        finish(results, trial, 0.8)
    found = compare("one.yaml", "other.yaml", results, results)
    assert gaps(found) == {("baseline", 0): 0.0, ("baseline", 1): 0.0}
    assert {trial.variant for trial in found.only(found.a)} == {"without high_frequency"}
    assert {trial.variant for trial in found.only(found.b)} == {"without spec_mask"}
    assert "only in B (2):" in shown(found)


def test_two_roots_and_a_study_without_a_file(study: LoadedStudy, results: Results, tmp_path: Path) -> None:
    there, own = Results(tmp_path / "there"), by_name(study)
    for name, trial in own.items():
        finish(results, trial, 0.8)
        finish(there, trial, 0.7, study="moved", profile="cpu", variant=f"my {name[0]}")
    found = compare("one.yaml", "moved", results, there)
    assert set(gaps(found).values()) == {-10.0}
    assert "baseline / my baseline" in shown(found)
    with pytest.raises(BadInput, match=r"there: no finished trial of moved"):
        compare("moved", "moved", there, there, profile="gpu")
    asked = tuple(LaunchedTrial(trial.key, trial.training_key, "x", 0) for trial in list(own.values())[:2])
    write_launch(results, Launch("asked", None, "?", 2020, "c0ffee", NOW, asked))
    assert len(compare("asked", "one.yaml", results, results).both) == 2


def test_trials_on_other_data_are_other_trials(study: LoadedStudy, results: Results, tmp_path: Path) -> None:
    there = Results(tmp_path / "there")
    for root, corpus in ((results, "c0ffee"), (there, "decade")):
        for trial in by_name(study, corpus).values():
            finish(root, trial, 0.8)
    found = compare("one.yaml", "one.yaml", results, there)
    assert found.both == []
    assert "no trial in both: nothing to compare" in shown(found)


@pytest.mark.parametrize(
    ("a", "options", "message"),
    [
        ("missing.yaml", {}, "missing.yaml: no such file"),
        ("nobody", {}, "no finished trial of nobody; raysd studies lists what there is"),
        ("one.yaml@ffff", {}, "no finished trial of one.yaml@ffff"),
        ("one.yaml", {"metric": "acu"}, "metric: 'acu' is no metric of these trials; did you mean 'auc'"),
        ("one.yaml", {"profile": "gpu"}, "no profile 'gpu'"),
    ],
)
def test_what_cannot_be_compared(
    study: LoadedStudy, results: Results, a: str, options: dict[str, Any], message: str
) -> None:
    for trial in by_name(study).values():
        finish(results, trial, 0.8)
    with pytest.raises(BadInput, match=message):
        compare(a, "one.yaml", results, results, **options)
