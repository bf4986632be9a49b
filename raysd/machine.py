"""What a machine has: versions, cores, memory, GPUs, limits. Each check is a function that says what will not work, and
the fix."""

import hashlib
import os
import platform
import resource
import shutil
import subprocess
import time
import tomllib
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import raysd

GIB = 2**30
NAMED = ("torch", "torchaudio", "ray")
"""The packages that get a line of their own."""
MEMORY_PER_CORE = GIB  # a trial on one core holds torch, its network and the spectra of its clips
LITTLE_SHARED_MEMORY = GIB
OPEN_FILES = 8192  # Ray advises at least so many


class State(StrEnum):
    """What a check came to."""

    ok = "ok"
    warning = "warning"
    fails = "will not work"
    unknown = "not checked"


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    found: str
    state: State
    fix: str = ""


def size(num_bytes: int) -> str:
    """As people write it."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB // 10 else f"{num_bytes / 2**20:.1f} MiB"


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def versions() -> dict[str, str]:
    """What has to be the same wherever one study runs. A checkout changes without its version, so its code is named."""
    digest, folder = hashlib.sha256(), Path(raysd.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    found = {"python": platform.python_version(), "raysd": f"{_project()['version']} (code {digest.hexdigest()[:8]})"}
    for name in NAMED:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def python() -> Finding:
    """Whether raysd is made for this Python."""
    version, wanted = platform.python_version(), _project()["requires-python"]
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding("python", version, State.ok)
    return Finding("python", f"{version}, but raysd needs {wanted}", State.fails, f"install Python {wanted}")


def this_package() -> Finding:
    """Which raysd runs."""
    return Finding("raysd", versions()["raysd"], State.ok)


def package(name: str) -> Finding:
    """Whether a package is there in a version that fits raysd's pins; torch and torchaudio are imported, too."""
    wanted = next(wanted for wanted in _requirements() if wanted.name == name)
    if problem := _misfit(wanted):
        return Finding(name, problem, State.fails, _install(wanted))
    version = metadata.version(name)
    try:
        if name == "torch":
            import torch  # noqa: F401
        if name == "torchaudio":
            from raysd.model._torchaudio import torchaudio  # noqa: F401
    except Exception as error:  # of any kind: a library that is missing, built for another system, cut short
        found = f"{version} cannot be imported: {one_line(error)}"
        return Finding(name, found, State.fails, f"{_install(wanted)} --force-reinstall")
    return Finding(name, version, State.ok)


def packages() -> Finding:
    """Whether all the other packages that raysd needs are there and fit."""
    others = [wanted for wanted in _requirements() if wanted.name not in NAMED]
    misfits = {problem: wanted for wanted in others if (problem := _misfit(wanted))}
    if misfits:
        return Finding("packages", ", ".join(misfits), State.fails, _install(*misfits.values()))
    return Finding("packages", f"all {len(others)} others fit", State.ok)


def _project() -> dict:
    """Version, Python and dependencies of raysd: of the checkout that runs, else of the installed package."""
    checkout = Path(raysd.__file__).parents[1] / "pyproject.toml"
    if checkout.exists():
        return tomllib.loads(checkout.read_text(encoding="utf-8"))["project"]
    about = metadata.metadata("raysd")
    return {
        "version": about["Version"],
        "requires-python": about["Requires-Python"],
        "dependencies": [text for text in metadata.requires("raysd") or () if "extra ==" not in text],
    }


def _requirements() -> list[Requirement]:
    wanted = [Requirement(text) for text in _project()["dependencies"]]
    return [one for one in wanted if one.marker is None or one.marker.evaluate()]


def _misfit(wanted: Requirement) -> str | None:
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    fits = wanted.specifier.contains(version, prereleases=True)
    return None if fits else f"{wanted.name} {version}, but raysd needs {wanted.specifier}"


def _install(*wanted: Requirement) -> str:
    extras = {one.name: f"[{','.join(sorted(one.extras))}]" if one.extras else "" for one in wanted}
    return "pip install " + " ".join(f'"{one.name}{extras[one.name]}{one.specifier}"' for one in wanted)


def cores() -> Finding:
    """Cores that a run takes, and how they compute."""
    import torch

    from raysd.recipe import Training
    from raysd.train import precision

    count = num_cores()
    found = f"{count}; they compute in {precision(Training(), torch.device('cpu'))}"
    quota, period = [*_words("/sys/fs/cgroup/cpu.max"), "max", "max"][:2]
    if quota.isdigit() and int(quota) < count * int(period):
        share = int(quota) / int(period)
        fix = f"give the container {count} CPUs, or only {max(1, round(share))} cores to see (docker --cpuset-cpus)"
        return Finding("cores", f"{found}; but the container gets the time of {share:g}", State.warning, fix)
    return Finding("cores", found, State.ok)


def num_cores() -> int:
    """Cores on which this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> Finding:
    """Memory that is free, within the limit of the container."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        for limit in filter(str.isdigit, _words(path)):
            total, free = min(total, int(limit)), min(free, int(limit))
    found, count = f"{size(free)} free of {size(total)}", num_cores()
    if free < MEMORY_PER_CORE:
        return Finding("memory", found, State.fails, "a trial needs about 1 GiB: end what is not needed, or add some")
    if free < count * MEMORY_PER_CORE:
        at_once = free // MEMORY_PER_CORE
        fix = f"not a trial on each core, but {at_once} at once: --set scale.cpus_per_worker={-(-count // at_once)}"
        return Finding("memory", found, State.warning, fix)
    return Finding("memory", found, State.ok)


def _words(path: str) -> list[str]:
    try:
        return Path(path).read_text().split()
    except OSError:
        return []


def gpus() -> Finding:
    """The GPUs that torch can use, each tried; or why it cannot use those that are there."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if usable:
        try:
            return Finding("GPUs", "; ".join(_gpu(index) for index in range(torch.cuda.device_count())), State.ok)
        except RuntimeError as error:
            fix = "look at it with nvidia-smi: another process may hold it, or it needs a reset"
            return Finding("GPUs", f"torch sees a GPU that it cannot use: {one_line(error)}", State.fails, fix)
    try:
        names = nvidia_smi()
    except (OSError, subprocess.SubprocessError) as error:
        fix = "mend the driver if this machine has a GPU"
        return Finding("GPUs", f"nvidia-smi is there, but fails: {one_line(error)}", State.warning, fix)
    if not names:
        return Finding("GPUs", "none; trials run on the CPU", State.ok)
    seen = f"nvidia-smi sees {', '.join(names)}, but"
    if torch.version.cuda is None:
        fix = f"pip install --force-reinstall torch=={torch.__version__.split('+')[0]} (from PyPI, where it has CUDA)"
        return Finding("GPUs", f"{seen} torch {torch.__version__} is a CPU build", State.fails, fix)
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding("GPUs", f"{seen} CUDA_VISIBLE_DEVICES hides them", State.fails, "unset CUDA_VISIBLE_DEVICES")
    reason = " ".join(str(said[-1].message).split())[:200] if said else "it does not say why"
    fix = f"install a driver for CUDA {torch.version.cuda}, or a torch built for the CUDA of the driver"
    return Finding("GPUs", f"{seen} torch {torch.__version__} cannot use them: {reason}", State.fails, fix)


def num_gpus() -> int:
    """How many GPUs torch can use; none where it cannot be imported."""
    try:
        import torch
    except Exception:  # which `package` tells
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def nvidia_smi() -> list[str]:
    """The names of the GPUs that the driver knows; none where there is no nvidia-smi. Raises where that fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()


def _gpu(index: int) -> str:
    import torch

    from raysd.recipe import Training
    from raysd.train import precision

    with torch.cuda.device(index):
        torch.zeros(1, device="cuda")
        free, total = torch.cuda.mem_get_info()
        fast = "" if precision(Training(), torch.device("cuda", index)) == "bf16" else "not "
        return f"{torch.cuda.get_device_name()}, {size(free)} free of {size(total)}, bf16 is {fast}fast"


def compiler() -> Finding:
    """What torch.compile compiles with."""
    name = os.environ.get("CXX", "g++")
    if path := shutil.which(name):
        return Finding("C++ compiler", path, State.ok)
    fix = "apt-get install g++, or set CXX; only scale.compile needs it"
    return Finding("C++ compiler", f"no {name}: scale.compile will not work", State.warning, fix)


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Room for Ray's objects, and for what the workers of a trial send each other."""
    if not folder.is_dir():
        return Finding("/dev/shm", f"there is no {folder}", State.unknown)
    usage = shutil.disk_usage(folder)
    found = f"{size(usage.free)} free of {size(usage.total)}"
    if usage.free < LITTLE_SHARED_MEMORY:
        fix = 'give it more: docker run --shm-size=4g; in Kubernetes an emptyDir there with medium "Memory"'
        return Finding("/dev/shm", found, State.warning, fix)
    return Finding("/dev/shm", found, State.ok)


def open_files() -> Finding:
    """Files and connections that a process may have open: Ray raises the soft limit as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return Finding("open files", "no limit", State.ok)
    found = f"{soft:,}, which Ray can raise to {hard:,}" if soft < hard else f"{hard:,}"
    if hard < OPEN_FILES:
        fix = f"allow {OPEN_FILES:,} or more: docker run --ulimit nofile=65536, or /etc/security/limits.conf"
        return Finding("open files", found, State.warning, fix)
    return Finding("open files", found, State.ok)


def clock(now: Callable[[], float] = time.time) -> Finding:
    """Whether the clock can be right: not before raysd was put here."""
    written = max(path.stat().st_mtime for path in Path(raysd.__file__).parent.rglob("*.py"))
    found = f"{datetime.fromtimestamp(now(), UTC):%Y-%m-%d %H:%M:%S} UTC"
    if now() < written - 60:
        since = f"{datetime.fromtimestamp(written, UTC):%Y-%m-%d %H:%M} UTC"
        fix = "set the clock: sudo timedatectl set-ntp true"
        return Finding("clock", f"{found}, but raysd's own files are of {since}", State.fails, fix)
    return Finding("clock", found, State.ok)
