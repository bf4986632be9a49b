"""Seconds of `raysd plan` for a study of 10,000 trials, half of them done, in a results root of 10,000 records.

The whole command counts, with the start of Python and the imports. They alone are measured beside it, by `raysd --help`
of a Python that has imported what the plan needs, to tell what the plan itself takes.
"""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from corpus import corpus, report

from raysd.data.store import open_store
from raysd.recipe import NUMERICS, recipe_key
from raysd.results.store import Record, Results
from raysd.study.design import Trial, load_study, trials_of

RUNS = 5
STUDY = {
    "question": "What do ten cutoffs, ten temperatures and twenty learning rates give, over five seeds?",
    "baseline": "recipes/spectrum_contrastive.yaml",
    "profile": "cpu",
    "factors": {
        "cutoff_hz": {"setting": "augment.high_frequency.cutoff_hz", "levels": [500 * n for n in range(1, 11)]},
        "temperature": {"setting": "loss.contrastive.temperature", "levels": [n / 20 for n in range(1, 11)]},
        "learning_rate": {"setting": "train.learning_rate", "levels": [n / 10_000 for n in range(1, 21)]},
    },
    "design": "factorial",
    "seeds": [0, 1, 2, 3, 4],
    "references": [],
}


def record(trial: Trial, clips: pd.DataFrame) -> Record:
    """A finished trial as it would be kept."""
    now = datetime.now(UTC)
    scores = clips[["path", "machine", "section", "part", "split", "domain", "label"]].assign(score=0.5)
    metrics = [
        {"part": "dev", "machine": machine, "section": "arithmetic_mean", "metric": metric, "value": 0.7}
        for machine in ("all", "fan", "pump")
        for metric in ("auc", "pauc", "official")
    ]
    provenance = {"device": "cpu", "device_model": None, "threads": 1, "precision": "fp32", "scale": None}
    return Record(
        key=trial.key,
        training_key=trial.training_key,
        recipe_key=recipe_key(trial.recipe),
        numerics=NUMERICS,
        variant=trial.variant,
        study="bench",
        profile="cpu",
        seed=trial.seed,
        year=2020,
        data_fingerprint=trial.fingerprint,
        recipe=trial.recipe.model_dump_json(),
        started=now - timedelta(seconds=60),
        finished=now,
        train_seconds=50.0,
        total_seconds=55.0,
        clips_per_second=300.0,
        history=[],
        scores=scores,
        metrics=metrics,
        provenance=json.dumps(provenance),
    )


def write_all(results: Results, trials: list[Trial], clips: pd.DataFrame) -> None:
    """A record for each trial, made from one by exchanging what names it: tens of times faster than one by one."""
    results.write(record(trials[0], clips))
    folder = Path(str(results.root)) / "trials"
    first = pq.read_table(folder / f"{trials[0].key}.parquet")
    for trial in trials[1:]:
        own = {
            "key": trial.key,
            "training_key": trial.training_key,
            "recipe_key": recipe_key(trial.recipe),
            "recipe": trial.recipe.model_dump_json(),
            "seed": trial.seed,
            "variant": trial.variant,
        }
        table = first
        for name, value in own.items():
            column = table.schema.get_field_index(name)
            table = table.set_column(column, table.schema.field(column), pa.array([value], table.schema.types[column]))
        pq.write_table(table, folder / f"{trial.key}.parquet", compression="zstd")


def seconds(*words: object) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    with corpus() as (folder, root):
        (folder / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")
        study = load_study(folder / "study.yaml")
        store = open_store(root, study.baseline.recipe.data, folder / "cache")
        own, others = trials_of(study, store.fingerprint), trials_of(study, "another corpus")
        assert len(own) >= 10_000
        write_all(Results(folder / "results"), own[::2] + others[::2], store.clips)
        options = ["--results", folder / "results", "--data-root", root, "--cache", folder / "cache"]
        plan = ["-m", "raysd", "plan", folder / "study.yaml", *options]
        imports = ["-c", "import raysd.session, raysd.study.print_plan"]
        seconds(*plan)  # reads the files once, so that all runs find them in memory
        ours, reference = [], []
        for _ in range(RUNS):
            reference.append(seconds(*imports))
            ours.append(seconds(*plan))
    report("plan of 10,000 trials", "s", ours, reference, "<= 3 s; the reference is the imports alone")


if __name__ == "__main__":
    main()
