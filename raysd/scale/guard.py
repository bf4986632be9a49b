"""A small process beside a run, that clears up behind it when it is over, however it ended.

On Linux a Ray of one's own dies with its driver, but where the driver is killed two of its agents stay for another
minute, and its folder for ever. Run by path, with the standard library alone: it should cost next to nothing.
"""

import os
import select
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 2


def main(folder: str) -> None:
    """Waits until its parent closes the pipe to it, or dies; ends what that has started in `folder`, and removes it."""
    parent, started = os.getppid(), dict[int, str | None]()
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        started |= {pid: _born(pid) for pid in _descendants(parent)}
    # a process's number may be another's by now
    known = [pid for pid, born in started.items() if born is not None and _born(pid) == born and _uses(pid, folder)]
    for pid in [*known, *_starting(folder)]:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _descendants(pid: int) -> Iterator[int]:
    """Where the system has no /proc: none."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from _descendants(child)


def _born(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; None where it is no more."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return None


def _uses(pid: int, folder: str) -> bool:
    """Whether it has a file below `folder` open."""
    with suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(handle).startswith(f"{folder}/"):
                    return True
    return False


def _starting(folder: str) -> Iterator[int]:
    """Ray's workers of that folder that were started since the last look; they would wait for their Ray for long."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"--temp-dir={folder}".encode() in (process / "cmdline").read_bytes().split(b"\0"):
                yield int(process.name)


if __name__ == "__main__":
    main(sys.argv[1])
