"""Seconds of `raysd plan` for a study of 10,000 trials, half of them done, in a results root of 10,000 records; and the
same for a search of as many suggestions.

The whole command counts, with the start of Python and the imports. They alone are measured beside it, by `raysd --help`
of a Python that has imported what the plan needs, to tell what the plan itself takes.
"""

import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from corpus import corpus, report

from raysd.data.store import open_store
from raysd.recipe import NUMERICS, recipe_key
from raysd.results.searches import Suggestion
from raysd.results.store import Record, Results
from raysd.study.design import LoadedStudy, Trial, load_study, trials_of
from raysd.study.search import StudySearch, settings_of

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
SEARCH = STUDY | {
    "question": "Which of 10,000 suggestions is best?",
    "factors": {
        "cutoff_hz": {"setting": "augment.high_frequency.cutoff_hz", "range": {"low": 500.0, "high": 5000.0}},
        "temperature": {"setting": "loss.contrastive.temperature", "range": {"low": 0.05, "high": 0.5, "log": True}},
        "learning_rate": {"setting": "train.learning_rate", "range": {"low": 1e-4, "high": 1e-2, "log": True}},
    },
    "design": "search",
    "search": {"suggestions": 10_000},
    "seeds": [0],
}


def record(trial: Trial, clips: pd.DataFrame) -> Record:
    """A finished trial as it would be kept."""
    now = datetime.now(UTC)
    scores = clips[["path", "machine", "section", "part", "split", "domain", "label"]].assign(score=0.5)
    metrics = [
        {"part": "dev", "machine": machine, "section": "arithmetic_mean", "metric": metric, "value": 0.7}
        | {"num_normal": 4, "num_anomaly": 4}
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
    subprocess.run([sys.executable, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def searched(study: LoadedStudy, fingerprint: str, results: Results) -> list[Trial]:
    """The trials of half of a search's suggestions; its log says that they are done."""
    search, rng = StudySearch(study, fingerprint, results), np.random.default_rng(0)
    ranges = [factor for factor in study.study.factors.values() if factor.range]
    trials = []
    for number in range(settings_of(study).suggestions // 2):
        drawn = {it.setting or "": rng.uniform(it.range.low, it.range.high) for it in ranges if it.range}
        choices = dict(zip(study.study.factors, drawn.values(), strict=True))
        suggestion = Suggestion(number, choices, drawn if number else {}, "", "done", 0.7)
        trials.append(search.trial(suggestion))
        search.log.write(replace(suggestion, key=trials[-1].key))
    return trials


def main() -> None:
    imports = ["-c", "import raysd.session, raysd.study.print_plan"]
    for name, content in (("a study of 10,000 trials", STUDY), ("a search of 10,000 suggestions", SEARCH)):
        with corpus() as (folder, root):
            (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
            study, results = load_study(folder / "study.yaml"), Results(folder / "results")
            store = open_store(root, study.baseline.recipe.data, folder / "cache")
            if study.study.search:
                own = searched(study, store.fingerprint, results)
            else:
                own = trials_of(study, store.fingerprint)[::2]
            write_all(results, own, store.clips)
            write_all(results, [replace(trial, fingerprint="another corpus") for trial in own], store.clips)
            plan = ["-m", "raysd", "plan", folder / "study.yaml", "--results", folder / "results"]
            plan += ["--data-root", root, "--cache", folder / "cache"]
            seconds(*plan)  # reads the files once, so that all runs find them in memory
            ours, reference = [], []
            for _ in range(RUNS):
                reference.append(seconds(*imports))
                ours.append(seconds(*plan))
        report(f"plan of {name}", "s", ours, reference, "<= 3 s; the reference is the imports alone")


if __name__ == "__main__":
    main()
