"""Odd paths, no home directory, two users on one machine, no OMP_NUM_THREADS."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from places import OTHER_UID, RAYSD, as_another_user, nobodys
from workplace import STUDY, Workplace, scores

from raysd.errors import BadInput
from raysd.results.store import Results
from raysd.session import Session
from raysd.study.design import load_study
from raysd.trial import run_trial

Command = Callable[..., tuple[int, str, str]]
ODD = 'Ünïcode 数据 a\'s "b" #1 100% [x] {y} $HOME ;&'
SHORT = STUDY.replace("seeds: [0, 1]", "seeds: [0]")


def odd(folder: Path, name: str) -> Path:
    made = folder / f"{name} {ODD}"
    made.mkdir()
    return made


def test_paths_with_spaces_and_unicode(
    opened: Callable[[str | Path], Session], corpus: Callable[[int], Path], tmp_path: Path, raysd: Command
) -> None:
    """Data, cache, results, the study's file and what is written of it."""
    session = opened(tmp_path / "plain")
    expected = run_trial(session.missing()[0], session.place())
    data, study = odd(tmp_path, "data"), odd(tmp_path, "study") / f"{ODD}.yaml"
    for path in corpus(2020).iterdir():
        (data / path.name).symlink_to(path)
    shutil.copy(tmp_path / "study.yaml", study)
    shutil.copy(tmp_path / "tiny.yaml", study.parent)
    root, cache = odd(tmp_path, "results"), odd(tmp_path, "cache")
    where = ("--results", root, "--data-root", data, "--cache", cache)
    status, printed, err = raysd("plan", study, *where)
    assert (status, "2 of 2 trials to do" in printed) == (0, True), err
    there = Session(load_study(study), Results(root), data, cache)
    there.decode()
    for trial in there.missing():
        run_trial(trial, there.place())
    assert list(there.results.read(expected.key).scores) == list(expected.scores)
    for words in ("status", study), ("show", expected.key), ("compact",), ("gc",):
        assert raysd(*words, "--results", root)[0] == 0, words
    folder = odd(tmp_path, "written")
    assert raysd("export-dcase", expected.key, folder / ODD, "--results", root)[0] == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_runs_where_all_paths_are_odd(tmp_path: Path, corpus: Callable[[int], Path]) -> None:
    data = odd(tmp_path, "data") / "2020"
    shutil.copytree(corpus(2020), data)
    place = Workplace(odd(tmp_path, "work"), data, SHORT, f"{ODD}.yaml")
    temporary = Path(tempfile.mkdtemp(prefix="ü ", dir="/tmp"))
    try:
        study = place.start(env={"TMPDIR": str(temporary)})
        out, err = study.communicate(timeout=900)
    finally:
        shutil.rmtree(temporary)
    assert study.returncode == 0, err
    assert len(place.records()) == 4
    assert out.count("1/1") >= 4


def test_without_a_home_directory_the_commands_are_there() -> None:
    """A user whom the machine does not know, as in a container: nothing says where their home is."""
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    said = subprocess.run([*nobodys(), RAYSD, "run", "--help"], capture_output=True, text=True, env=env)
    assert (said.returncode, said.stderr) == (0, "")
    assert "--cache" in said.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["unknown", "not writable"])
def test_a_study_runs_without_a_home_directory(
    tmp_path: Path, corpus: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    place = Workplace(tmp_path, corpus(2020), SHORT)
    words = ["run", str(place.study), "--results", str(place.results.root), "--data-root", str(place.corpus)]
    words = [RAYSD, *words, "--set", "scale.cpus_per_worker=0.5"]
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    if kind == "unknown":
        temporary = Path(tempfile.mkdtemp(prefix="nohome-", dir="/tmp"))
        env |= {"TMPDIR": str(temporary)}
        words = [*nobodys(), *words]
    else:
        env |= {"HOME": "/proc/absent"}
        refused = subprocess.run(words, capture_output=True, text=True, env=env)
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[-1] == (
            "raysd: /proc/absent/.cache/raysd: the decoded clips cannot be written there: No such file or directory; "
            "make room, or choose another --cache"
        )
        words += ["--cache", str(tmp_path / "cache")]
    said = subprocess.run(words, capture_output=True, text=True, env=env, timeout=900)
    assert said.returncode == 0, said.stderr
    assert "Traceback" not in said.stderr
    assert len(place.records()) == 4
    if kind == "unknown":
        assert list(temporary.glob(f"raysd-cache-{OTHER_UID}/*/samples.bin"))
        shutil.rmtree(temporary)


def lent(folder: Path) -> None:
    """All that lies there may be read by everybody, and written by its owner alone."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that other users can reach, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="two-users-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_users_of_one_machine_do_not_meet(shared_folder: Path, corpus: Callable[[int], Path]) -> None:
    """The same study at the same moment, in the same /tmp; then one looks at what the other has, and may not write."""
    shutil.copytree(corpus(2020), shared_folder / "data")
    place = Workplace(shared_folder, shared_folder / "data", SHORT)
    own = shared_folder / "other"
    own.mkdir()
    lent(shared_folder)
    own.chmod(0o700)
    os.chown(own, OTHER_UID, OTHER_UID)
    env = {**os.environ, "HOME": str(own)}
    env.pop("XDG_CACHE_HOME", None)
    study, data = str(place.study), ["--data-root", str(place.corpus)]

    def theirs(*words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(as_another_user([RAYSD, *words]), stdout=pipe, stderr=pipe, text=True, env=env, cwd="/")

    first, second = place.start(), theirs("run", study, *data, "--results", str(own / "results"))
    for running in first, second:
        _, err = running.communicate(timeout=900)
        assert running.returncode == 0, err
    mine = place.records()
    (samples,) = own.glob(".cache/raysd/*/samples.bin")
    assert samples.stat().st_uid == OTHER_UID
    theirs_ = Results(own / "results")
    assert theirs_.done() == set(mine)
    for key, record in mine.items():
        assert sorted(scores(theirs_.read(key))) == pytest.approx(sorted(scores(record)), rel=1e-4, abs=1e-5)

    lent(shared_folder)
    looked = theirs("table", study, "--results", str(place.results.root))
    out, err = looked.communicate(timeout=900)
    assert looked.returncode == 0, err
    assert out.count("1/1") >= 4
    my_results, my_cache = str(place.results.root), str(place.folder / "cache")
    for where in ["--results", my_results], ["--results", str(own / "more"), "--cache", my_cache]:
        refused = theirs("run", study, *data, *where, "--seeds", "5")
        _, err = refused.communicate(timeout=900)
        assert refused.returncode == 2, err
        assert "Traceback" not in err
        assert "Permission denied" in err
    assert place.records() == mine


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_without_omp_num_threads_a_trial_takes_its_own_cores_alone(
    workplace: Callable[[str], Workplace], tmp_path: Path
) -> None:
    place = workplace(SHORT)
    words = [RAYSD, "run", str(place.study), "--data-root", str(place.corpus), "--cache", str(tmp_path / "cache")]
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    records = []
    for name, more in {"unset": {}, "set": {"OMP_NUM_THREADS": "1"}}.items():
        words_ = [*words, "--results", str(tmp_path / name)]
        said = subprocess.run(words_, capture_output=True, text=True, env=env | more, timeout=900)
        assert said.returncode == 0, said.stderr
        results = Results(tmp_path / name)
        records.append({key: results.read(key) for key in sorted(results.done())})
    unset, set_ = records
    assert unset.keys() == set_.keys()
    for key, record in unset.items():
        assert json.loads(record.provenance)["threads"] == 1
        assert list(scores(record)) == list(scores(set_[key]))  # to the bit


def test_without_omp_num_threads_a_process_takes_what_it_was_given(
    opened: Callable[[str | Path], Session], tmp_path: Path
) -> None:
    """torch would take all cores of the machine."""
    threads, session = torch.get_num_threads(), opened(tmp_path / "results")
    torch.set_num_threads(2)
    try:
        record = run_trial(session.missing()[0], session.place())
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert json.loads(record.provenance)["threads"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("failures", [2, 3])
def test_ray_that_does_not_come_up_is_started_again(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    """As on a machine that is so busy that Ray's half a minute is too short."""
    from raysd.scale import connect

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    began: list[str] = []

    def busy(**options: object) -> None:
        began.append(str(options["_temp_dir"]))
        if len(began) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(connect.ray, "init", busy)
    if failures < connect.STARTS:
        with connect.connected() as here:
            assert here.folder.exists()
    else:
        said = "Ray did not start on this machine: The current node timed out during startup; see that"
        with pytest.raises(BadInput, match=said):
            connect.connected().__enter__()
    assert len(began) == 3
    assert not Path(began[0]).exists()
