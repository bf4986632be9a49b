"""What a study survives, and what it leaves behind: minutes of two cores in all."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from rich.console import Console
from workplace import STUDY, Workplace, epochs_kept, family, scores, until, workers_of

from raysd.progress import StudyProgress
from raysd.results import cleanup
from raysd.results.store import Results
from raysd.scale.tune import run_trials
from raysd.session import Session
from raysd.study.design import Trial, load_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LONG = STUDY.replace("seeds: [0, 1]", "seeds: [0]\nreferences: []\nchanges: { train: { epochs: 4000 } }")
MANY = """
question: "Does anything pile up?"
baseline: recipe.yaml
changes: { train.epochs: 1 }
design: list
variants: { no mixup: { augment.log_mixup_exp: null } }
references: []
seeds: SEEDS
""".replace("SEEDS", str(list(range(150))))
MEBI = 2**20


@dataclass(frozen=True)
class Held:
    """What a study holds of its machine at one moment."""

    processes: int
    handles: int
    """Open files of the driver and of the actors. (Ray's log monitor keeps up to 200 logs open, then closes them.)"""
    driver_bytes: int
    largest_actor_bytes: int
    object_store_bytes: int
    scratch_bytes: int
    """Files in the folder of the run: Ray's logs, Tune's notes."""

    @classmethod
    def now(cls) -> "Held":
        folder = folder_of_run()
        processes, handles, actors = 0, 0, [0]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                opened = [os.readlink(handle) for handle in (process / "fd").iterdir()]
                if not any(target.startswith(f"{folder}/") for target in opened):
                    continue
                processes += 1
                actor = b"ray::ImplicitFunc" in (process / "cmdline").read_bytes()
                if actor:
                    actors.append(resident_bytes(int(process.name)))
                if actor or int(process.name) == os.getpid():
                    handles += len(opened)
            except OSError:  # it ended meanwhile
                continue
        name = "object_store_memory"
        return cls(
            processes=processes,
            handles=handles,
            driver_bytes=resident_bytes(os.getpid()),
            largest_actor_bytes=max(actors),
            object_store_bytes=int(ray.cluster_resources()[name] - ray.available_resources().get(name, 0)),
            scratch_bytes=bytes_below(folder),
        )


class Sampler(StudyProgress):
    """Notes what a study holds after some of its trials."""

    def __init__(self, trials: int, after: list[int]) -> None:
        super().__init__(Console(stderr=True), trials)
        self._after = after
        self.seen: list[Held] = []
        self.finished_at: list[float] = []

    def finished(self, trial: Trial, summary: dict[str, Any]) -> None:
        super().finished(trial, summary)
        self.finished_at.append(time.monotonic())
        self.folder = folder_of_run()
        if len(self.finished_at) in self._after:
            self.seen.append(Held.now())


def folder_of_run() -> Path:
    return Path(ray.get_runtime_context().worker.node.get_session_dir_path()).parent


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_nothing_piles_up_over_three_hundred_trials(
    workplace: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    place = workplace(MANY)
    study = load_study(place.study)
    session = Session(study, Results(place.folder / "results"), place.corpus, place.folder / "cache")
    session.decode()
    trials = session.missing()
    assert len(trials) == 300
    # the first are for what is held once: libraries that are loaded late, the log-mels, caches of the allocator
    after = [40, 100, 160, 230, 295]
    watch = Sampler(len(trials), after)
    with watch:
        outcome = run_trials(trials, session.place(), study.study.scale, watch)
    assert outcome.done == 300

    for number, held in zip(after, watch.seen, strict=True):
        print(number, held)
    seconds = np.diff(watch.finished_at)
    print("seconds between trials:", [round(float(part.mean()), 3) for part in np.array_split(seconds, 4)])
    first, last, trials_between = watch.seen[0], watch.seen[-1], after[-1] - after[0]
    assert last.processes <= first.processes
    assert last.handles <= first.handles + 5
    assert last.object_store_bytes <= first.object_store_bytes + MEBI
    # what grows is Ray's: a trial run without it leaves less than a kilobyte
    assert last.driver_bytes - first.driver_bytes < trials_between * 0.15 * MEBI
    assert last.largest_actor_bytes - first.largest_actor_bytes < trials_between * 0.4 * MEBI
    assert last.scratch_bytes - first.scratch_bytes < trials_between * 0.1 * MEBI
    assert bytes_below(place.folder / "results") < 300 * 0.1 * MEBI  # its records and embeddings, all of it wanted
    assert not list((place.folder / "results" / "work").iterdir())
    assert not watch.folder.exists()


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again_at_any_moment_it_ends_with_the_same_table(
    tmp_path: Path, corpus: Callable[[int], Path], seed: int
) -> None:
    (tmp_path / "killed").mkdir()
    (tmp_path / "undisturbed").mkdir()
    text = STUDY.replace("[0, 1]", "[0, 1]\nchanges: { train.epochs: 40 }")
    killed, undisturbed = (Workplace(tmp_path / name, corpus(2020), text) for name in ("killed", "undisturbed"))
    draw = random.Random(seed)
    kept: dict[str, tuple[bytes, int]] = {}
    for _ in range(5):
        study = killed.start()
        if draw.random() < 0.7:  # else at any moment of its start
            more = len(kept) + draw.randrange(2)
            until(lambda more=more, study=study: len(records(killed)) >= more or study.poll() is not None, "records")
        time.sleep(draw.uniform(0, 4))
        study.kill()  # it may have come to its end before
        study.communicate()
        until(lambda study=study: not family(study), "its processes to end", 60)
        now = records(killed)
        assert {key: now[key] for key in kept} == kept  # neither lost nor written again
        kept = now
    status, _, err = killed.run()
    assert status == 0, err
    assert f"{7 - len(kept)} of 7 trials to do" in err
    now = records(killed)
    assert {key: now[key] for key in kept} == kept
    assert len(killed.results.failures()) == 0
    # a kill between a training's last record and its clearing away leaves what `raysd gc` finds
    cleanup.delete(killed.results, cleanup.find_dispensable(killed.results))
    assert not list((tmp_path / "killed" / "results" / "work").glob("*/"))

    assert undisturbed.run()[0] == 0
    tables = [place.run("table", "--format", "csv")[1] for place in (killed, undisturbed)]
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) > 3


def test_two_studies_at_once_train_what_they_share_once(tmp_path: Path, corpus: Callable[[int], Path]) -> None:
    text = STUDY.replace("[0, 1]", "[0, 1]\nchanges: { train.epochs: 40 }")
    first = Workplace(tmp_path, corpus(2020), text, "first.yaml")
    second = Workplace(tmp_path, corpus(2020), text.replace("no mixup", "no mixup, too"), "second.yaml")
    second.study.write_text(
        second.study.read_text(encoding="utf-8").replace(
            "{ scoring.name: gaussian }", "{ loss.contrastive.temperature: 0.3 }"
        ),
        encoding="utf-8",
    )
    running = [first.start(), second.start()]
    while any(study.poll() is None for study in running):
        first.results.frame()  # every record is whole at any moment, or this raises
        time.sleep(0.05)
    for study in running:
        out, err = study.communicate()
        assert study.returncode == 0, err
        assert "2/2" in out
    tables = [place.run("table", "--format", "csv")[1] for place in (first, second)]
    keys = [set(re.findall(r"\b[0-9a-f]{20}\b", table)) & first.results.done() for table in tables]
    assert [len(found) for found in keys] == [7, 7]
    assert len(keys[0] & keys[1]) == 5  # the baseline and one variant with two seeds, and the reference
    assert first.results.done() == keys[0] | keys[1]
    assert len(first.results.failures()) == 0
    left = [path for path in (tmp_path / "results").rglob("*") if path.is_file() and path.suffix != ".parquet"]
    assert {path.parent.name for path in left} == {"launches"}  # no checkpoint, no lock


def test_trials_that_ask_for_half_a_core_share_one(workplace: Callable[[str], Workplace]) -> None:
    """The same arithmetic as for a share of a GPU, which a machine without one cannot test; and the numbers of trials
    that run alone."""
    place = workplace(
        STUDY.replace("[0, 1]", "[0, 1]\nreferences: []\nchanges: { train.epochs: 200 }")
    )  # four trainings
    study = place.start("run", "--set", "scale.cpus_per_worker=0.5")
    at_once = min(4, 2 * len(os.sched_getaffinity(0)))
    until(lambda: len(workers_of(place.folder, "ray::ImplicitFunc")) == at_once, f"{at_once} trials at once", 240)
    _, err = study.communicate(timeout=400)
    assert study.returncode == 0, err
    records = place.records()
    assert len(records) == 6
    for key, record in records.items():
        # 200 epochs make much of any difference in training; a Gaussian's last digits depend on the threads of BLAS
        np.testing.assert_allclose(scores(record), scores(place.undisturbed(key)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_told_to_stop_ends_in_order(
    workplace: Callable[[str], Workplace], stop: signal.Signals
) -> None:
    place = workplace(LONG)
    study = place.start()
    until(lambda: epochs_kept(place.folder / "results"), "the first epoch")
    (folder,) = set(re.findall(r"/tmp/raysd-\w+", " ".join(family(study).values())))
    os.kill(study.pid, stop)
    _, err = study.communicate(timeout=120)
    assert study.returncode == 130, err
    assert "interrupted: 0 of 3 trials finished; the same command goes on" in err
    assert "Traceback" not in err
    until(lambda: not family(study), "its processes to end", 20)
    assert not Path(folder).exists()


def test_what_ray_ends_for_want_of_memory_is_tried_alone_and_then_marked(
    workplace: Callable[[str], Workplace],
) -> None:
    place = workplace(STUDY)
    # Ray's monitor takes a machine for full at one percent
    study = place.start(env={"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"})
    _, err = study.communicate(timeout=240)
    assert study.returncode == 2
    assert "failed baseline seed 0  oom:" in err
    assert list(place.results.failures()["failure_kind"]) == ["oom"]


def test_a_study_does_not_join_a_cluster_that_runs_on_its_machine(
    workplace: Callable[[str], Workplace], tmp_path: Path
) -> None:
    place = workplace(STUDY)
    short = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"r{os.getpid()}"
    short.mkdir()
    env = {**os.environ, "TMPDIR": str(short), "RAY_AUTH_MODE": "disabled"}
    words = ["start", "--head", "--port=0", "--num-cpus=0", "--include-dashboard=false", "--block"]
    cluster = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), *words],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: (short / "ray" / "ray_current_cluster").exists(), "the cluster")
        study = place.start(env={"TMPDIR": str(short)})
        _, err = study.communicate(timeout=240)
        assert study.returncode == 0, err  # the cluster has no core, so that nothing could have run there
        assert cluster.poll() is None
    finally:
        os.killpg(cluster.pid, signal.SIGTERM)
        until(lambda: not family(cluster), "the cluster's processes to end", 120)
        shutil.rmtree(short)


def records(place: Workplace) -> dict[str, tuple[bytes, int]]:
    """The content of each record, and when it was written."""
    found = sorted((place.folder / "results" / "trials").glob("*.parquet"))
    return {path.stem: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}
