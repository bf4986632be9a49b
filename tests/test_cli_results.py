"""The commands about all that a results root holds, as a user types them."""

import dataclasses
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.study.design import Trial
from raysd.trial import Place, Run

Command = Callable[..., tuple[int, str, str]]
EPOCH = {"epoch": 1, "loss": 0.51234, "contrastive": 0.51234, "classification": None, "learning_rate": 1e-3}
EPOCH |= {"grad_norm": 1.0, "clips_per_second": 12.5, "seconds": 4.0}
SAID = "Traceback (most recent call last):\n  File [x], line 1\nMemoryError: no 3 GB left"


def add(root: str | Path, recipe: Recipe, seed: int, failures: int = 0, done: bool = True) -> Trial:
    """A trial as it is kept, with its embeddings and a checkpoint that nobody removed."""
    trial, results = Trial("baseline", "baseline", recipe, seed, "c0ffee"), Results(root)
    run = Run(trial, Place(Path(), Path(), root, study="mine", command=("raysd", "run", "mine")), datetime.now(UTC))
    for i in range(failures):
        when = datetime.now(UTC) + timedelta(seconds=i)
        results.write_failure(dataclasses.replace(run.failed("oom", f"{SAID} {i}"), finished=when))
    if done:
        about = {"part": "dev", "section": "arithmetic_mean", "num_normal": 1, "num_anomaly": 1}
        values = {"auc": 0.8125, "official": 0.75, "proxy_perturbed": 0.9}
        machines = {"fan": 0.0, "valve": 0.05, "all": 0.025}
        metrics: list[dict[str, Any]] = [
            about | {"machine": machine, "metric": metric, "value": value + more}
            for machine, more in machines.items()
            for metric, value in values.items()
        ]
        clip = {"path": "a.wav", "machine": "fan", "section": "00", "part": "dev", "split": "test", "label": 1}
        training = {"history": [EPOCH], "skipped": [], "trained_on": {"device": "cpu"}}
        clips = pd.DataFrame([clip | {"domain": None, "score": 1.5}])
        results.write(run.done(training, clips, pd.DataFrame(metrics)))
        results.write_embeddings(trial.training_key, pa.table({"path": ["a.wav"]}))
    results.checkpoint(trial.training_key, "all").write(b"weights")
    return trial


def test_show_a_finished_trial(raysd: Command, tmp_path: Path, tiny_recipe: Recipe) -> None:
    trial = add(tmp_path, tiny_recipe, 3, failures=1)
    status, out, _ = raysd("show", trial.key[:6], "--results", tmp_path)
    assert status == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert f"{trial.key}: baseline, seed 3" in lines
    assert any(line.startswith("state done at 20") and line.endswith("after 1 failed attempt") for line in lines)
    assert "epochs: 2 # default: 50" in lines
    assert "name: cnn # default: mobilefacenet" in lines
    assert "high_frequency: # default: null" in lines
    assert "warmup_epochs: 1.0" in lines  # as by default
    assert "1 0.5123 0.5123 - 0.001 1 12.5 4.00" in lines
    assert "machine auc official proxy_perturbed" in lines
    assert lines.index("fan 81.25 75.00 90.00") < lines.index("all 83.75 77.50 92.50")
    assert "command raysd run mine" in lines
    assert "MemoryError: no 3 GB left 0" in lines


def test_show_a_failed_trial(raysd: Command, tmp_path: Path, tiny_recipe: Recipe) -> None:
    trial = add(tmp_path, tiny_recipe, 0, failures=2, done=False)
    status, out, _ = raysd("show", trial.key[:6], "--results", tmp_path)
    assert status == 0
    assert "failed (oom), 2 failed attempts" in out
    assert f"{SAID} 1\n" in out  # the last one's, whole and as it was said
    assert f"{SAID} 0" not in out
    assert "epochs: 2  # default: 50" in out


def test_show_a_recipe_of_another_version(raysd: Command, tmp_path: Path, tiny_recipe: Recipe) -> None:
    trial = add(tmp_path / "old", tiny_recipe, 0)
    recipe = json.dumps(tiny_recipe.model_dump(mode="json") | {"gone": {"a": 1.5}})
    Results(tmp_path).write(dataclasses.replace(Results(tmp_path / "old").read(trial.key), recipe=recipe))
    status, out, _ = raysd("show", trial.key, "--results", tmp_path)
    assert status == 0
    assert "of another version of raysd" in out
    assert "  gone:\n    a: 1.5\n" in out


@pytest.mark.parametrize(
    ("beginning", "message"), [("x", "no trial, finished or failed,"), ("", "2 trials with a key")]
)
def test_show_needs_one_trial(
    raysd: Command, tmp_path: Path, tiny_recipe: Recipe, beginning: str, message: str
) -> None:
    add(tmp_path, tiny_recipe, 0)
    add(tmp_path, tiny_recipe, 1, failures=1, done=False)
    status, _, err = raysd("show", beginning, "--results", tmp_path)
    assert (status, message in err, err.count("\n")) == (2, True, 1)


def test_gc_shows_first_and_deletes_when_told(raysd: Command, tmp_path: Path, tiny_recipe: Recipe) -> None:
    done, half = add(tmp_path, tiny_recipe, 0), add(tmp_path, tiny_recipe, 1, done=False)
    status, out, err = raysd("gc", "--results", tmp_path, "--embeddings")
    assert status == 0
    assert f"work/{done.training_key}" in out
    assert "its training is finished" in out
    assert "1 finished trial of it, and none to come" in out
    assert "kept: checkpoints of unfinished trainings, which go on from them: 1 file" in out
    assert "nothing was deleted; with --delete 2 files" in err
    assert Results(tmp_path).checkpoints().keys() == {done.training_key, half.training_key}
    status, out, err = raysd("gc", "--results", tmp_path, "--embeddings", "--delete")
    assert (status, "deleted: 2 files" in err, "after" in out) == (0, True, True)
    assert Results(tmp_path).checkpoints().keys() == {half.training_key}
    assert (Results(tmp_path).done(), Results(tmp_path).trained()) == ({done.key}, set())
    os.utime(tmp_path / "work" / half.training_key / "all.pt", (0, 0))
    assert "deleted: 1 file" in raysd("gc", "--results", tmp_path, "--older-than", "2w", "--delete")[2]
    assert Results(tmp_path).checkpoints() == {}
    assert "nothing to delete by these rules" in raysd("gc", "--results", tmp_path)[1]
    status, _, err = raysd("gc", "--results", tmp_path, "--older-than", "soon")
    assert (status, err) == (
        2,
        "raysd: --older-than soon: expected a number with m, h, d or w behind it, for instance 7d or 12h\n",
    )


def test_every_command_on_an_empty_root(raysd: Command, tmp_path: Path) -> None:
    empty = tmp_path / "none"
    assert raysd("studies", "--results", empty)[:2] == (0, f"{empty}: nothing was run here yet\n")
    assert json.loads(raysd("studies", "--results", empty, "--json")[1])["studies"] == []
    assert raysd("gc", "--results", empty)[:2] == (0, "nothing to delete by these rules\n")
    assert raysd("compact", "--results", empty)[0] == 0
    assert not empty.exists()
    assert raysd("show", "a", "--results", empty)[0] == raysd("compare", "a", "b", "--results", empty)[0] == 2
