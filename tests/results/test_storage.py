"""Places where results are kept: whole files under any writers, and one line for every place that does not work."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from raysd.errors import BadInput
from raysd.results import storage as module
from raysd.results.storage import StorageError, open_storage, redacted
from raysd.results.store import Record, Results

NUM_KEYS = 12
CLIPS = {"first": 3, "second": 400}
"""By writer: how many clips its records score, so that one is much longer than the other."""


def of(writer: str, key: str) -> Record:
    now = datetime(2024, 3, 1, tzinfo=UTC)
    clip = {"machine": "fan", "section": "00", "part": "dev", "split": "test", "domain": None, "label": 0}
    names = {"key": key, "training_key": "t", "recipe_key": "r", "data_fingerprint": "d", "study": "s", "recipe": "{}"}
    values: dict[str, Any] = {"numerics": 1, "profile": None, "seed": 0, "year": 2020, "provenance": "{}"}
    times = {"started": now, "finished": now, "train_seconds": 1.0, "total_seconds": 1.0}
    scores = [clip | {"path": f"{writer} {i}", "score": i / 7} for i in range(CLIPS[writer])]
    return Record(**names, **values, **times, variant=writer, scores=scores)


def whole(writer: str, scores: Any) -> bool:
    return [clip["path"] for clip in scores] == [f"{writer} {i}" for i in range(CLIPS[writer])]


def sealed(number: int) -> bytes:
    """Contents of many lengths, whose wholeness shows."""
    return f"{number} ".encode() * (1 + number * 997 % 5000) + b"."


def _write(root: str | Path, writer: str, raced: bytes, start) -> None:
    """What a study's worker does; and, to `raced`, what only the writers of one moment can do: replace a record."""
    results, storage = Results(root), open_storage(root)
    start.wait(60)
    for i in range(NUM_KEYS):
        results.write(of(writer, f"k{i:02d}"))
        storage.replace("trials/raced.parquet", raced)
        results.checkpoint("t", "all").write(sealed(2 * i + (writer == "second")))


# --- writers, readers, killed writers ---------------------------------------------------------------------------------


def test_a_reader_sees_whole_records_while_two_writers_write_the_same(root: str | Path, tmp_path: Path) -> None:
    results, raced = Results(root), {}
    for writer in CLIPS:
        Results(tmp_path / writer).write(of(writer, "raced"))
        raced[writer] = open_storage(tmp_path / writer).read("trials/raced.parquet")
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    writers = [context.Process(target=_write, args=(root, name, raced[name], start), daemon=True) for name in CLIPS]
    for writer in writers:
        writer.start()
    start.wait(60)
    seen, looks = set[str](), 0
    while any(writer.is_alive() for writer in writers):
        for row in results.rows(["variant", "scores"]):
            assert whole(row["variant"], row["scores"])
        for key in sorted(results.done())[-2:]:
            record = results.read(key)
            assert whole(record.variant, record.scores)
            seen |= {record.variant} if key == "raced" else set()
        kept = results.checkpoint("t", "all").read()
        assert kept is None or kept == sealed(int(kept.split()[0]))
        looks += 1
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert looks > 2
    assert seen
    assert results.done() == {f"k{i:02d}" for i in range(NUM_KEYS)} | {"raced"}
    assert len(results.frame(["key"])) == NUM_KEYS + 1


def _kill_when(code: str, root: str | Path, written: Callable[[], bool]) -> None:
    """Runs `code` on `storage` in a process that is killed in the middle of its writing."""
    code = f"storage = open_storage(sys.argv[1]); {code}"
    code = f"import os, sys, time; from raysd.results.storage import open_storage; {code}"
    with subprocess.Popen([sys.executable, "-c", code, str(root)]) as process:
        until = time.monotonic() + 60
        while not written():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_writer_leaves_nothing_visible_in_a_folder(tmp_path: Path) -> None:
    for write in ("write_new", "replace"):
        root = tmp_path / write
        stuck = "os.link = os.replace = lambda *_: time.sleep(600)"
        _kill_when(
            f"{stuck}; storage.{write}('trials/k.parquet', b'x' * 1000)",
            root,
            lambda root=root: any(file.stat().st_size == 1000 for file in root.glob("trials/.*.tmp")),
        )
        storage = open_storage(root)
        assert storage.names("trials", "") == []
        assert storage.read("trials/k.parquet") is None
        assert storage.write_new("trials/k.parquet", b"again")
        assert storage.read("trials/k.parquet") == b"again"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_writer_leaves_nothing_visible_in_object_storage(s3_root: str, s3_endpoint: str) -> None:
    prefix = re.sub(r".*@[^/]*/|\?.*", "", s3_root)
    uploads = f"{s3_endpoint}/raysd-test?uploads"

    def writing() -> bool:
        with urllib.request.urlopen(uploads, timeout=30) as answer:
            return f"<Key>{prefix}/embeddings/t.parquet</Key>" in answer.read().decode()

    _kill_when("storage.write_new('embeddings/t.parquet', os.urandom(60_000_000))", s3_root, writing)
    storage = open_storage(s3_root)
    assert storage.names("embeddings", "") == []
    assert storage.read("embeddings/t.parquet") is None
    assert storage.write_new("embeddings/t.parquet", b"again")
    assert storage.read("embeddings/t.parquet") == b"again"


def test_a_large_file_is_read_as_it_was_written(root: str | Path) -> None:
    content = os.urandom(23_456_789)
    open_storage(root).replace("embeddings/t.parquet", content)
    assert open_storage(root).read("embeddings/t.parquet") == content


# --- places that do not work ------------------------------------------------------------------------------------------


def refused(root: str | Path, message: str) -> str:
    with pytest.raises(BadInput, match=message) as error:
        Results(root).writable()
    said = str(error.value)
    assert "\n" not in said
    assert "hunter2" not in said
    return said


@pytest.mark.parametrize("root", ["s3a://b/c", "http://key:hunter2@host/b", "file:///results", "abfs://a@b/c"])
def test_other_kinds_of_storage_are_refused(root: str) -> None:
    refused(root, r"give a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER")


@pytest.mark.parametrize("root", ["s3://", "s3:///folder", "gs://", "s3://key:hunter2/x+@b/c", "s3://[b/c"])
def test_an_address_without_a_bucket_is_refused(root: str) -> None:
    refused(root, "no bucket is named|give a folder")


def test_an_unknown_option_of_an_address_is_answered_with_the_nearest() -> None:
    said = refused("s3://key:hunter2@bucket/x?endpoint_overide=http://localhost:1", "unknown option 'endpoint_overide'")
    assert "did you mean 'endpoint_override'?" in said


def test_a_bucket_that_is_not_there_is_named(s3_root: str) -> None:
    refused(s3_root.replace("raysd-test", "other"), r"s3://other/.*: there is no bucket 'other'; make it")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_server_that_is_not_there_is_no_long_wait(scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quick = "&retry_limit_seconds=1&scheme=http" if scheme == "gs" else ""
    user = "anonymous" if scheme == "gs" else "key:hunter2"
    host = f"127.0.0.1:{port}" if scheme == "gs" else f"http://127.0.0.1:{port}"
    began = time.monotonic()
    said = refused(
        f"{scheme}://{user}@bucket/x?endpoint_override={host}{quick}",
        f"{scheme}://bucket/x: object storage .* not connect",
    )
    assert ("GOOGLE_APPLICATION_CREDENTIALS" if scheme == "gs" else "AWS_ACCESS_KEY_ID") in said
    assert time.monotonic() - began < 30


def test_a_server_that_does_not_answer_is_no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        refused(f"s3://key:hunter2@bucket/x?endpoint_override={endpoint}", "imeout|too slow")
        assert time.monotonic() - began < 30


@contextmanager
def forbidding() -> Iterator[str]:
    """A server that refuses everything, as S3 does with wrong credentials, or without any."""

    class Refuse(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403)
            self.end_headers()

        do_GET = do_PUT = do_POST = do_HEAD

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_credentials_that_are_not_accepted_are_asked_for() -> None:
    with forbidding() as endpoint:
        refused(
            f"s3://key:hunter2@bucket/x?endpoint_override={endpoint}", "ACCESS_DENIED.*credentials .AWS_ACCESS_KEY_ID"
        )


def test_the_server_can_be_named_by_the_environment(s3_root: str, s3_endpoint: str, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    Results(s3_root.partition("?")[0]).writable()


def test_a_server_that_goes_away_is_no_corrupt_file(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Results(s3_root).write(of("first", "k"))
    with forbidding() as endpoint:
        results = Results(s3_root)
        closed = module.fs.S3FileSystem(
            access_key="key", secret_key="hunter2", endpoint_override=endpoint, region="us-east-1"
        )
        monkeypatch.setattr(results.storage, "_fs", closed)
        uses: list[Callable[[], object]] = [
            results.done,
            lambda: results.has("k"),
            lambda: results.read("k"),
            lambda: results.read_embeddings("t"),
            lambda: results.write(of("first", "k2")),
            lambda: results.checkpoint("t", "all").write(b"x"),
            lambda: results.clear_work("t"),
        ]
        for use in uses:
            with pytest.raises(StorageError, match="object storage refused this, or did not answer") as error:
                use()
            assert "delete it" not in str(error.value)
            assert "hunter2" not in str(error.value)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(tmp_path, "results cannot be kept there: No space left on device; choose another folder")
    assert os.listdir(tmp_path) == []


# --- credentials ------------------------------------------------------------------------------------------------------


def test_credentials_are_not_shown(s3_root: str) -> None:
    results = Results(s3_root)
    assert re.fullmatch(r"s3://raysd-test/\w+/results", str(results))
    with pytest.raises(BadInput, match="no trial") as error:
        results.read("k")
    assert "hunter2" not in str(error.value)
    assert results.root == s3_root  # as other processes have to be told it


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:hunter2@bucket/a", "s3://***@bucket/a"),
        ("--results=s3://key:hunter2@bucket/a?x=1", "--results=s3://***@bucket/a?x=1"),
        ("'s3://key:hunter2/+@bucket/a' is wrong", "'s3://***@bucket/a' is wrong"),
        ("gs://anonymous@bucket/a", "gs://***@bucket/a"),
        ("s3://bucket/who@host/a", "s3://bucket/who@host/a"),
        ("s3://bucket/a http://u:hunter2@host s3://k:hunter2@b", "s3://bucket/a http://***@host s3://***@b"),
        ("a@b", "a@b"),
    ],
)
def test_redacted(text: str, shown: str) -> None:
    assert redacted(text) == shown
