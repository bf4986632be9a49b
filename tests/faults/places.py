"""Disks that are small or read-only, and other users: as real as this machine lets a test make them."""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

RAYSD = str(Path(sys.executable).with_name("raysd"))
OTHER_UID = 54321
_AS_ANOTHER = """
set -e
python={home}; kept=$(mktemp -d)
mount --bind "$python" "$kept"
mount -t tmpfs -o mode=755 tmpfs {top}
mkdir -p "$python"
mount --move "$kept" "$python"
rmdir "$kept"
exec setpriv --reuid {uid} --regid {uid} --clear-groups "$@"
"""
"""Makes a Python that lies in another user's home directory one that all may run, for this process alone."""


def finished(process: subprocess.Popen[str], seconds: float = 900) -> tuple[int, str, str]:
    """Exit status, and what was printed, of a command that may take its time on a busy machine."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def mounted(folder: Path, options: str) -> bool:
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return bool(shutil.which("mount")) and subprocess.run(words, capture_output=True).returncode == 0


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True, capture_output=True)


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Path]:
    """A disk of that size; skips where this machine lets nobody mount one."""
    if not mounted(folder, f"size={kibibytes}k"):
        pytest.skip("no file system can be mounted here: run it as root, in a container with CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """The same files on a read-only disk, at another place. Where nothing can be mounted, without the right to write,
    which stops everybody but root."""
    there = folder.with_name(f"{folder.name} read-only")
    if mounted(there, "size=64m"):
        try:
            shutil.copytree(folder, there, dirs_exist_ok=True)
            remount(there, "ro")
            yield there
        finally:
            subprocess.run(["umount", "--lazy", str(there)], check=True)
        return
    if os.getuid() == 0:
        pytest.skip("root may write everywhere, and no file system can be mounted here")
    shutil.copytree(folder, there, dirs_exist_ok=True)
    places = [there, *(path for path in there.rglob("*") if path.is_dir())]
    for place in places:
        place.chmod(0o555)
    yield there
    for place in places:
        place.chmod(0o755)


def as_another_user(words: Sequence[str]) -> list[str]:
    """The command run by a user of another number, who has no entry among the users; skips where nobody may."""
    python = Path(sys.executable).resolve().parents[1]
    top = Path("/root") if python.is_relative_to("/root") else None
    command = ["setpriv", "--reuid", str(OTHER_UID), "--regid", str(OTHER_UID), "--clear-groups", *words]
    if top:
        script = _AS_ANOTHER.format(home=python, top=top, uid=OTHER_UID)
        command = ["unshare", "--mount", "sh", "-c", script, "sh", *words]
    probe = [*command[: -len(words)], "true"]
    if os.getuid() != 0 or subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("only root can run a command as another user")
    return command


def nobodys() -> list[str]:
    """What runs a command as a user whom the machine does not know; skips where there are no user namespaces."""
    with pytest.raises(KeyError):
        pwd.getpwuid(OTHER_UID)
    words = ["unshare", "--user", f"--map-user={OTHER_UID}"]
    if subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine has no user namespaces")
    return words
