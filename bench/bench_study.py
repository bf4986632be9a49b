"""Wall time of `raysd run` for a study of 24 trials, against the seconds that they trained, shared among the cores.

All that a user waits for counts: Python, decoding, Ray's start and end, actors, embedding, scoring, writing, the table.
The profile is `cpu` as it is. Its trials train longer here than on the smallest real corpora and shorter than on the
larger ones (2 to 3 s of valve's 35 clips, 40 s of ToyCar's 1,631). A second study, of one epoch, trains hardly at all.
"""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from corpus import corpus, report

from raysd.results.store import Results

STUDY = """
question: "What does a study cost beyond its trainings?"
baseline: recipes/spectrum_contrastive.yaml
profile: cpu
changes: {{ train: {{ epochs: {epochs} }} }}
factors:
  high_frequency: {{ setting: augment.high_frequency, off: null }}
  log_mixup_exp: {{ setting: augment.log_mixup_exp, off: null }}
  random_resize_crop: {{ setting: augment.random_resize_crop, off: null }}
design: factorial
seeds: [0, 1, 2]
references: []
"""
TRIALS = 24


def run(folder: Path, root: Path, epochs: int) -> tuple[float, list[dict]]:
    """Seconds of the whole command, and what the records say of its trials."""
    study, results = folder / f"epochs{epochs}.yaml", folder / f"results{epochs}"
    study.write_text(STUDY.format(epochs=epochs), encoding="utf-8")
    words = ["run", str(study), "--data-root", str(root), "--results", str(results), "--cache", str(folder / "cache")]
    began, clock = datetime.now(UTC), time.perf_counter()
    subprocess.run([sys.executable, "-m", "raysd", *words], check=True, stdout=subprocess.DEVNULL)
    wall, ended = time.perf_counter() - clock, datetime.now(UTC)
    trials = Results(results).rows(["started", "finished", "train_seconds"])
    assert len(trials) == TRIALS
    beyond = [(one["finished"] - one["started"]).total_seconds() - one["train_seconds"] for one in trials]
    parts = {
        "a trial trained": median(one["train_seconds"] for one in trials),
        "embedded, scored and wrote": median(beyond),
        "before the first trial": (min(one["started"] for one in trials) - began).total_seconds(),
        "after the last": (ended - max(one["finished"] for one in trials)).total_seconds(),
    }
    print(json.dumps({"name": f"of these, median seconds ({epochs} epochs)", "ours": _rounded(parts)}))
    return wall, trials


def _rounded(parts: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds, 2) for name, seconds in parts.items()}


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    with corpus() as (folder, root):
        for epochs, goal in ((10, "<= 1.15"), (1, "none: short trials")):
            wall, trials = run(folder, root, epochs)
            trained = sum(one["train_seconds"] for one in trials) / min(cores, TRIALS)
            name = f"a study of {TRIALS} trials of {epochs} epochs, wall time against training on {cores} cores"
            report(name, "s", [wall], [trained], goal)


if __name__ == "__main__":
    main()
