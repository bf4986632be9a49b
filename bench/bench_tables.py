"""Seconds and memory of the table of a study of 10,200 trials with 23 sections each: 1,700 variants over 6 seeds.

The results root is made up: every trial has the metrics of DCASE 2020's development set and a provenance of its own,
few clips, and lies in a pack, as `raysd compact` leaves it. What is measured is `raysd table` as a process of its own:
the start of Python, the imports and the reading of the study file count, and are told too. `csv` is the largest form:
all metrics of all machines with all statistics in full precision.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from corpus import report

from raysd.detect.metrics import summarise
from raysd.recipe import NUMERICS, recipe_key
from raysd.results.schema import SCHEMA, SCHEMA_VERSION
from raysd.study.design import Trial, load_study, trials_of

RUNS = 3
TRIALS_A_PACK = 2_500
GROUP_ROWS = 16
SECTIONS = {"ToyCar": 4, "ToyConveyor": 3, "fan": 4, "pump": 4, "slider": 4, "valve": 4}
STUDY = {
    "question": "What do ten cutoffs, ten temperatures and seventeen learning rates give, over six seeds?",
    "baseline": "recipes/spectrum_contrastive.yaml",
    "profile": "cpu",
    "factors": {
        "cutoff_hz": {"setting": "augment.high_frequency.cutoff_hz", "levels": [500 * n for n in range(1, 11)]},
        "temperature": {"setting": "loss.contrastive.temperature", "levels": [n / 20 for n in range(1, 11)]},
        "learning_rate": {"setting": "train.learning_rate", "levels": [n / 10_000 for n in range(2, 19)]},
    },
    "design": "factorial",
    "seeds": [0, 1, 2, 3, 4, 5],
    "references": [],
}


def clips() -> pd.DataFrame:
    """Two normal and two anomalous test clips of each section."""
    return pd.DataFrame(
        {"path": f"{machine}/test/{section:02}_{i}.wav", "machine": machine, "section": f"{section:02}", "part": "dev"}
        | {"split": "test", "domain": None, "label": i % 2, "score": float(i)}
        for machine, num_sections in SECTIONS.items()
        for section in range(1, num_sections + 1)
        for i in range(4)
    )


def write_packs(folder: Path, trials: list[Trial]) -> int:
    """The records of the trials, in packs; gives how many sections each has metrics of."""
    scores = clips()
    metrics = summarise(scores, 2020)
    entry, clip = (pa.schema(list(SCHEMA.field(name).type.value_type)) for name in ("metrics", "scores"))
    one_trial = pa.Table.from_pandas(metrics, schema=entry, preserve_index=False)
    all_clips = pa.Table.from_pandas(scores, schema=clip, preserve_index=False)
    rng, now = np.random.default_rng(0), datetime(2024, 1, 1, tzinfo=UTC)
    provenance = {"commit": "0" * 40, "dirty": False, "command": ["raysd", "run", "bench"], "skipped": []}
    for start in range(0, len(trials), TRIALS_A_PACK):
        some = trials[start : start + TRIALS_A_PACK]
        values = rng.uniform(0.5, 1.0, size=len(some) * one_trial.num_rows)
        told = {
            "schema_version": [SCHEMA_VERSION] * len(some),
            "key": [trial.key for trial in some],
            "training_key": [trial.training_key for trial in some],
            "recipe_key": [recipe_key(trial.recipe) for trial in some],
            "numerics": [NUMERICS] * len(some),
            "state": ["done"] * len(some),
            "variant": [trial.variant for trial in some],
            "study": ["bench"] * len(some),
            "seed": [trial.seed for trial in some],
            "year": [2020] * len(some),
            "data_fingerprint": [trial.fingerprint for trial in some],
            "recipe": [trial.recipe.model_dump_json() for trial in some],
            "started": [now] * len(some),
            "finished": [now] * len(some),
            "train_seconds": [50.0] * len(some),
            "total_seconds": [55.0] * len(some),
            "history": [[]] * len(some),
            "provenance": [json.dumps(provenance | {"host": f"node-{start + i}"}) for i in range(len(some))],
            "metrics": lists(one_trial, len(some), value=values),
            "scores": lists(all_clips, len(some)),
        }
        columns = [
            told[field.name] if isinstance(told.get(field.name), pa.Array) else pa.array(told[field.name], field.type)
            if field.name in told else pa.nulls(len(some), field.type)
            for field in SCHEMA
        ]  # fmt: skip
        path = folder / "trials" / f"pack-{start:020}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"compression": "zstd", "write_statistics": False, "write_page_checksum": True}
        with pq.ParquetWriter(path, SCHEMA, **options) as writer:
            writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), row_group_size=GROUP_ROWS)
    return metrics.query("metric == 'auc'")[["machine", "section"]].query("section.str.isdecimal()").shape[0]


def lists(entries: pa.Table, num: int, **replaced: np.ndarray) -> pa.Array:
    """The same entries for each of `num` trials, but for the columns that are replaced."""
    columns = [
        pa.array(replaced[name]) if name in replaced else pa.concat_arrays([column.combine_chunks()] * num)
        for name, column in zip(entries.column_names, entries.columns, strict=True)
    ]
    offsets = pa.array(np.arange(num + 1, dtype=np.int32) * entries.num_rows)
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=list(entries.schema)))


def measured(module: str, *words: object) -> tuple[float, float, float]:
    """Wall-clock and processor seconds and peak memory (GB) of a process that runs a module."""
    measure = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", measure, module, *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, int(done.stderr.split()[-1]) * 1024 / 1e9


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="raysd-bench-") as name:
        folder = Path(name)
        (folder / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")
        study = load_study(folder / "study.yaml")
        trials = trials_of(study, "a corpus")
        num_sections = write_packs(folder / "results", trials)
        options = [folder / "study.yaml", "--results", folder / "results"]
        forms = {
            form: min(measured("raysd", "table", *options, "--format", form) for _ in range(RUNS))
            for form in ("terminal", "markdown", "csv")
        }
        began = time.perf_counter()
        load_study(folder / "study.yaml")
        loading = time.perf_counter() - began
        imports, _, _ = min(measured("raysd.session", *options) for _ in range(RUNS))
    name = f"table of {len(trials):,} trials x {num_sections} sections"
    for form, (wall, _, _) in forms.items():
        report(f"{name}, {form}", "s", [wall], None, "<= 5 s")
    report(f"{name}, memory", "GB", [max(memory for _, _, memory in forms.values())], None, "<= 1 GB")
    for form, (_, cpu, _) in forms.items():
        report(f"processor time of it, {form}", "s", [cpu], None, "told only")
    report("of it, the study file", "s", [loading], None, "told only")
    report("of it, Python and its imports", "s", [imports], None, "told only")


if __name__ == "__main__":
    main()
