"""Clocks that are set while raysd runs, or differ from machine to machine."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from places import finished
from workplace import STUDY, Workplace, epochs_kept, until

from raysd import trial as module
from raysd.results.cleanup import find_dispensable
from raysd.scale.budget import Budget
from raysd.session import Session
from raysd.status import study_status
from raysd.train import Epoch
from raysd.trial import Run, run_trial

Command = Callable[..., tuple[int, str, str]]
Opened = Callable[[str | Path], Session]
DAY = timedelta(days=1)
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long shift(void) { const char *p = getenv("CLOCK_IS_BACK"); return p && !access(p, F_OK) ? -86400 : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int rc = real(id, t);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) t->tv_sec += shift();
    return rc;
}
int gettimeofday(struct timeval *restrict t, void *restrict z) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
long syscall(long number, ...) { /* whoever waits until a time of this clock */
    static long (*real)(long, ...);
    if (!real) real = (long (*)(long, ...)) dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    struct timespec until;
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
        until = *(struct timespec *) a[3];
        until.tv_sec -= shift();
        a[3] = (long) &until;
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"""
"""The system clock of the processes that preload it: a day behind from when a file is there."""


class Set(datetime):
    """A clock that is set back by a day after its first answer."""

    asked = 0

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # pyright: ignore[reportIncompatibleMethodOverride]
        cls.asked += 1
        return datetime.now(UTC) - DAY * (cls.asked > 1)


def test_durations_do_not_follow_a_clock_that_is_set_back(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(tmp_path / "results")
    trial = session.missing()[0]
    began = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr(module, "datetime", Set)
        record = run_trial(trial, session.place())
    assert record.finished < record.started  # it was really set
    assert 0 < record.train_seconds <= record.total_seconds <= time.monotonic() - began
    assert record.total_seconds < 3600
    assert [epoch["seconds"] > 0 for epoch in record.history] == [True, True]
    assert session.missing()[0].key != trial.key  # done
    assert Budget(1.0)._clock is time.monotonic


def test_times_in_the_future_and_the_past_break_nothing(opened: Opened, tmp_path: Path, raysd: Command) -> None:
    def interrupt(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    session, study = opened(tmp_path / "results"), tmp_path / "study.yaml"
    done, other = session.missing()
    record = run_trial(done, session.place())
    later = replace(done, seed=7)
    with pytest.raises(KeyboardInterrupt):
        run_trial(later, session.place(), interrupt)
    now = datetime.now(UTC)
    (checkpoint,) = (tmp_path / "results").glob("work/*/all.pt")
    for when in (now + 400 * DAY, datetime(1971, 1, 1, tzinfo=UTC)):
        for path in (tmp_path / "results").rglob("*"):
            os.utime(path, (when.timestamp(), when.timestamp()))
        failed = replace(
            Run(other, session.place(), when).failed("code", "Traceback\nValueError: no"), started=when, finished=when
        )
        session.results.write_failure(failed)
        (status,) = study_status(session.study, session.results)
        assert status.summary() == "1 of 2 trials done, 0 begun, 1 failed (1 code), 0 missing"
        status, printed, _ = raysd("status", study, "--results", tmp_path / "results", "--seeds", "7")
        assert status == 0
        if when > now:
            assert "last checkpoint 0 s ago" in printed
            assert find_dispensable(session.results, timedelta(days=7)).found == ()
        for words in ("studies",), ("show", record.key), ("gc",), ("table", study):
            assert raysd(*words, "--results", tmp_path / "results")[0] == 0, words
        assert [trial.key for trial in session.missing()] == [other.key]
    assert checkpoint.exists()
    old = find_dispensable(session.results, timedelta(days=7)).found
    assert [one.kind for one in old] == ["checkpoints"]  # only when asked for by their age, and none of a running trial
    with session.results.lock(later.training_key):
        assert find_dispensable(session.results, timedelta(days=7)).found == ()
    epochs: list[int] = []
    run_trial(later, session.place(), lambda epoch: epochs.append(epoch.epoch))
    assert epochs == [2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_goes_on_when_the_clock_is_set_back_by_a_day(
    workplace: Callable[[str], Workplace], tmp_path: Path
) -> None:
    """The clock of all its processes, Ray's too, in the middle of a trial."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler to make a clock that can be set")
    library, back = tmp_path / "clock.so", tmp_path / "back"
    words = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), "-x", "c", "-", "-ldl"]
    subprocess.run(words, input=CLOCK, text=True, check=True)
    place = workplace(STUDY.replace("seeds: [0, 1]", "seeds: [0]\nreferences: []\nchanges: { train.epochs: 12 }"))
    study = place.start(env={"LD_PRELOAD": str(library), "CLOCK_IS_BACK": str(back)})
    began = time.monotonic()
    until(lambda: len(epochs_kept(place.results.root)) > 2 or study.poll() is not None, "the first epochs", 240)
    back.touch()
    status, _, err = finished(study)
    assert status == 0, err
    records = place.records().values()
    assert len(records) == 3
    assert len(place.results.failures()) == 0
    assert any(record.finished < record.started for record in records)  # it was really set
    for record in records:
        assert 0 <= record.train_seconds <= record.total_seconds + 1 < time.monotonic() - began
        assert all(0 < epoch["seconds"] < 240 for epoch in record.history)
    assert "day" not in err
    status, _, err = finished(place.start())
    assert status == 0, err
    assert "0 of 3 trials to do" in err
