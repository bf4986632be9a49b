"""What a results root can do without: checkpoints, embeddings, and left-overs of killed writers. Never a score.

- Checkpoints of a training whose embeddings are there: it is finished. Of another one only when they are old, if asked:
  run again, it would start anew.
- Embeddings, if asked: of a training that has at least one finished trial, and of which no trial that a study asked for
  at its last launch is still to come. Another scorer would have to train it again.
- Hidden files of writers that were killed, after an hour; and locks of finished trainings, which guard nothing.

Nothing of a training whose lock is held, nothing in trials/ and failures/, nothing of a search or a launch.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Literal

from raysd.results.launches import read_launches
from raysd.results.storage import Detail
from raysd.results.store import Results

LEFT_OVER_AFTER = timedelta(hours=1)
"""A hidden file may be a write that is under way, but not for so long."""
FOLDERS = ("trials", "failures", "embeddings", "work", "searches", "launches")
"""The kinds of files of a results root; `work` holds the checkpoints."""

Kind = Literal["checkpoints", "embeddings", "left-over"]


@dataclass(frozen=True)
class Dispensable:
    """Something that may be deleted."""

    kind: Kind
    name: str
    """A file; of checkpoints the folder of a training."""
    training_key: str | None
    num_bytes: int
    modified: datetime
    why: str


@dataclass(frozen=True)
class Usage:
    """How much there is of one kind."""

    files: int = 0
    num_bytes: int = 0


@dataclass(frozen=True)
class Cleanup:
    """What may be deleted, and what was kept by which rule."""

    found: tuple[Dispensable, ...]
    kept: dict[str, Usage]
    """Why -> how much, of checkpoints and embeddings."""

    @property
    def num_bytes(self) -> int:
        return sum(one.num_bytes for one in self.found)


def usage(results: Results) -> dict[str, Usage]:
    """How much there is of each kind of file, `FOLDERS` first, then `left-overs` and `other`."""
    storage = results.storage
    counted: dict[str, list[int]] = {name: [] for name in (*FOLDERS, "left-overs", "other")}
    for name, detail in storage.details("", "").items():
        folder = name.split("/")[0]
        counted[folder if folder in FOLDERS else "other"].append(detail.num_bytes)
    counted["left-overs"] = [detail.num_bytes for detail in storage.left_overs().values()]
    return {name: Usage(len(sizes), sum(sizes)) for name, sizes in counted.items()}


def find_dispensable(
    results: Results, older_than: timedelta | None = None, embeddings: bool = False, now: datetime | None = None
) -> Cleanup:
    """What may go by the rules above. `older_than` lets checkpoints of unfinished trainings go that were not touched
    for so long, and spares younger embeddings. Deletes nothing."""
    search = _Search(results, older_than, now or datetime.now(UTC))
    found = [*search.checkpoints(), *(search.embeddings() if embeddings else ()), *search.left_overs()]
    return Cleanup(tuple(found), {why: Usage(search.kept[why], search.kept_bytes[why]) for why in search.kept})


def delete(results: Results, cleanup: Cleanup) -> list[Dispensable]:
    """Deletes what was found; gives what could not be deleted, or is in use now."""
    storage, left = results.storage, []
    for one in cleanup.found:
        if one.training_key is None:
            storage.delete(one.name)
        else:
            with storage.lock(f"work/{one.training_key}", wait=False) as free:
                if not free:
                    left.append(one)
                    continue
                if one.kind == "embeddings":
                    storage.delete(one.name)
                results.clear_work(one.training_key)  # and its lock
        if storage.exists(one.name):
            left.append(one)
    return left


@dataclass
class _Search:
    """One look at a root."""

    results: Results
    older_than: timedelta | None
    now: datetime
    kept: Counter[str] = field(default_factory=Counter)
    kept_bytes: Counter[str] = field(default_factory=Counter)

    def checkpoints(self) -> Iterator[Dispensable]:
        trained = self.results.trained()
        folders: dict[str, list[Detail]] = defaultdict(list)
        for name, detail in self.results.storage.details("work", ".pt").items():
            folders[PurePosixPath(name).parent.name].append(detail)
        for key, details in folders.items():
            size, last = sum(detail.num_bytes for detail in details), max(detail.modified for detail in details)
            why = None
            if self._is_locked(key):
                self._keep("checkpoints of trainings under way", len(details), size)
            elif key in trained:
                why = "its training is finished"
            elif self.older_than is not None and last < self.now - self.older_than:
                why = "its training is not finished, and was not touched for so long"
            else:
                self._keep("checkpoints of unfinished trainings, which go on from them", len(details), size)
            if why:
                yield Dispensable("checkpoints", f"work/{key}", key, size, last, why)

    def embeddings(self) -> Iterator[Dispensable]:
        finished: dict[str, set[str]] = defaultdict(set)
        for row in self.results.rows(["key", "training_key"]):
            finished[row["training_key"]].add(row["key"])
        to_come = {
            trial.training_key
            for launch in read_launches(self.results)
            for trial in launch.trials
            if trial.key not in finished[trial.training_key]
        }
        for name, detail in self.results.storage.details("embeddings", ".parquet").items():
            key = PurePosixPath(name).stem
            kept = None
            if self._is_locked(key):
                kept = "embeddings of trainings in use"
            elif not finished[key]:
                kept = "embeddings without a finished trial"
            elif key in to_come:
                kept = "embeddings of which trials are still to come"
            elif self.older_than is not None and detail.modified >= self.now - self.older_than:
                kept = "embeddings younger than that"
            if kept:
                self._keep(kept, 1, detail.num_bytes)
            else:
                count = len(finished[key])
                why = f"{count} finished trial{'s' * (count > 1)} of it, and none to come"
                yield Dispensable("embeddings", name, key, detail.num_bytes, detail.modified, why)

    def left_overs(self) -> Iterator[Dispensable]:
        for name, detail in self.results.storage.left_overs().items():
            if detail.modified < self.now - LEFT_OVER_AFTER:
                why = "its writer was killed"
                yield Dispensable("left-over", name, None, detail.num_bytes, detail.modified, why)
        done = self.results.trained() - self.results.checkpoints().keys()
        for name, detail in self.results.storage.details("work", ".lock").items():
            key = PurePosixPath(name).stem
            if key in done and not self._is_locked(key):
                yield Dispensable("left-over", name, key, detail.num_bytes, detail.modified, "its training is finished")

    def _is_locked(self, training_key: str) -> bool:
        lock = f"work/{training_key}"
        if not self.results.storage.exists(f"{lock}.lock"):  # looking must not make one
            return False
        with self.results.storage.lock(lock, wait=False) as free:
            return not free

    def _keep(self, why: str, files: int, num_bytes: int) -> None:
        self.kept[why] += files
        self.kept_bytes[why] += num_bytes
