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
from workplace import STUDY, Workplace, epochs_kept, scores, until, workers_of

GOES_WRONG = STUDY + "changes: { train.learning_rate: 1.0e+30 }\n"
SOME_GO_WRONG = STUDY.replace(
    "seeds: [0, 1]",
    """  bad: { train.learning_rate: 1.0e+30 }
  huge: { loss.contrastive.hidden_dim: 10000000000 }
seeds: [0]""",
)
LONG = STUDY.replace("seeds: [0, 1]", "seeds: [0]\nreferences: []\nchanges: { train: { epochs: 150 } }")


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
    assert not list(Path(place.results.root).glob("work/*/"))

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
    until(lambda: not workers_of(place.folder), "the killed study's workers to end", 60)
    before, kept = place.records(), epochs_kept(place.results.root)
    assert before
    assert 2 < len(kept) < 150

    status, _, err = place.run()
    assert status == 0, err
    after = place.records()
    assert len(after) == 3
    assert {key: after[key] for key in before} == before  # not run again
    continued = [record for record in after.values() if list(record.history)[: len(kept)] == kept]
    assert continued  # its first epochs are those of the killed run, with the seconds that they took then
    for record in continued:
        assert [epoch["epoch"] for epoch in record.history] == list(range(1, 151))
        np.testing.assert_allclose(scores(record), scores(place.undisturbed(record.key)), rtol=1e-3, atol=1e-4)


def test_a_worker_that_is_killed_is_started_again(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(LONG.replace("  no mixup: { augment.log_mixup_exp: null }\n", ""))
    study = place.start()
    until(lambda: len(epochs_kept(place.results.root)) > 2, "the first epochs")
    (worker,) = workers_of(place.folder)
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
    until(lambda: not workers_of(place.folder), "the workers to end", 60)


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


def test_trials_that_fail_are_kept_as_failed_and_stop_no_other(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(SOME_GO_WRONG)
    status, out, err = place.run()
    assert status == 1, err
    assert "2 of 6 trials failed" in err
    assert "0/1" in out
    assert len(place.results.done()) == 4
    failures = place.results.failures().sort_values("started")
    kinds = list(failures[["variant", "failure_kind"]].itertuples(index=False, name=None))
    # what ran out of memory is tried once more, alone and therefore last
    assert sorted(kinds) == [("bad", "non_finite"), ("huge", "oom"), ("huge", "oom")]
    last = failures.iloc[-1]
    assert last["variant"] == "huge"
    assert (place.results.frame(["finished"])["finished"] < last["started"]).all()
    bad = failures.loc[failures["variant"] == "bad", "recipe"].iloc[0]
    assert json.loads(str(bad))["train"]["learning_rate"] == 1e30


def test_what_no_machine_has_room_for_is_refused(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(STUDY)
    status, _, err = place.run("run", "--set", "scale.cpus_per_worker=1000")
    assert status == 2
    assert "scale.cpus_per_worker is 1000" in err.strip().splitlines()[-1]
    assert not place.results.done()


def test_ray_is_imported_for_running_only() -> None:
    code = "import sys, raysd.cli, raysd.session; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
