"""Hosts for tests: each with an address, a network and a local disk of its own, and real Ray nodes on them.

A host is a shell that waits for the end of its input, in network, mount, host name and process namespaces of its own.
A cable (veth) joins it to a switch (a bridge in a namespace of its own), so that nothing of this machine's network is
touched. All hosts see their own disk under one path. When the shell ends, the kernel ends every process of the host and
takes its network and its mounts away, even where the test run was killed: nothing has to be found and removed later.

Where such namespaces are not permitted, the hosts share this machine: its loopback address, free ports, and disks under
paths of their own.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

NETWORK = "10.231.87."
NAMESPACES = ("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
SCRIPTS = Path(__file__).parents[2] / "cluster"
"""What a user starts nodes with, by hand."""
OBJECT_STORE_BYTES = 150 << 20
TOKEN = "a-token-of-this-test-cluster-only"
MARK = "RAYSD_TEST_CLUSTER"
"""In the environment of all processes of a cluster, with its folder."""

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 240) -> T:
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)
    return value


@lru_cache(maxsize=1)
def why_no_namespaces() -> str | None:
    """Why hosts cannot have namespaces of their own here; None where they can."""
    missing = [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} is missing (iproute2, util-linux)"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "ip", "link", "add", "switch", "type", "bridge"], capture_output=True, text=True
    )
    return None if tried.returncode == 0 else f"namespaces are not permitted: {tried.stderr.strip()}"


class Host:
    """A machine of its own, or what stands for it on this one."""

    def __init__(self, name: str, address: str, disk: Path, seen_as: Path, shared: dict[str, str]) -> None:
        self.name, self.address, self.disk = name, address, disk
        """`disk` is its local disk, as seen from outside; its own processes find it under `seen_as`."""
        self.local = seen_as
        self.enter: list[str] = []
        """Words before a command that is to run on the host."""
        self.shell: subprocess.Popen[bytes] | None = None
        self.started: list[subprocess.Popen[str]] = []
        for folder in ("home/.ray", "tmp", "cache"):
            (disk / folder).mkdir(parents=True)
        (disk / "home/.ray/auth_token").write_text(TOKEN, encoding="utf-8")
        self.env = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(seen_as / "home"),
            "TMPDIR": str(seen_as / "tmp"),
            "RAYSD_CACHE": str(seen_as / "cache"),
            "RAY_AUTH_MODE": "token",
            **shared,
        }

    def start(self, *words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """A process on this host, in a group of its own, with nothing of this process's environment."""
        process = subprocess.Popen(
            [*self.enter, "sh", "-c", 'cd "$0" && exec "$@"', str(cwd or self.local), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.env, **(env or {})},
            text=True,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self.started.append(process)
        return process

    def run(
        self, *words: str, cwd: Path | None = None, env: dict[str, str] | None = None, seconds: float = 240
    ) -> tuple[int, str, str]:
        """Exit status, output and error output of a command that runs on this host."""
        process = self.start(*words, cwd=cwd, env=env)
        out, err = process.communicate(timeout=seconds)
        return process.returncode, out, err

    def get(self, url: str, token: str | None = TOKEN) -> tuple[int, str]:
        """Status and body of what this host is answered; status 0 where nobody answers."""
        code = (
            "import sys, urllib.request as r, urllib.error as e\n"
            "try: a = r.build_opener(r.ProxyHandler({})).open(r.Request(sys.argv[1], headers=eval(sys.argv[2])))\n"
            "except e.HTTPError as error: a = error\n"
            "except OSError: print(0); sys.exit()\n"
            "print(a.status); print(a.read().decode())\n"
        )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        status, _, body = self.run(sys.executable, "-I", "-c", code, url, repr(headers), seconds=60)[1].partition("\n")
        return int(status or 0), body

    def power_off(self) -> None:
        """Ends all its processes at once, as a pulled plug does: no signal is handled, no connection is closed."""
        if self.shell is not None and self.shell.stdin is not None:
            os.kill(_first_process(self.shell), signal.SIGKILL)
            self.shell.wait()
            self.shell.stdin.close()
            self.shell = None
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        self.started.clear()


class Cluster:
    """Hosts on one switch, with a folder that all of them share and Ray nodes on those that were asked for."""

    def __init__(self, folder: Path, namespaces: bool) -> None:
        self.folder, self.namespaces = folder, namespaces
        self.shared = folder / "shared"
        self.shared.mkdir()
        self.hosts: dict[str, Host] = {}
        self._local = folder / "local"
        self._local.mkdir()
        self._names = folder / "hosts"
        self._names.write_text("127.0.0.1 localhost\n", encoding="utf-8")
        self._switch: subprocess.Popen[bytes] | None = None
        self._networks: set[str] = set()
        if namespaces:
            self._switch = _shell("ip link add switch type bridge && ip link set switch up")

    def host(self, name: str) -> Host:
        """A new host, without Ray."""
        disk = self.folder / "disks" / name
        disk.mkdir(parents=True)
        address = f"{NETWORK}{len(self.hosts) + 1}" if self.namespaces else "127.0.0.1"
        shared = {
            MARK: str(self.folder),
            "RAYSD_DATA_ROOT": str(self.shared / "data"),
            "RAYSD_RESULTS": str(self.shared / "results"),
        }
        host = Host(name, address, disk, self._local if self.namespaces else disk, shared)
        self.hosts[name] = host
        if self._switch is not None:
            with self._names.open("a", encoding="utf-8") as names:
                names.write(f"{address} {name}\n")
            host.shell = _shell(
                f"mount --bind {disk} {self._local} && mount --bind {self._names} /etc/hosts && hostname {name} && "
                "ip link set lo up"
            )
            pid = _first_process(host.shell)
            self._networks.add(os.readlink(f"/proc/{pid}/ns/net"))
            host.enter = ["nsenter", f"--target={pid}", "--all", "--"]
            on_switch = ["nsenter", f"--target={_first_process(self._switch)}", "--net", "--", "ip", "link"]
            _do(*on_switch, "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            _do(*on_switch, "set", "dev", name, "master", "switch", "up")
            _do(*host.enter, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            _do(*host.enter, "ip", "link", "set", "dev", "eth0", "up")
        return host

    def ray_head(self, name: str, num_cpus: int) -> Host:
        """A new host with the cluster's head."""
        host = self.host(name)
        self._head, self.gcs_port, self.dashboard_port = host, self._port(6379), self._port(8265)
        ports = (f"--port={self.gcs_port}", f"--dashboard-port={self.dashboard_port}")
        client_port = f"--ray-client-server-port={self._port(10001)}"
        self._ray_start(host, "start-head.sh", num_cpus, host.address, *ports, client_port)
        until(lambda: host.get(f"{self.dashboard}/api/jobs/")[0] == 200, "the head to take jobs")
        return host

    def ray_node(self, name: str, num_cpus: int) -> Host:
        """A new host with a Ray node that has joined."""
        host = self.host(name)
        head = f"{self._head.address}:{self.gcs_port}"
        self._ray_start(host, "start-node.sh", num_cpus, head, f"--node-ip-address={host.address}")
        return host

    @property
    def dashboard(self) -> str:
        """The address that jobs are submitted to."""
        return f"http://{self._head.address}:{self.dashboard_port}"

    def alive(self) -> int:
        """How many nodes the head believes to be alive."""
        status, body = self._head.get(f"{self.dashboard}/nodes?view=summary")
        nodes: list[dict[str, Any]] = json.loads(body)["data"]["summary"] if status == 200 else []
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    def processes(self) -> dict[int, str]:
        """Number and command line of every process of this cluster."""
        everything = Path("/proc").glob("[0-9]*")
        return {int(process.name): _command_line(process) for process in everything if self._is_ours(process)}

    def _is_ours(self, process: Path) -> bool:
        try:
            if self.namespaces:
                return os.readlink(process / "ns/net") in self._networks
            # Ray writes over the environment of some of its processes, but all of them have their logs open
            mark = f"{MARK}={self.folder}".encode() in (process / "environ").read_bytes().split(b"\0")
            return mark or any(os.readlink(file).startswith(str(self.folder)) for file in (process / "fd").iterdir())
        except OSError:
            return False

    def destroy(self) -> None:
        """Ends every process, network and mount of the cluster, and its folder."""
        for host in self.hosts.values():
            host.power_off()
        if self._switch is not None and self._switch.stdin is not None:
            self._switch.stdin.close()
            self._switch.wait()
        until(self._all_ended, "the processes of the cluster to end", 60)
        shutil.rmtree(self.folder)

    def _all_ended(self) -> bool:
        left = self.processes()
        if not self.namespaces:  # where nothing but a signal ends a process that has left its group
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return not left

    def _ray_start(self, host: Host, script: str, num_cpus: int, *words: str) -> None:
        said = host.disk / "ray-start.txt"
        process = host.start(
            *("sh", "-c", f'exec "$@" >{host.local / said.name} 2>&1', "sh", str(SCRIPTS / script), *words),
            f"--num-cpus={num_cpus}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--temp-dir={host.local / 'ray'}",
            *(() if self.namespaces else (f"--dashboard-agent-listen-port={self._port(0)}",)),
        )

        def up() -> bool:
            text = said.read_text(encoding="utf-8") if said.exists() else ""
            assert process.poll() is None, f"ray start on {host.name} ended:\n{text}"
            return "Ray runtime started" in text

        until(up, f"ray start on {host.name}; what it says is in {said}")

    def _port(self, own: int) -> int:
        """`own` where the host has a network of its own, else one that is free now."""
        if self.namespaces:
            return own
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]


@contextmanager
def new_cluster(namespaces: bool) -> Iterator[Cluster]:
    """A cluster without hosts, destroyed at the end. Its folder's path is short, as Ray's sockets ask for."""
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="raysd-")), namespaces)
    try:
        yield cluster
    finally:
        cluster.destroy()


def _end_with_parent() -> None:
    """A test run that is killed sends SIGTERM to what it started, at which `ray start` ends its processes."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _shell(setup: str) -> subprocess.Popen[bytes]:
    """The first process of new namespaces, after `setup`; they live until its input is closed, at the latest by the
    end of this process."""
    shell = subprocess.Popen(
        ["unshare", *NAMESPACES, "sh", "-c", f"exec 2>&1; {setup} && echo ready && cat; :"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # unshare 2.38 grumbles of a signal mask when it ends
    )
    assert shell.stdout is not None
    assert (said := shell.stdout.readline()) == b"ready\n", f"could not set up a host: {said.decode()}"
    shell.stdout.close()
    return shell


def _first_process(shell: subprocess.Popen[bytes]) -> int:
    """`unshare` itself stays outside of the process namespace."""
    return int(Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text(encoding="utf-8").split()[0])


def _command_line(process: Path) -> str:
    with suppress(OSError):
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _do(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
