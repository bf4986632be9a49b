"""What a user sees while files are downloaded and unpacked: bars on a terminal; elsewhere a line now and then."""

import threading
import time
from datetime import timedelta

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

HEARTBEAT_SECONDS = 60.0


class TransferProgress:
    """A bar for each file under way and one for all, with the time left; a line for each that ends. Threads tell it."""

    def __init__(self, console: Console, total_bytes: int, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        rates = (TransferSpeedColumn(), TimeRemainingColumn())
        self._console, self._heartbeat_seconds = console, heartbeat_seconds
        self._bars = Progress(*columns, *rates, console=console, transient=True, disable=not console.is_terminal)
        self._all = self._bars.add_task("all", total=total_bytes or None)
        self._total_bytes, self._began = total_bytes, time.monotonic()
        self._due = self._began + heartbeat_seconds
        self._tasks: dict[str, TaskID] = {}
        self._first: dict[str, int] = {}
        self._now: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "TransferProgress":
        self._bars.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bars.stop()

    def downloading(self, name: str, done: int, total: int | None) -> None:
        with self._lock:
            self._first.setdefault(name, done)  # what was here before takes no time
            self._now[name] = max(done, self._first[name])
            brought = sum(self._now.values()) - sum(self._first.values())
            self._bars.update(self._all, completed=brought)
            self._show(name, name, done, total)
            if not self._console.is_terminal and time.monotonic() >= self._due:
                self._due = time.monotonic() + self._heartbeat_seconds
                self._line(f"{decimal(brought)} downloaded{self._left(brought)}")

    def unpacking(self, name: str, done: int, total: int) -> None:
        with self._lock:
            self._show(name, f"{name} (unpacking)", done, total)

    def ended(self, name: str, line: str) -> None:
        with self._lock:
            if name in self._tasks:
                self._bars.remove_task(self._tasks.pop(name))
            if line:
                self._line(f"{name}: {line}")

    def _left(self, brought: int) -> str:
        if not brought or brought >= self._total_bytes:
            return ""
        seconds = (time.monotonic() - self._began) * (self._total_bytes / brought - 1)
        return f" of {decimal(self._total_bytes)}, about {timedelta(seconds=round(seconds))} left"

    def _show(self, name: str, description: str, done: int, total: int | None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(description)
        self._bars.update(self._tasks[name], description=description, completed=done, total=total)

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)
