"""Where a trial's numbers come from: the code, the machine, the command. No environment variable, nothing secret."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import raysd
from raysd.results.storage import redacted

PACKAGES = ("raysd", "torch", "torchaudio", "ray", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "soundfile")
"""The packages whose versions can change numbers."""
CHECKPOINT_RULE = "last epoch"
"""Which checkpoint gives the scores: never one chosen on test clips."""
SHIPPED_CODE = "commit.json"
"""Stands in the package where it was sent to a cluster, without its repository: what `code` said there."""


def train_sets(additional: bool) -> str:
    """The data trained on, as records and tables name it."""
    return "dev + additional" if additional else "dev"


def provenance(
    skipped: Sequence[str] = (), command: Sequence[str] | None = None, train_sets: str = "dev"
) -> dict[str, Any]:
    """What is recorded with a trial, as plain JSON values; the devices that trained it are told by the training.

    `skipped` the paths of clips that could not be read, `command` the words of the command line (default: this
    process's), `train_sets` the data trained on: "dev" or "dev + additional". Absolute paths in the command are cut to
    their last part, and URIs have lost their credentials: results are passed on, folders and keys are not.
    """
    return {
        **code(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "command": words_of(sys.argv if command is None else command),
        "skipped": list(skipped),
        "train_sets": train_sets,
        "checkpoint": CHECKPOINT_RULE,
    }


def words_of(command: Sequence[str]) -> list[str]:
    """The words of a command line as they are kept and passed on: without folders and credentials."""
    return [_without_folder(redacted(word)) for word in command]


def _without_folder(word: str) -> str:
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if Path(value).is_absolute() else word


@lru_cache(maxsize=1)
def code() -> dict[str, Any]:
    """The commit of the checkout that this process runs from, and what was changed in it; all null outside of one.

    Asked once a process: the code that runs is the code that was imported. Where that was sent to a cluster, it is the
    checkout that it was sent from.
    """
    package = Path(raysd.__file__).parent
    if (package / SHIPPED_CODE).is_file():
        return json.loads((package / SHIPPED_CODE).read_text(encoding="utf-8"))
    commit = _git(package, "rev-parse", "HEAD") if _git(package, "ls-files", "__init__.py") else None
    if commit is None:
        return {"commit": None, "dirty": None, "diff_sha256": None}
    diff = _git(package, "diff", "--binary", "HEAD", "--", ".") or b""
    untracked = (_git(package, "ls-files", "--others", "--exclude-standard", "-z", "--", ".") or b"").split(b"\0")
    digest = hashlib.sha256(diff)
    new_files = sorted(package / os.fsdecode(name) for name in untracked if name)
    for path in filter(Path.is_file, new_files):
        digest.update(b"\0" + str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    dirty = bool(diff or new_files)
    return {"commit": commit.decode().strip(), "dirty": dirty, "diff_sha256": digest.hexdigest() if dirty else None}


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git says of the folder, or None where there is no git, no repository or no commit."""
    try:
        found = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout if found.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def device_model(device: str) -> str | None:
    """The name of an accelerator, as its maker calls it; None for a CPU."""
    if not device.startswith("cuda"):
        return None
    import torch  # only where a trial has imported it already

    return torch.cuda.get_device_name(device)
