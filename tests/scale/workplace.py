"""A study, a corpus and a results root, and the command line run on them: what the tests of this folder start from."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from raysd.results.store import Record, Results
from raysd.study.design import load_study, trials_of
from raysd.trial import Place, run_trial

RAYSD = str(Path(sys.executable).with_name("raysd"))
RECIPE = """
features: { num_bands: 32 }
segments: { train_seconds: 1.0 }
augment: { log_mixup_exp: {} }
encoder: { name: cnn, width: 0.125 }
train: { epochs: 3, batch_size: 16, precision: fp32 }
"""
STUDY = """
question: "Does it run?"
baseline: recipe.yaml
design: list
variants:
  no mixup: { augment.log_mixup_exp: null }
  gaussian: { scoring.name: gaussian }
seeds: [0, 1]
"""


class Workplace:
    """A study file, a corpus and a results root, and the command line run on them."""

    def __init__(self, folder: Path, corpus: Path, study: str, name: str = "study.yaml") -> None:
        self.folder, self.corpus = folder, corpus
        (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        self.study = folder / name
        self.study.write_text(study, encoding="utf-8")
        self.results = Results(folder / "results")

    def start(self, command: str = "run", *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts a command in a session of its own, with more in its environment."""
        words = [RAYSD, command, str(self.study), "--results", str(self.results.root), "--data-root", str(self.corpus)]
        return subprocess.Popen(
            [*words, "--cache", str(self.folder / "cache"), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )

    def run(self, command: str = "run", *options: str) -> tuple[int, str, str]:
        process = self.start(command, *options)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    def records(self) -> dict[str, Record]:
        return {key: self.results.read(key) for key in sorted(self.results.done())}

    def undisturbed(self, key: str) -> Record:
        """The same trial, run in this process without Ray, in a results root of its own."""
        place = Place(self.corpus, self.folder / "cache", self.folder / "undisturbed")
        fingerprint = self.results.read(key).data_fingerprint
        trial = next(trial for trial in trials_of(load_study(self.study), fingerprint) if trial.key == key)
        return run_trial(trial, place)


def until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


def epochs_kept(folder: str | Path, model: str = "all") -> list[dict]:
    """The history in the checkpoint of the one training under way."""
    for checkpoint in Path(folder).glob(f"work/*/{model}.pt"):
        return torch.load(checkpoint, weights_only=True)["history"]
    return []


def scores(record: Record) -> np.ndarray:
    return pd.DataFrame(record.scores).sort_values("path")["score"].to_numpy()


def family(study: subprocess.Popen[Any]) -> dict[int, str]:
    """The processes that a command has started, its own included: number -> command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, session = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == study.pid and state != "Z":
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def workers_of(folder: Path, kind: str = "ray::") -> list[int]:
    """Ray's processes of a kind that hold a file below `folder` open or mapped: those that train there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if not (process / "cmdline").read_bytes().startswith(kind.encode()):
                continue
            if str(folder) in (process / "maps").read_text(encoding="utf-8", errors="replace"):
                found.append(int(process.name))
    return sorted(found)
