"""The commands about a results root, on one in a folder and on one in object storage."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from raysd.recipe import Recipe
from raysd.results.storage import open_storage
from raysd.results.store import Results
from raysd.settings import with_changes
from raysd.study.design import Trial
from raysd.trial import Place, Run


def add(root: str | Path, recipe: Recipe, done: bool) -> Trial:
    """A trial that is done or failed, and a checkpoint that nobody removed."""
    trial, results = Trial("baseline", "baseline", recipe, 0, "c0ffee"), Results(root)
    run = Run(trial, Place(Path(), Path(), root, study="mine"), datetime.now(UTC))
    failed = run.failed("oom", "MemoryError: no 3 GB left")
    if done:
        metric = {"part": "dev", "machine": "all", "section": "arithmetic_mean", "metric": "official", "value": 0.5}
        metrics = [metric | {"num_normal": 1, "num_anomaly": 1}]
        results.write(dataclasses.replace(failed, state="done", failure_kind=None, traceback=None, metrics=metrics))
        results.write_embeddings(trial.training_key, pa.table({"path": ["a.wav"]}))
    else:
        results.write_failure(failed)
    results.checkpoint(trial.training_key, "all").write(b"weights")
    return trial


def test_the_commands_say_the_same_before_and_after_packing(
    raysd: Callable[..., tuple[int, str, str]], root: str | Path, tiny_recipe: Recipe
) -> None:
    first, _, failed = (
        add(root, with_changes(tiny_recipe, {"train.epochs": epochs}, "x"), done=epochs > 1) for epochs in (3, 2, 1)
    )
    words = [
        ("studies",),
        ("show", first.key),
        ("show", failed.key),
        ("compare", "mine", "mine"),
        ("studies", "--json"),
    ]
    said = [raysd(*more, "--results", root) for more in words]
    assert [(status, err) for status, _, err in said] == [(0, "")] * 5
    assert "2/?" in said[0][1]
    assert "official" in said[1][1]
    assert "MemoryError: no 3 GB left" in said[2][1]
    assert "2 trials in both: 2 equal to the bit" in said[3][1]
    (row,) = json.loads(said[4][1])["studies"]
    assert (row["done"], row["failed"], row["total"]) == (2, 1, None)

    status, _, err = raysd("compact", "--results", root)
    assert (status, "2 trials: 2 files" in err) == (0, True)
    assert len(open_storage(root).names("trials", ".parquet")) == 1
    assert [raysd(*more, "--results", root) for more in words] == said
    status, _, err = raysd("gc", "--results", root, "--embeddings", "--delete")
    assert (status, "deleted: 4 files" in err) == (0, True)
    assert "hunter2" not in err + "".join(out for _, out, _ in said)
    assert len(Results(root).done()) == 2
