"""Studies under Ray Tune, through the command line: what is killed is continued, what fails is kept and told."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
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
GOES_WRONG = STUDY + "changes: { train.learning_rate: 1.0e+30 }\n"
ONE_GOES_WRONG = STUDY.replace("seeds: [0, 1]", "  bad: { train.learning_rate: 1.0e+30 }\nseeds: [0]")
LONG = STUDY.replace("seeds: [0, 1]", "seeds: [0]\nreferences: []\nchanges: { train: { epochs: 400 } }")


class Workplace:
    """A study file, a corpus and a results root, and the command line run on them."""

    def __init__(self, folder: Path, corpus: Path, study: str) -> None:
        self.folder, self.corpus = folder, corpus
        (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        self.study = folder / "study.yaml"
        self.study.write_text(study, encoding="utf-8")
        self.results = Results(folder / "results")

    def start(self, command: str = "run", *options: str) -> subprocess.Popen[str]:
        words = [RAYSD, command, str(self.study), "--results", str(self.results.root), "--data-root", str(self.corpus)]
        return subprocess.Popen(
            [*words, "--cache", str(self.folder / "cache"), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
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


@pytest.fixture
def workplace(tmp_path: Path, corpus: Callable[[int], Path]) -> Callable[[str], Workplace]:
    return lambda study: Workplace(tmp_path, corpus(2020), study)


def until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


def epochs_kept(folder: Path) -> list[dict]:
    """The history in the checkpoint of the one training under way."""
    for checkpoint in folder.glob("work/*/all.pt"):
        return torch.load(checkpoint, weights_only=True)["history"]
    return []


def scores(record: Record) -> np.ndarray:
    return pd.DataFrame(record.scores).sort_values("path")["score"].to_numpy()


def test_a_study_runs_and_a_second_run_has_nothing_to_do(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(STUDY)
    status, out, err = place.run()
    assert status == 0, err
    assert "official score" in out
    assert err.count("done") >= 7
    records = place.records()
    assert len(records) == 7  # three variants, two seeds; the classical floor once
    assert len(place.results.trained()) == 5  # `gaussian` scores the baseline's embeddings
    assert {record.state for record in records.values()} == {"done"}
    for key in records:
        undisturbed = place.undisturbed(key)
        np.testing.assert_allclose(scores(records[key]), scores(undisturbed), rtol=1e-4, atol=1e-5)
    assert not list(place.results.root.glob("work/*/"))

    started = time.monotonic()
    again, out_again, err_again = place.run()
    assert (again, out_again) == (0, out)
    assert "0 of 7 trials to do" in err_again
    assert place.records() == records
    assert time.monotonic() - started < 60

    longer = place.run("run", "--seeds", "0,1,2")
    assert longer[0] == 0
    assert "3 of 10 trials to do" in longer[2]
    assert {key: record for key, record in place.records().items() if key in records} == records


def test_killed_at_any_time_a_study_goes_on_from_the_last_epoch(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(LONG)
    first = place.start()
    until(lambda: place.results.done() and len(epochs_kept(place.results.root)) > 2, "a trial and a half")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    until(lambda: not _workers_of(place.folder), "the killed study's workers to end", 60)
    before, kept = place.records(), epochs_kept(place.results.root)
    assert before
    assert 2 < len(kept) < 400

    status, _, err = place.run()
    assert status == 0, err
    after = place.records()
    assert len(after) == 3
    assert {key: after[key] for key in before} == before  # not run again
    continued = [record for record in after.values() if list(record.history)[: len(kept)] == kept]
    assert continued  # its first epochs are those of the killed run, with the seconds that they took then
    for record in continued:
        assert [epoch["epoch"] for epoch in record.history] == list(range(1, 401))
        np.testing.assert_allclose(scores(record), scores(place.undisturbed(record.key)), rtol=1e-3, atol=1e-4)


def test_a_worker_that_is_killed_is_started_again(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(LONG.replace("  no mixup: { augment.log_mixup_exp: null }\n", ""))
    study = place.start()
    until(lambda: len(epochs_kept(place.results.root)) > 2, "the first epochs")
    (worker,) = _workers_of(place.folder)
    os.kill(worker, signal.SIGKILL)
    _, err = study.communicate(timeout=240)
    assert study.returncode == 0, err
    assert len(place.results.done()) == 2
    assert len(place.results.failures()) == 0
    for record in place.records().values():
        np.testing.assert_allclose(scores(record), scores(place.undisturbed(record.key)), rtol=1e-3, atol=1e-4)


def test_interrupted_it_says_how_to_go_on(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(LONG)
    study = place.start()
    until(lambda: epochs_kept(place.results.root), "the first epoch")
    os.killpg(study.pid, signal.SIGINT)
    _, err = study.communicate(timeout=60)
    assert study.returncode == 130, err
    assert "interrupted: 0 of 3 trials finished; the same command goes on" in err
    assert "Traceback" not in err
    assert epochs_kept(place.results.root)
    until(lambda: not _workers_of(place.folder), "the workers to end", 60)


def test_a_mistake_common_to_all_stops_the_study_at_the_first_trial(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(GOES_WRONG)
    status, _, err = place.run()
    assert status == 2
    assert err.strip().splitlines()[-1].startswith("raysd: the first trial failed")
    assert "Traceback" not in err
    assert not place.results.done()
    failures = place.results.failures()
    assert list(failures["failure_kind"]) == ["non_finite"]
    assert "NonFiniteLoss" in failures["traceback"].iloc[0]


def test_a_trial_that_fails_is_kept_as_failed_and_stops_no_other(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(ONE_GOES_WRONG)
    status, out, err = place.run()
    assert status == 1, err
    assert "1 of 5 trials failed" in err
    assert "0/1" in out
    assert len(place.results.done()) == 4
    failures = place.results.failures()
    assert list(failures["variant"]) == ["bad"]
    assert json.loads(str(failures["recipe"].iloc[0]))["train"]["learning_rate"] == 1e30


def test_what_no_machine_has_room_for_is_refused(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(STUDY)
    status, _, err = place.run("run", "--set", "scale.cpus_per_worker=1000")
    assert status == 2
    assert "scale.cpus_per_worker is 1000" in err.strip().splitlines()[-1]
    assert not place.results.done()


def test_ray_is_imported_for_running_only() -> None:
    code = "import sys, raysd.cli, raysd.session; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _workers_of(folder: Path) -> list[int]:
    """Processes that hold a file below `folder` open or mapped: the actors that train there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            maps = (process / "maps").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if b"ray::" in command and str(folder) in maps:
            found.append(int(process.name))
    return found
