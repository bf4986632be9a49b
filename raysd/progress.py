"""What a user sees while clips are decoded and trials run: a live display on a terminal; elsewhere, as in the log of a
job, a line an event, and now and then one that says what the display would show.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from raysd.study.design import Trial
from raysd.study.plan import duration

if TYPE_CHECKING:
    from raysd.train import Epoch


@contextmanager
def bar(console: Console, title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar that takes (done, in all or None); it appears with the first call, and only on a terminal."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = None

        def advance(done: int, total: int | None) -> None:
            nonlocal task
            if task is None:
                task = progress.add_task(title, total=total)
            progress.update(task, completed=done)

        yield advance


HEARTBEAT_SECONDS = 60.0


class StudyProgress:
    """Trials by state, the epoch, loss and speed of those that run, the time left; one line for each that ends."""

    def __init__(self, console: Console, trials: int, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._console = console
        self._total = trials
        self._running: dict[str, tuple[Trial, dict[str, Any]]] = {}
        self._done = self._failed = self._given_up = 0
        self._began = time.monotonic()
        self._live = Live(console=console, get_renderable=self._display, refresh_per_second=4, transient=True)
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, args=(heartbeat_seconds,), daemon=True)

    def __enter__(self) -> "StudyProgress":
        if self._console.is_terminal:
            self._live.start()
        else:
            self._heart.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._live.stop()
        self._ended.set()

    def note(self, line: str) -> None:
        """A line about the study as a whole."""
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def started(self, trial: Trial) -> None:
        self._running.setdefault(trial.key, (trial, {}))

    def epoch(self, trial: Trial, epoch: dict[str, Any]) -> None:
        self._running[trial.key] = (trial, epoch)

    def finished(self, trial: Trial, summary: dict[str, Any]) -> None:
        self._running.pop(trial.key, None)
        self._done += 1
        official = ", ".join(f"{part} official {100 * value:.2f}" for part, value in summary["official"].items())
        self._line(
            f"[green]done[/]   {_name(trial)}  {official or 'no labelled test clips'}  {duration(summary['seconds'])}"
        )

    def failed(self, trial: Trial, kind: str, message: str) -> None:
        self._running.pop(trial.key, None)
        self._failed += 1
        self._line(f"[red]failed[/] {_name(trial)}  {kind}: {_escaped(' '.join(message.split()))}")

    def given_up(self, trial: Trial, message: str) -> None:
        self._running.pop(trial.key, None)
        self._given_up += 1
        self._line(f"given up {_name(trial)}  {_escaped(message)}")

    def _line(self, text: str) -> None:
        self._console.print(f"{self._settled:>4}/{self._total} {text}", soft_wrap=True, highlight=False)

    def _beat(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            running = ["  ".join(cell for cell in cells if cell) for cells in self._rows()]
            self.note(" | ".join([self._states(), *running]))

    def _display(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for cells in self._rows():
            table.add_row(*map(Text, cells))
        return Group(table, Text(self._states()))

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """The trials that run: name, epoch, loss, speed."""
        rows = []
        for trial, epoch in list(self._running.values()):  # another thread may change it meanwhile
            speed = f"{epoch['clips_per_second']:.0f} clips/s" if epoch else "starting"
            loss = f"loss {epoch['loss']:.3f}" if epoch else ""
            of = f"epoch {epoch.get('epoch', 0)}/{trial.recipe.train.epochs}"
            rows.append((f"{trial.variant} seed {trial.seed}", of, loss, speed))
        return rows

    @property
    def _settled(self) -> int:
        return self._done + self._failed + self._given_up

    def _states(self) -> str:
        running = list(self._running.values())
        share = sum(epoch["epoch"] / trial.recipe.train.epochs for trial, epoch in running if epoch)
        settled, elapsed = self._settled, time.monotonic() - self._began
        waiting = self._total - settled - len(running)
        left = f"  about {duration(elapsed * (self._total / (settled + share) - 1))} left" if settled + share else ""
        given_up = f"{self._given_up} given up, " if self._given_up else ""
        return f"{self._done} done, {given_up}{self._failed} failed, {len(running)} running, {waiting} waiting{left}"


class EpochProgress:
    """The epochs of one training: a bar with loss, speed and the time left; elsewhere now and then a line of them."""

    def __init__(self, console: Console, epochs: int, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._console, self._epochs, self._heartbeat_seconds = console, epochs, heartbeat_seconds
        said = TextColumn("{task.fields[said]}")
        self._progress = Progress(BarColumn(), said, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=epochs, said="starting")
        self._due = 0.0

    def __enter__(self) -> "EpochProgress":
        self._progress.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._progress.stop()

    def epoch(self, epoch: "Epoch") -> None:
        """One has ended."""
        left = duration(epoch.seconds * (self._epochs - epoch.epoch))
        said = f"epoch {epoch.epoch}/{self._epochs}  loss {epoch.loss:.3f}  {epoch.clips_per_second:.0f} clips/s"
        said += f"  about {left} left" if epoch.epoch < self._epochs else f"  {duration(epoch.seconds)} for the last"
        self._progress.update(self._task, completed=epoch.epoch, said=said)
        if not self._console.is_terminal and (time.monotonic() >= self._due or epoch.epoch == self._epochs):
            self._due = time.monotonic() + self._heartbeat_seconds
            self._console.print(said, soft_wrap=True, highlight=False)


def _name(trial: Trial) -> str:
    return f"{_escaped(trial.variant)} seed {trial.seed}"


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
