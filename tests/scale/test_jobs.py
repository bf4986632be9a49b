"""Studies as jobs of a real cluster that wants a token: submitted, followed, stopped, and what travels with them."""

import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import cast

import pytest
from hosts import TOKEN, Cluster, Host, new_cluster, until
from ray.job_submission import JobSubmissionClient

import raysd
from raysd.errors import BadInput
from raysd.results.store import Results
from raysd.scale import jobs
from raysd.study.design import load_study

BIN = Path(sys.executable).parent
RECIPE = """
features: { num_bands: 32 }
segments: { train_seconds: 1.0 }
encoder: { name: cnn, width: 0.125 }
train: { epochs: 2, batch_size: 16, precision: fp32 }
"""
STUDY = """
question: "Does it run elsewhere?"
baseline: recipe.yaml
design: list
variants: { gaussian: { scoring.name: gaussian } }
references: []
"""
SECRET = "hunter2-of-the-submitter"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node on the loopback address of this machine."""
    with new_cluster(namespaces=False) as made:
        made.ray_head("head", num_cpus=2)
        yield made


@pytest.fixture
def head(cluster: Cluster) -> Host:
    return cluster.hosts["head"]


@pytest.fixture
def at(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The options that name the cluster; this process has its token, and a secret."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    monkeypatch.setenv("RAYSD_RESULTS", "/nowhere/of-the-submitter")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")  # which Ray's client prefers to what it is told
    return "--address", cluster.dashboard


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(STUDY, encoding="utf-8")
    return tmp_path / "mine.yaml"


def job_of(said: str) -> str:
    found = re.search(r"^submitted: (raysd-mine-\d{8}T\d{6}Z-[0-9a-f]{4})$", said, re.MULTILINE)
    assert found, said
    return found[1]


def test_a_study_is_sent_run_and_followed_to_its_table(
    raysd: Run, at: tuple[str, str], study: Path, cluster: Cluster, corpus: Callable[[int], Path], tmp_path: Path
) -> None:
    options = ("--results", tmp_path / "results", "--env", f"RAYSD_DATA_ROOT={corpus(2020)}", "--set", "train.epochs=3")
    status, out, err = raysd("submit", study, *at, *options, "--follow")
    assert status == 0, out + err
    job = job_of(err)
    assert f"{cluster.dashboard}/#/jobs/{job}" in err
    assert "2/2 done" in out
    assert "official score" in out
    assert "gaussian" in out

    results = Results(tmp_path / "results")
    for record in map(results.read, results.done()):
        assert len(record.history) == 3
        assert f'"commit": "{jobs.code()["commit"]}"'.replace('"None"', "null") in record.provenance

    status, out, _ = raysd("status", job, *at)
    assert status == 0
    for said in ("succeeded", "mine", "--set train.epochs=3", f"{cluster.dashboard}/#/jobs/{job}"):
        assert said in out
    assert job in raysd("status", *at)[1]
    assert "2/2 done" in raysd("logs", job, *at)[1]
    assert raysd("logs", job, *at, "--follow")[0] == 0
    known = jobs.find(jobs.connect(cluster.dashboard), job)
    assert known.runtime_env is not None
    assert known.runtime_env["env_vars"] == {"RAYSD_DATA_ROOT": str(corpus(2020))}
    assert SECRET not in known.model_dump_json()
    assert TOKEN not in known.model_dump_json()


def test_a_jobs_exit_status_is_that_of_the_study(raysd: Run, at: tuple[str, str], study: Path) -> None:
    nowhere = ("--results", "/tmp", "--data-root", "/nowhere/on/the/cluster")
    status, out, err = raysd("submit", study, *at, *nowhere, "--follow")
    assert status == 2
    assert "raysd: /nowhere/on/the/cluster" in out
    assert "failed, exit status 2" in err
    assert "exit status  2" in raysd("status", job_of(err), *at)[1]


def test_a_job_goes_on_when_nobody_follows_and_can_be_stopped(
    raysd: Run, at: tuple[str, str], study: Path, head: Host, cluster: Cluster, corpus: Callable[[int], Path]
) -> None:
    results = study.parent / "results"
    options = ("--results", results, "--data-root", corpus(2020), "--set", "train.epochs=100000")
    status, _, err = raysd("submit", study, *at, *options)
    assert status == 0
    job = job_of(err)
    follower = head.start(str(BIN / "raysd"), "logs", job, *at, "--follow")
    assert follower.stdout is not None
    assert follower.stderr is not None
    until(lambda: "2 of 2 trials to do" in follower.stdout.readline(), "the log of the job")  # pyright: ignore[reportOptionalMemberAccess]
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert f"{job} goes on" in said
    assert f"raysd stop {job} --address {cluster.dashboard}" in said

    until(lambda: list(results.glob("work/*/*.pt")), "a checkpoint")
    assert "running" in raysd("status", job, *at)[1]
    drivers = [pid for pid, words in cluster.processes().items() if "raysd run study/mine.yaml" in words]
    assert drivers
    for pid in drivers:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"RAY_JOB_CONFIG_JSON_ENV_VAR" in environment
        assert SECRET.encode() not in environment

    status, _, err = raysd("stop", job, *at)
    assert (status, f"{job}: stopped" in err) == (0, True)
    until(lambda: "raysd run" not in " ".join(cluster.processes().values()), "the job's processes to end", 60)
    assert "exit status  130" in raysd("status", job, *at)[1]
    options = ("--results", results, "--data-root", corpus(2020), "--set", "train.epochs=100000")
    out = raysd("status", study, *options, "--cache", head.local / "cache")[1]
    assert "0 of 2 trials done, 2 begun" in out  # both from one training


def test_a_plain_ray_job_runs_the_checkout_that_was_sent(
    head: Host, cluster: Cluster, study: Path, corpus: Callable[[int], Path], tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    package = Path(raysd.__file__).parent
    shutil.copytree(package, checkout / "raysd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package.parent / "studies", checkout / "studies")
    for name in (".gitignore", ".rayignore"):
        shutil.copy(package.parent / name, checkout)
    for name in ("recipe.yaml", "mine.yaml"):
        shutil.copy(study.parent / name, checkout / "studies")
    with (checkout / "raysd/__init__.py").open("a", encoding="utf-8") as file:
        file.write("__import__('atexit').register(print, 'this is the checkout')\n")
    stays = [
        ".git/config",
        ".venv/bin/python",
        "results/trials/0.parquet",
        "data/dev_data/0.wav",
        "quickstart/data/0.wav",
    ]
    for name in stays:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("stays", encoding="utf-8")

    ray = (str(BIN / "ray"), "job", "submit", "--address", cluster.dashboard, "--working-dir", ".")
    variables = f'{{"env_vars": {{"RAYSD_DATA_ROOT": "{corpus(2020)}"}}}}'
    command = ("raysd", "run", "studies/mine.yaml", "--results", str(tmp_path / "results"))
    status, out, err = head.run(*ray, "--runtime-env-json", variables, "--", *command, cwd=checkout)
    assert status == 0, out + err
    assert "2/2 done" in out
    assert "this is the checkout" in out
    sent = list(head.local.glob("ray/session_*/runtime_resources/working_dir_files/*/studies/mine.yaml"))
    assert sent
    for folder in (path.parent.parent for path in sent):
        assert (folder / "raysd/cli.py").is_file()
        assert not [name for name in stays if (folder / name).exists()]


def test_the_token_is_found_asked_for_and_checked(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", cluster.dashboard)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BadInput, match=r"wants a token; .*RAY_AUTH_TOKEN.*auth_token"):
        jobs.connect(cluster.dashboard)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(f"{TOKEN}\n", encoding="utf-8")
    assert jobs.jobs(jobs.connect(cluster.dashboard)) is not None
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    with pytest.raises(BadInput, match="refuses the token of RAY_AUTH_TOKEN"):
        jobs.connect(cluster.dashboard)
    (tmp_path / "token").write_text(TOKEN, encoding="utf-8")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(BadInput, match="no job raysd-mine-0; `raysd status --address"):
        jobs.stop(jobs.connect(cluster.dashboard), "raysd-mine-0")


def test_a_cluster_without_authentication_is_not_sent_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"ray_version": "2.60.0", "version": "4"}')

        def log_message(self, format: str, *words: object) -> None:
            pass

    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    server = HTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        jobs.connect(f"http://127.0.0.1:{server.server_port}/")
    finally:
        server.shutdown()
        server.server_close()
    assert asked
    assert {token for _, token in asked} == {None}


def test_a_cluster_that_is_still_coming_up_is_asked_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Head:
        """What a head node says before and after one of its nodes takes jobs."""

        said = ["No available agent to submit job, please try again later.."] * 2

        def get_address(self) -> str:
            return "http://head"

        def submit_job(self, submission_id: str, **job: object) -> str:
            if self.said:
                raise RuntimeError(f"Request failed with status code 500: {self.said.pop()}")
            return submission_id

    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    loaded = load_study(study)
    assert jobs.submit(cast(JobSubmissionClient, Head()), loaded).startswith("raysd-mine-")
    Head.said = ["No available agent to submit job"] * 5
    monkeypatch.setattr(jobs, "READY_WITHIN_SECONDS", -1)
    with pytest.raises(BadInput, match=r"^http://head: the cluster refuses: .* No available agent"):
        jobs.submit(cast(JobSubmissionClient, Head()), loaded)
    Head.said = ["something else"]
    with pytest.raises(BadInput, match="something else"):
        jobs.submit(cast(JobSubmissionClient, Head()), loaded)
    assert not Head.said


def test_an_address_that_cannot_be_used_is_one_line(raysd: Run, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    closed = ("--address", "http://127.0.0.1:9")
    mistakes = {
        ("submit", study): "no cluster given",
        (
            "submit",
            study,
            "--address",
            "10.0.0.1:6379",
        ): "10.0.0.1:6379: expected the address of the cluster's dashboard",
        ("submit", study, *closed): "http://127.0.0.1:9: no Ray dashboard answers there (Connection refused)",
        ("submit", study, *closed, "--set", "train.epoch=3"): "did you mean 'epochs'",
        ("submit", study, *closed, "--results", "here"): "--results here: give an absolute path",
        ("submit", study, *closed, "--env", "NOT_SET_HERE"): "--env NOT_SET_HERE: it is not set here",
        ("submit", study, *closed, "--env", "A B=1"): "'A B' is no name of an environment variable",
        ("status",): "give a study, or a job, or --address",
        ("status", "raysd-mine-0"): "no cluster given",
        ("status", "augmentatoin"): "did you mean 'augmentation'",
        ("logs", "raysd-mine-0", *closed): "no Ray dashboard answers",
        ("stop", "raysd-mine-0", "--address", "http://no-such-host.invalid"): "no Ray dashboard answers",
    }
    for words, said in mistakes.items():
        status, out, err = raysd(*words)
        assert (status, out) == (2, ""), words
        assert err.startswith("raysd: ")
        assert err.count("\n") == 1
        assert said in err
