"""Results that are out of reach for a while: whoever trains waits for them."""

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from workplace import STUDY, Workplace, until

from raysd.results import patience
from raysd.results.storage import StorageError, open_storage
from raysd.results.store import Results
from raysd.session import Session
from raysd.trial import run_trial

LONG = STUDY.replace("seeds: [0, 1]", "seeds: [0]\nchanges: { train: { epochs: 40 } }")
AWAY_SECONDS = 60
SERVER = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class Flaky:
    """A network file system that fails every file at first, as one whose server is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.failures, self.slept, self._link = 0, [], os.replace
        self._number, self._asked = number, dict[str, int]()
        monkeypatch.setattr(os, "link", self._fails(os.link))
        monkeypatch.setattr(os, "replace", self._fails(os.replace))
        monkeypatch.setattr(patience.time, "sleep", self.slept.append)

    def _fails(self, do: Callable[..., None]) -> Callable[..., None]:
        def fail(source: Path, target: Path) -> None:
            name = str(target)
            self._asked[name] = self._asked.get(name, 0) + 1
            if self._asked[name] <= 3 or self._number == errno.ENOSPC:
                self.failures += 1
                raise OSError(self._number, os.strerror(self._number))
            do(source, target)

        return fail


def test_a_training_waits_for_results_that_are_away(
    opened: Callable[[str | Path], Session],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session, undisturbed = opened(tmp_path / "results"), opened(tmp_path / "undisturbed")
    trial = session.missing()[0]
    expected = run_trial(trial, undisturbed.place())
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "raysd"):
        flaky = Flaky(patched, errno.ESTALE)
        # without hard links a storage renames, which fails as well
        record = run_trial(trial, session.place())
    assert flaky.failures > 3
    assert flaky.slept[:2] == [1.0, 2.0]
    assert list(record.scores) == list(expected.scores)
    said = [line.getMessage() for line in caplog.records]
    assert said[0].startswith("waits up to 5 min for the results: ")
    assert "Stale file handle; choose another folder" in said[0]
    assert said[1].startswith(f"goes on: {session.results} was out of reach for ")
    assert session.results.checkpoints() == {}


def test_a_full_disk_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(monkeypatch, errno.ENOSPC)
    with pytest.raises(StorageError, match="No space left on device"):
        Results(tmp_path, patient=True).checkpoint("t", "all").write(b"x")
    assert flaky.slept == []
    assert open_storage(tmp_path).left_overs() == {}


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An S3 server in a process of its own, and a results root on it."""
    pytest.importorskip("moto", reason="moto, the S3 server, is not installed: pip install -e '.[dev]'")
    from pyarrow.fs import S3FileSystem

    words = [sys.executable, "-c", SERVER]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=nothing, text=True) as process:
        assert process.stdin
        assert process.stdout
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        reached: dict[str, Any] = {"access_key": "key", "secret_key": "secret", "region": "us-east-1"}
        S3FileSystem(**reached, endpoint_override=endpoint, allow_bucket_creation=True).create_dir("away")
        yield process, f"s3://key:secret@away/results?endpoint_override={endpoint}&region=us-east-1"
        process.send_signal(signal.SIGCONT)
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_outlasts_a_minute_without_its_storage(
    workplace: Callable[[str], Workplace], server: tuple[subprocess.Popen[str], str]
) -> None:
    process, root = server
    place = workplace(LONG)
    place.results = Results(root)
    place.results.root = root  # as it stands on the command line
    study = place.start()
    lines: list[str] = []
    assert study.stderr
    reading = threading.Thread(target=lambda: lines.extend(study.stderr or ()))
    reading.start()
    until(lambda: place.results.checkpoints() or study.poll() is not None, "the first epoch", 240)
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: time.monotonic() - began > AWAY_SECONDS, "a minute", AWAY_SECONDS + 10)
    assert study.poll() is None, "".join(lines)
    process.send_signal(signal.SIGCONT)
    out = study.stdout.read() if study.stdout else ""
    assert study.wait(900) == 0, "".join(lines)
    reading.join(30)
    err = "".join(lines)
    assert "waits up to 5 min for the results: s3://away/results" in err
    assert "goes on: s3://away/results was out of reach for" in err
    assert "infrastructure" not in err
    assert "Traceback" not in err
    assert out.count("1/1") >= 4
    assert len(place.results.failures()) == 0
    assert len(place.records()) == 4
