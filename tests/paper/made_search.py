"""A search that is made up: real suggestions in a real log, with records whose metrics follow from the choices."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from raysd.detect.metrics import ALL_MACHINES, averaging, headline_metrics
from raysd.recipe import NUMERICS, recipe_key
from raysd.results.store import Record, Results
from raysd.study.design import LoadedStudy, Trial, load_study
from raysd.study.search import StudySearch

BASE = {
    "features": {"num_bands": 32},
    "augment": {"log_mixup_exp": {}, "high_frequency": {"mode": "noise"}},
    "loss": {"classification": {"name": "arcface"}},
    "profiles": {"cpu": {"encoder": {"name": "cnn", "width": 0.125}, "train": {"epochs": 9}}},
}
FLOOR = {"encoder": {"name": "spectral_mean"}, "scoring": {"name": "gaussian"}}
STUDY: dict[str, Any] = {
    "question": "Which settings tell <normals> from perturbed ones & others?",
    "baseline": "recipes/base.yaml",
    "profile": "cpu",
    "changes": {"train": {"batch_size": 32}},
    "factors": {
        "rate": {"setting": "train.learning_rate", "range": {"low": 1e-4, "high": 1e-2, "log": True}},
        "mixup": {"setting": "augment.log_mixup_exp", "off": None},
        "alpha": {"setting": "augment.log_mixup_exp.alpha", "range": {"low": 0.1, "high": 0.5}},
    },
    "design": "search",
    "search": {"suggestions": 14, "random_first": 14, "held_out": 0.25},
    "pruning": {"first_epochs": 2},
    "seeds": [3],
    "references": ["recipes/floor.yaml"],
}
NOW = datetime(2024, 1, 1, tzinfo=UTC)
ORIGIN = {
    "commit": "abcdef0123456789",
    "dirty": True,
    "python": "3.11.7",
    "packages": {"torch": "2.13.0"},
    "platform": "Linux",
    "cpu": "a processor",
    "command": ["raysd", "run", "find"],
    "skipped": [],
    "train_sets": "dev",
    "checkpoint": "last epoch",
}


def study_at(folder: Path, **changes: Any) -> LoadedStudy:
    """The study file `find.yaml` with its recipe beside it."""
    (folder / "recipes").mkdir(exist_ok=True)
    for name, content in {"recipes/base": BASE, "recipes/floor": FLOOR, "find": STUDY | changes}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return load_study(folder / "find.yaml")


def run_search(
    study: LoadedStudy, results: Results, fingerprint: str = "d0", official: float = 1.0, baseline: float | None = None
) -> None:
    """Runs it without any training: suggestion 5 fails, 6 is pruned, the last one stays under way.

    The proxy is better the nearer the learning rate is to 1e-3, and a little with mixup; the official metric follows it
    `official` times. `baseline` is the proxy of the baseline.
    """
    search = StudySearch(study, fingerprint, results)
    last = (study.study.search.suggestions if study.study.search else 0) - 1
    number = 0
    while trial := search.next():
        rate, mixup = trial.recipe.train.learning_rate, trial.recipe.augment.log_mixup_exp
        proxy = 0.9 - abs(rate - 1e-3) * 40 + (0.01 if mixup else 0.0)
        if number == 0:
            proxy = baseline if baseline is not None else 0.7
        if number == last:
            return
        if number == 5:
            results.write_failure(failed(trial))
            search.failed(trial.key, "code")
        elif number == 6:
            search.log.write_rung(2, trial.key, proxy - 0.2)
            search.pruned(trial.key)
        else:
            metrics = {"proxy_perturbed": proxy, "proxy_other_sections": 0.5 + 0.001 * (number % 3)}
            results.write(record(trial, metrics, 0.6 + official * (proxy - 0.7)))
            search.done(trial.key)
        number += 1


def record(trial: Trial, proxies: dict[str, float], official: float, **changes: Any) -> Record:
    """A finished trial on two machines with these numbers."""
    year = trial.recipe.data.year
    values = proxies | dict.fromkeys(headline_metrics(year), official)
    metrics = [
        {"part": "dev", "machine": machine, "section": averaging(year), "metric": metric, "value": value}
        | {"num_normal": 5, "num_anomaly": 5}
        for machine in ("fan", "pump", ALL_MACHINES)
        for metric, value in values.items()
    ]
    content: dict[str, Any] = {
        "key": trial.key,
        "training_key": trial.training_key,
        "recipe_key": recipe_key(trial.recipe),
        "numerics": NUMERICS,
        "variant": trial.variant,
        "study": "find",
        "profile": "cpu",
        "seed": trial.seed,
        "year": year,
        "data_fingerprint": trial.fingerprint,
        "recipe": trial.recipe.model_dump_json(),
        "started": NOW,
        "finished": NOW + timedelta(minutes=2),
        "train_seconds": 90.0,
        "total_seconds": 120.0,
        "provenance": json.dumps(ORIGIN),
        "metrics": metrics,
        "history": [{"epoch": epoch} for epoch in range(1, 1 + trial.recipe.train.epochs)],
    }
    return Record(**content | changes)


def failed(trial: Trial) -> Record:
    """A trial that broke off."""
    said = "Traceback (most recent call last):\nValueError: <broken> & gone"
    return record(trial, {}, 0.0, state="failed", failure_kind="code", traceback=said, metrics=[])
