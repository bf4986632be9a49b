"""The files in cluster/ at work: real Ray clusters on this machine's loopback address, each with a home of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
TINY_STUDY = """
question: "Does it run?"
baseline: recipe.yaml
design: list
variants: { no mixup: { augment.log_mixup_exp: null } }
references: []
"""
TINY_RECIPE = """
features: { num_bands: 32 }
segments: { train_seconds: 1.0 }
augment: { log_mixup_exp: {} }
encoder: { name: cnn, width: 0.125 }
train: { epochs: 1, batch_size: 16, precision: fp32 }
"""


class Bench:
    """A home of its own, and everything that is started with it: found by a mark, so that nothing can be left."""

    def __init__(self, corpus: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rcf", dir="/tmp"))  # Ray's sockets want a short path
        self.home, self.programs = self.folder / "home", self.folder / "bin"
        self.home.mkdir()
        self.programs.mkdir()
        (self.folder / "recipe.yaml").write_text(TINY_RECIPE, encoding="utf-8")
        (self.folder / "study.yaml").write_text(TINY_STUDY, encoding="utf-8")
        self.study = [
            *(str(self.folder / "study.yaml"), "--data-root", str(corpus)),
            *("--results", str(self.folder / "results"), "--cache", str(self.folder / "cache")),
        ]
        self.env = {
            "PATH": os.pathsep.join([str(self.programs), str(BIN), os.environ["PATH"]]),
            "HOME": str(self.home),
            "TMPDIR": "/tmp",
            "OMP_NUM_THREADS": "1",
            "RAYSD_TEST_BENCH": str(self.folder),
        }

    def program(self, name: str, text: str) -> None:
        """A stand-in for a program that this machine does not have, or should not run."""
        path = self.programs / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, **env: str) -> tuple[int, str]:
        process = self.start(*words, **env)
        try:
            out, _ = process.communicate(timeout=280)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"{words} did not end; it said:\n{process.communicate()[0]}") from None
        return process.returncode, out

    def cores(self, **address: str) -> float:
        """Of all nodes of a cluster; they have one each here."""
        found = re.search(r"/([0-9.]+) CPU", self.run("ray", "status", **address)[1])
        return float(found[1]) if found else 0

    def processes(self, but: str = "nothing") -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                ours = f"RAYSD_TEST_BENCH={self.folder}".encode() in (entry / "environ").read_bytes()
                if ours and but not in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def end(self) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def bench(corpus: Callable[[int], Path]) -> Iterator[Bench]:
    made = Bench(corpus(2020))
    yield made
    made.end()


@pytest.fixture
def ray_elsewhere() -> Iterator[None]:
    """Another Ray on this machine, as that of `raysd run`, has the port at which nodes take jobs by default."""
    with socket.socket() as taken:
        with suppress(OSError):  # somebody's Ray has it already
            taken.bind(("127.0.0.1", 52365))
            taken.listen()
        yield


def until(condition: Callable[[], object], what: str, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def listening_at(port: int) -> set[str]:
    """The addresses, as /proc/net/tcp writes them, at which somebody listens at a port."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_by_hand_runs_a_study_and_leaves_nothing(bench: Bench, ray_elsewhere: None) -> None:
    gcs, dashboard, client = free_ports(3)
    small = ["--num-cpus=1", "--object-store-memory=100000000"]
    refused = bench.run("cluster/start-node.sh", f"127.0.0.1:{gcs}")
    assert refused[0] == 2
    assert "no token here" in refused[1]

    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    head = bench.start("cluster/start-head.sh", *ports, *small, f"--temp-dir={bench.folder / 'ray'}")
    token = bench.home / ".ray" / "auth_token"
    until(token.exists, "the token")
    assert token.stat().st_mode & 0o077 == 0
    node = bench.start("cluster/start-node.sh", f"127.0.0.1:{gcs}", *small)
    address = {"RAY_ADDRESS": f"127.0.0.1:{gcs}", "RAY_AUTH_MODE": "token"}

    until(lambda: bench.cores(**address) == 2, "two nodes")
    stranger = bench.run("ray", "status", **(address | {"RAY_AUTH_TOKEN": "wrong"}))
    assert stranger[0] != 0
    assert "uthenticat" in stranger[1]
    assert listening_at(dashboard) == {"0100007F"}  # 127.0.0.1

    status, said = bench.run("raysd", "run", *bench.study, **address)
    assert status == 0, said
    assert "no mixup" in said
    jobs = bench.run("raysd", "submit", *bench.study, "--address", f"http://127.0.0.1:{dashboard}", "--follow")
    assert jobs[0] == 0, jobs[1]
    assert "no mixup" in jobs[1]

    os.killpg(node.pid, signal.SIGINT)  # Ctrl-C
    node.communicate(timeout=60)
    until(lambda: bench.cores(**address) == 1, "the node to leave")
    head.terminate()
    head.communicate(timeout=60)
    until(lambda: not bench.processes(), "every process to end", 60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_slurm_job_runs_a_study_on_two_nodes_and_gives_its_exit_status(bench: Bench) -> None:
    """As a job of two nodes, both of which are this machine: a stand-in for srun runs its command here."""
    bench.program("srun", '#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    script = ROOT / "cluster" / "slurm.sh"
    slurm = {
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURMD_NODENAME": "here",
        "SLURM_CPUS_PER_TASK": "1",
    }
    status, said = bench.run(str(script), *bench.study, **slurm)
    assert status == 0, said
    assert "no mixup" in said
    until(lambda: not bench.processes(), "every process to end", 60)
    assert not Path(f"/tmp/ray-{slurm['SLURM_JOB_ID']}").exists()

    status, said = bench.run(str(script), str(bench.folder / "absent.yaml"), *bench.study[1:], **slurm)
    assert status == 2, said  # that of `raysd run`
    assert "absent.yaml" in said
    until(lambda: not bench.processes(), "every process to end", 60)


SSH = """#!/usr/bin/env bash
# what would run on the node USER@NODE runs here, in a home of that node's own
while [[ $1 != *@* ]]; do shift; done
export HOME="{folder}/${{1#*@}}" RAY_TMPDIR="{folder}/${{1#*@}}/tmp"
shift
cd "$HOME" && exec setsid bash -c "$*"
"""
RSYNC = """#!{python}
import os, shutil, sys
source, target = sys.argv[-2:]
node, _, path = target.partition("@")[2].partition(":")
path = path.replace("~", os.path.join("{folder}", node))
if os.path.isdir(source):
    shutil.copytree(source, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
else:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copyfile(source, path)
"""
STOP = """#!{python}
# `ray stop` would stop every Ray of this machine
import os, pathlib, signal, sys
if sys.argv[1] != "stop":
    os.execv("{ray}", ["{ray}", *sys.argv[1:]])
home = "HOME=" + os.environ["HOME"] + chr(0)
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if home in (entry / "environ").read_text() and "/ray/" in (entry / "cmdline").read_text():
            os.kill(int(entry.name), signal.SIGKILL)
    except (OSError, UnicodeDecodeError):
        pass
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_up_starts_a_cluster_on_nodes_reached_by_ssh(bench: Bench) -> None:
    """Two nodes of which both are this machine: stand-ins for ssh and rsync, each node with a home of its own."""
    gcs, dashboard, client = free_ports(3)
    head, worker = "127.0.0.2", "127.0.0.3"
    bench.program("ssh", SSH.format(folder=bench.folder))
    bench.program("rsync", RSYNC.format(folder=bench.folder, python=sys.executable))
    for node in (head, worker):
        installed = bench.folder / node / "raysd-env" / "bin"
        installed.mkdir(parents=True)
        (bench.folder / node / "tmp").mkdir()
        (bench.folder / node / ".bashrc").write_text(f'export PATH="{bench.programs}:{BIN}:$PATH"\n', encoding="utf-8")
        for name, text in {
            "ray": STOP.format(python=sys.executable, ray=BIN / "ray"),
            "pip": '#!/bin/sh\necho "$@" > ~/pip.log\n',
        }.items():
            (installed / name).write_text(text, encoding="utf-8")
            (installed / name).chmod(0o755)
    key = bench.home / "key"
    key.write_text("no key: nothing is encrypted here", encoding="utf-8")
    small = "--num-cpus=1 --object-store-memory=100000000 --dashboard-agent-listen-port=0"
    text = (
        (ROOT / "cluster" / "on-premises.yaml")
        .read_text(encoding="utf-8")
        .replace("[<WORKER_IP>, <WORKER_IP>]", f"[{worker}]")
    )
    text = text.replace("6379", str(gcs)).replace("8265", str(dashboard))
    text = text.replace("ray start --head", f"ray start --head --node-ip-address=<HEAD_IP> {small}")
    text = text.replace("ray start --address", f"ray start --node-ip-address={worker} {small} --address")
    text = text.replace("--disable-usage-stats\n    --auto", f"--ray-client-server-port={client} --auto")
    for name, value in {"<HEAD_IP>": head, "<SSH_USER>": "me", "<SSH_KEY>": str(key)}.items():
        text = text.replace(name, value)
    assert "<" not in re.sub(r"^#.*", "", text, flags=re.M)
    config = bench.folder / "cluster.yaml"
    config.write_text(text, encoding="utf-8")
    here = {"RAY_TMPDIR": str(bench.home)}

    assert bench.run("ray", "get-auth-token", "--generate")[0] == 0
    status, said = bench.run("ray", "up", str(config), "--yes", "--no-config-cache", **here)
    assert status == 0, said
    address = {"RAY_ADDRESS": f"{head}:{gcs}", "RAY_AUTH_MODE": "token"}

    until(lambda: bench.cores(**address) == 2, "two nodes")
    for node in (head, worker):
        home = bench.folder / node
        assert (home / "pip.log").read_text().endswith(f"--constraint {home}/raysd/constraints.txt {home}/raysd\n")
        assert (home / ".ray" / "auth_token").stat().st_mode & 0o077 == 0
        assert (home / "raysd" / "raysd" / "cli.py").exists()
        assert not list((home / "raysd").rglob("__pycache__"))
    assert listening_at(dashboard) == {"0100007F"}
    status, said = bench.run("raysd", "run", *bench.study, **address)
    assert status == 0, said

    status, said = bench.run("ray", "down", str(config), "--yes", **here)
    assert status == 0, said
    # it stops the head; the other node's Ray then ends by itself, but for this one idle process
    until(lambda: not bench.processes(but="log_monitor.py"), "every process to end", 120)
