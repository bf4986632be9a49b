"""The Ray that a run uses: the cluster that RAY_ADDRESS names, or one of its own that ends with it."""

import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from filelock import FileLock, Timeout

from raysd.errors import BadInput
from raysd.scale import guard
from raysd.scale.join import join

LONGEST_BASE = 28
"""Characters. Ray puts sockets some 78 characters below the base folder, and a socket's path has at most 107."""
STARTS = 3
"""How often a Ray of one's own is started that does not come up."""
MARK = ".raysd-run"
"""A file in the folder of a run, locked as long as the run lives."""


@dataclass(frozen=True)
class Here:
    """What a run is connected to."""

    folder: Path
    """For what is of no use after the run; on this machine."""
    dashboard: str | None
    """Address of the cluster's dashboard; a Ray of one's own has none."""


@contextmanager
def connected() -> Iterator[Here]:
    """A Ray to run on, until the end of the block. SIGTERM interrupts as Ctrl-C does."""
    with _folder() as folder:
        try:
            dashboard = _init(folder)
            with _stopped_by_sigterm():
                yield Here(folder, f"http://{dashboard}" if dashboard else None)
        finally:
            ray.shutdown()


def _init(folder: Path) -> str | None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    if address := os.environ.get("RAY_ADDRESS"):
        return join(address, **quiet)
    _have_token()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for attempt in range(STARTS):
        try:
            ray.init(
                address="local",  # never joins a cluster that happens to run on this machine
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=200 << 20,
                _temp_dir=str(folder),
                **quiet,
            )
            break
        except Exception as error:  # of many kinds, as where a busy machine takes more than Ray's half a minute
            ray.shutdown()
            if attempt + 1 == STARTS:
                raise BadInput(
                    f"Ray did not start on this machine: {str(error).rstrip('.')}; see that the machine is not "
                    "overloaded, and that its memory and the folder for temporary files have room"
                ) from None
    return None


def _have_token() -> None:
    """Ray keeps the token of a cluster of one's own in the home directory. Without one that can be written, it stands
    in the environment of this process alone."""
    token = Path.home() / ".ray" / "auth_token"
    try:
        if not token.exists():
            token.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=token.parent).close()
    except OSError:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder of this run, gone after it, with a guard that removes it even where the run is killed.

    What a run has left that was killed with its guard is removed by the next.
    """
    base = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).resolve()
    if not re.fullmatch(rf"[\w./-]{{1,{LONGEST_BASE}}}", str(base), re.ASCII):  # Ray takes no Unicode, and no spaces
        base = Path("/tmp")
    for mark in base.glob(f"raysd-*/{MARK}"):
        with suppress(OSError, Timeout), FileLock(mark, blocking=False):
            shutil.rmtree(mark.parent, ignore_errors=True)
    try:
        new = Path(tempfile.mkdtemp(prefix=".raysd-", dir=base))
    except OSError as error:
        raise BadInput(
            f"{base}: the temporary files of a run cannot be kept there: {error.strerror}; make room, or name another "
            f"folder, of at most {LONGEST_BASE} characters, with RAY_TMPDIR"
        ) from None
    with FileLock(new / MARK):
        folder = new.rename(base / new.name.removeprefix("."))  # locked before any other run looks at it
        # in a session of its own, Ctrl-C does not reach it
        with subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ):
            yield folder


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM stops a run as Ctrl-C does. Ray's own handler, set by ray.init, would end the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
