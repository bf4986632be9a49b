"""A build that did not end is continued, and ends as one that nothing disturbed."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
from filelock import FileLock

from raysd.data import build
from raysd.data.store import BadClips, Data, known_fingerprint, open_store
from raysd.errors import BadInput

CLIPS = 14

CHILD = """
import logging, os, signal, sys
from pathlib import Path
import raysd.data.build
from raysd.data.store import Data, open_store
logging.basicConfig(stream=sys.stdout, format="%(message)s")
logging.getLogger("filelock").setLevel(logging.DEBUG)
def progress(done, total):
    print("done", done, flush=True)
    if done == int(sys.argv[3]):
        sys.stdin.readline()
        os.kill(os.getpid(), signal.SIGKILL)
raysd.data.build._TOGETHER = int(sys.argv[4])
open_store(Path(sys.argv[1]), Data(), Path(sys.argv[2]), progress=progress)
"""
PAGE = 4096


def child(root: Path, cache: Path, killed_after: int = 0, together: int = 1) -> "subprocess.Popen[str]":
    """A process that builds the store; after so many clips it kills itself, as soon as its input has a line or ends."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), str(cache), str(killed_after), str(together)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )


def told(output: str) -> list[int]:
    """The numbers of clips that a child's progress gave."""
    return [int(line.split()[1]) for line in output.splitlines() if line.startswith("done ")]


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).uniform(-0.5, 0.5, 500 + 7 * number)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Clips of different lengths: two for the test, which come first in the listing, and twelve for training."""
    for number in range(CLIPS):
        folder = tmp_path / "data/dev_data/fan" / ("test" if number < 2 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        sf.write(folder / f"normal_id_00_{number:02d}.wav", noise(number), 16000)
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Stop(Exception):
    pass


def stopped(root: Path, cache: Path, after: int, data: Data = Data(), skip_bad: bool = False) -> Path:
    """The hidden folder of a build that ends after so many clips."""

    def stop(done: int, total: int) -> None:
        if done == after:
            raise Stop

    before = set(cache.glob(".building-*"))
    with pytest.raises(Stop):
        open_store(root, data, cache, skip_bad, progress=stop)
    (building,) = set(cache.glob(".building-*")) - before
    return building


def continued(root: Path, cache: Path, skip_bad: bool = False) -> list[int]:
    """What progress says while the store is built to its end."""
    seen: list[int] = []
    store = open_store(root, Data(), cache, skip_bad, progress=lambda done, total: seen.append(done))
    store.verify()
    return seen


def content(cache: Path) -> dict[str, bytes]:
    """Every file of the one store of a cache that holds nothing else."""
    (folder,) = (path for path in cache.iterdir() if path.suffix != ".lock" and path.name != ".listings")
    return {f"{folder.name}/{path.name}": path.read_bytes() for path in folder.iterdir()}


def undisturbed(root: Path, cache: Path, skip_bad: bool = False) -> dict[str, bytes]:
    other = cache.with_name("undisturbed")
    open_store(root, Data(), other, skip_bad)
    return content(other)


def on_disk(clips: int) -> set[int]:
    """Of so many clips, written one by one, those that can be in the file: it grows by whole pages, the last clip waits
    in memory, and some before it may be under way."""
    ends = np.cumsum([0, *(2 * len(noise(number)) for number in range(clips))])
    memories = build._AHEAD * (os.cpu_count() or 1) + build._WRITTEN
    pages = ends[max(clips - 1 - memories, 0) : clips] // PAGE
    return {int((ends[1:] <= written * PAGE).sum()) for written in pages}


def test_a_build_that_is_killed_again_and_again(root: Path, cache: Path) -> None:
    there = {0}
    for killed_after in (1, 6, CLIPS):  # the last one between the last clip and the index
        with child(root, cache, killed_after) as process:
            output = process.communicate(timeout=120)[0]
        assert process.returncode == -signal.SIGKILL
        assert told(output) in [list(range(max(first, 1), killed_after + 1)) for first in there]
        assert known_fingerprint(root, Data(), cache) is None
        assert not list(cache.glob("[!.]*/"))
        there = on_disk(killed_after)
    assert continued(root, cache) in [list(range(max(first, 1), CLIPS + 1)) for first in there]
    assert content(cache) == undisturbed(root, cache)


def test_a_killed_build_loses_only_what_is_in_memory(root: Path, cache: Path) -> None:
    with child(root, cache, killed_after=8, together=CLIPS) as process:
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert continued(root, cache) == list(range(1, CLIPS + 1))
    assert content(cache) == undisturbed(root, cache)


def test_who_waits_goes_on_where_the_builder_was_killed(root: Path, cache: Path) -> None:
    with child(root, cache, killed_after=5) as builder:
        assert builder.stdout is not None
        while builder.stdout.readline() != "done 5\n":
            assert builder.poll() is None
        with child(root, cache) as waiter:
            assert waiter.stdout is not None
            while "waiting" not in waiter.stdout.readline():
                assert waiter.poll() is None
            builder.communicate("die\n", timeout=120)
            assert builder.returncode == -signal.SIGKILL
            continues = [list(range(max(first, 1), CLIPS + 1)) for first in on_disk(5)]
            assert told(waiter.communicate(timeout=120)[0]) in continues
            assert waiter.returncode == 0
    assert content(cache) == undisturbed(root, cache)


def cut(name: str, by: int) -> Callable[[Path], None]:
    return lambda building: os.truncate(building / name, (building / name).stat().st_size - by)


def damage(name: str, at: float) -> Callable[[Path], None]:
    def spoil(building: Path) -> None:
        content = bytearray((building / name).read_bytes())
        content[int(at * len(content))] ^= 1
        (building / name).write_bytes(content)

    return spoil


def append(name: str, text: bytes) -> Callable[[Path], None]:
    def spoil(building: Path) -> None:
        with (building / name).open("ab") as file:
            file.write(text)

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], object], int]] = {
    "nothing": (lambda building: None, 8),
    "a_line_without_its_end": (cut("journal", 1), 7),
    "a_torn_line": (cut("journal", 30), 7),
    "a_line_torn_to_one_byte": (lambda building: os.truncate(building / "journal", 1), 0),
    "no_lines": (lambda building: os.truncate(building / "journal", 0), 0),
    "zeros_after_the_lines": (append("journal", bytes(4096)), 8),
    "a_clip_without_its_line": (append("samples.bin", b"samples" * 99), 8),
    "a_torn_clip": (cut("samples.bin", 3), 7),
    "two_torn_clips": (cut("samples.bin", 2 * (500 + 7 * 7) + 1), 6),
    "no_samples": (lambda building: (building / "samples.bin").unlink(), 0),
    "no_journal": (lambda building: (building / "journal").unlink(), 0),
    "a_damaged_sample": (damage("samples.bin", 0.5), 4),
    "a_damaged_line": (damage("journal", 0.55), 4),
    "an_empty_folder": (lambda building: [path.unlink() for path in building.iterdir()], 0),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_only_what_is_whole_is_kept(root: Path, cache: Path, kind: str) -> None:
    spoil, kept = SPOILT[kind]
    spoil(stopped(root, cache, 8))
    assert continued(root, cache) == list(range(max(kept, 1), CLIPS + 1))
    assert content(cache) == undisturbed(root, cache)


def test_what_is_kept_is_not_decoded_again(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import raysd.data.build

    stopped(root, cache, 8)
    decoded, decode_one = list[str](), raysd.data.build._decode
    monkeypatch.setattr(
        "raysd.data.build._decode", lambda path, *rest: (decoded.append(Path(path).name), decode_one(path, *rest))[1]
    )
    continued(root, cache)
    assert set(decoded) == {f"normal_id_00_{number:02d}.wav" for number in range(8, CLIPS)}


def test_a_changed_clip_begins_a_new_build_and_removes_the_old_one(root: Path, cache: Path) -> None:
    other_settings = stopped(root, cache, 3, Data(sample_rate_hz=8000))
    shutil.copytree(root, root.with_name("other"))
    other_root = stopped(root.with_name("other"), cache, 3, Data(channel="mean"))
    old = stopped(root, cache, 8)
    path = root / "dev_data/fan/train/normal_id_00_05.wav"
    sf.write(path, noise(99), 16000)
    os.utime(path, ns=(0, 0))
    assert continued(root, cache) == list(range(1, CLIPS + 1))
    assert not old.exists()
    assert other_settings.exists()
    assert other_root.exists()
    shutil.rmtree(other_settings)
    shutil.rmtree(other_root)
    assert content(cache) == undisturbed(root, cache)


def test_an_old_build_that_a_process_is_still_at_is_left(root: Path, cache: Path) -> None:
    old = stopped(root, cache, 8)
    os.utime(root / "dev_data/fan/train/normal_id_00_05.wav", ns=(0, 0))
    with FileLock(cache / f"{old.name.rpartition('-')[2]}.lock"):
        continued(root, cache)
    assert old.exists()


def test_a_copy_of_the_recordings_continues_the_build(root: Path, cache: Path) -> None:
    stopped(root, cache, 8)
    shutil.copytree(root, root.with_name("copy"))  # with the times of change
    assert continued(root.with_name("copy"), cache) == list(range(8, CLIPS + 1))
    assert content(cache) == undisturbed(root, cache)


def spoil_clip(root: Path, number: int) -> Path:
    path = root / f"dev_data/fan/train/normal_id_00_{number:02d}.wav"
    sf.write(path, np.full(500 + 7 * number, np.nan, dtype=np.float32), 16000, subtype="FLOAT")
    return path


def test_bad_clips_are_left_out_of_a_continued_build(root: Path, cache: Path) -> None:
    for number in (2, 6, 10):
        spoil_clip(root, number)
    stopped(root, cache, 8, skip_bad=True)
    assert continued(root, cache, skip_bad=True) == list(range(8, CLIPS + 1))
    assert content(cache) == undisturbed(root, cache, skip_bad=True)


def test_a_refused_build_has_decoded_the_good_clips_for_one_that_skips_the_bad(root: Path, cache: Path) -> None:
    for number in (2, 6, 10):
        spoil_clip(root, number)
    for _ in range(2):
        with pytest.raises(BadClips, match="3 of 14 clips cannot be used"):
            open_store(root, Data(), cache)
    assert not list(cache.glob("[!.]*/"))
    assert continued(root, cache, skip_bad=True) == [CLIPS]
    assert content(cache) == undisturbed(root, cache, skip_bad=True)


def test_a_bad_clip_is_tried_again(root: Path, cache: Path) -> None:
    path = spoil_clip(root, 6)
    stat = path.stat()
    stopped(root, cache, 8, skip_bad=True)
    sf.write(path, noise(6), 16000, subtype="FLOAT")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert continued(root, cache, skip_bad=True) == list(range(6, CLIPS + 1))
    assert content(cache) == undisturbed(root, cache)


@pytest.mark.parametrize("after", [0, 8])
def test_too_little_room_is_said_before_anything_is_decoded(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    if after:
        stopped(root, cache, after)
    wanted = sum(2 * len(noise(number)) for number in range(after, CLIPS))
    room = {"free": wanted * 0.9}
    monkeypatch.setattr("raysd.data.build.shutil.disk_usage", lambda path: SimpleNamespace(**room))
    seen: list[int] = []
    with pytest.raises(BadInput, match=r"cache: 0 MB are free there, but the decoded clips of .* take 0 MB more"):
        open_store(root, Data(), cache, progress=lambda done, total: seen.append(done))
    assert not seen
    room["free"] = wanted * 1.1
    assert continued(root, cache)[0] == max(after, 1)
    monkeypatch.undo()
    assert content(cache) == undisturbed(root, cache)


def test_a_bad_clip_says_nothing_about_the_room(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = sum(2 * len(noise(number)) for number in range(CLIPS))
    monkeypatch.setattr("raysd.data.build.shutil.disk_usage", lambda path: SimpleNamespace(free=1.1 * wanted))
    spoil_clip(root, 2)
    (root / "dev_data/fan/test/normal_id_00_00.wav").write_bytes(b"")
    (root / "dev_data/fan/train/normal_id_00_00.wav").symlink_to("nowhere.wav")
    with pytest.raises(BadClips, match="3 of 15"):
        open_store(root, Data(), cache)


def test_a_disk_that_fills_up(root: Path, cache: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 5000, limits[1]))  # the samples file may not grow beyond
    try:
        with pytest.raises(BadInput, match="cache: the decoded clips cannot be written there: File too large"):
            open_store(root, Data(), cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(cache.glob("[!.]*/"))
    assert continued(root, cache) == list(range(9, CLIPS + 1))
    assert content(cache) == undisturbed(root, cache)


def test_damaged_samples_are_found_by_their_checksum(root: Path, cache: Path) -> None:
    store = open_store(root, Data(), cache)
    store.verify()
    for offset, length, crc32 in store.clips[["offset", "length", "samples_crc32"]].to_numpy():
        assert zlib.crc32(store.samples[offset : offset + length].tobytes()) == crc32
    (path,) = cache.glob("*/samples.bin")
    damage("samples.bin", 0.01)(path.parent)
    with pytest.raises(BadInput, match=r"damaged \(the samples of dev_data/fan/test/normal_id_00_00.wav .* delete the"):
        open_store(root, Data(), cache).verify()
