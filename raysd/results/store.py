"""The results of trials: one Parquet record a trial, written once and whole, under the schema of schema.py.

- ROOT/trials/<key>.parquet: a finished trial, one row; or many in a pack (packs.py). `pandas.read_parquet(ROOT/trials)`
  reads all.
- ROOT/failures/<key>-<time>.parquet: one failed attempt, in the same schema.
- ROOT/embeddings/<training key>.parquet: the embeddings of a training, so that another scorer needs none.
- ROOT/work/<training key>/<model>.pt, and <training key>.lock: checkpoints of trainings under way.
"""

import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raysd.errors import BadInput
from raysd.results.packs import Compacted, TrialFiles, again_and_again, read_rows
from raysd.results.patience import Patient
from raysd.results.reading import DAMAGED, unreadable
from raysd.results.schema import FAILURE_KINDS, SCHEMA, Record, parquet, table_of
from raysd.results.storage import Storage, StorageError, absolute, is_uri, open_storage

_OWNER = b"training_key"
_EMBEDDED = {"z", *(part.name for part in SCHEMA.field("scores").type.value_type)} - {"score"}
TRIAL_COLUMNS = ("key", "variant", "seed", "study")
"""What names a trial beside each of its scores."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """Where a training keeps one model between epochs."""

    storage: Storage
    name: str

    def read(self) -> bytes | None:
        """What was written last; None where nothing was."""
        return self.storage.read(self.name)

    def write(self, content: bytes) -> None:
        """Replaces what was there, whole or not at all."""
        self.storage.replace(self.name, content)


class Results:
    """The results below a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER; `str()` gives it without credentials.

    Several processes, on several machines, may write to it at once. All methods raise StorageError, a BadInput, where
    the place cannot be reached, read or written.
    """

    def __init__(self, root: str | Path, patient: bool = False) -> None:
        """`patient`: what fails because the place is out of reach is tried again for some minutes."""
        self.root = root if is_uri(root) else Path(root)
        self.storage = cast(Storage, Patient(open_storage(root))) if patient else open_storage(root)
        self._trials = TrialFiles(self.storage, str(absolute(root)))

    def __str__(self) -> str:
        return str(self.storage)

    def writable(self) -> None:
        """Raises StorageError unless a small file can be written, read back and removed."""
        name, content = f".{uuid.uuid4().hex}.probe", b"written by raysd to see whether it can"
        self.storage.replace(name, content)
        if self.storage.read(name) != content:
            raise StorageError(f"{self}: what is written there is not read back; choose another place for the results")
        self.storage.delete(name)

    def done(self) -> set[str]:
        """The keys of the finished trials, from file names and the keys of packs alone."""
        return self._trials.listing().keys

    def trained(self) -> set[str]:
        """The training keys whose embeddings are there, from file names alone."""
        return {_stem(name) for name in self.storage.names("embeddings", ".parquet")}

    def has(self, key: str) -> bool:
        return self._trials.has(key)

    def write(self, record: Record) -> bool:
        """Keeps a finished trial. The first one wins: False where the trial was there already, and nothing changes."""
        if record.state != "done" or record.failure_kind is not None:
            raise ValueError(f"trial {record.key} is not done")
        name = f"trials/{record.key}.parquet"
        return not self.has(record.key) and self.storage.write_new(name, parquet(table_of(record)))

    def write_failure(self, record: Record) -> str:
        """Keeps a failed attempt beside those before it, and returns where."""
        if record.state != "failed" or record.failure_kind not in FAILURE_KINDS:
            raise ValueError(f"trial {record.key} has not failed of any of {', '.join(FAILURE_KINDS)}")
        stamp = record.finished.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name = f"failures/{record.key}-{stamp}.parquet"
        self.storage.write_new(name, parquet(table_of(record)))
        return f"{self}/{name}"

    def read(self, key: str) -> Record:
        """One finished trial; raises BadInput where it is not there, or its file cannot be read."""
        found = self._trials.one(key)
        if found is None:
            raise BadInput(f"{self}/trials: no trial {key}")
        return Record(**found.to_pylist()[0])

    def find(self, beginning: str) -> Record:
        """The finished trial whose key starts so; raises BadInput where there is none, or more than one."""
        found = sorted(key for key in self.done() if key.startswith(beginning))
        if len(found) != 1:
            which = f"{len(found)} trials" if found else "no trial"
            raise BadInput(f"{self}/trials: {which} with a key that starts with '{beginning}'; give more of one key")
        return self.read(found[0])

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All finished trials, a row each in the order of their keys; nested columns hold arrays of dicts.

        Raises BadInput for a file that cannot be read, or that a newer raysd wrote.
        """
        return self._trials.read(SCHEMA.names if columns is None else columns).to_pandas()

    def rows(self, columns: Sequence[str], keys: Collection[str] | None = None) -> list[dict[str, Any]]:
        """The same as plain values: some columns of all finished trials, or of those of `keys`."""
        return self.table(columns, keys).to_pylist()

    def table(self, columns: Sequence[str], keys: Collection[str] | None = None) -> pa.Table:
        """The same as Arrow has it: of many trials, to choose among nested entries before they become objects."""
        return self._trials.read(columns, keys)

    def scores(self, keys: Collection[str] | None = None) -> pd.DataFrame:
        """A row for each clip that a trial scored, of all finished trials or of those of `keys`.

        The trial's `key`, `variant`, `seed` and `study` stand beside the columns of `scores` in the schema.
        """
        trials = self._trials.read([*TRIAL_COLUMNS, "scores"], keys)
        clips = pa.schema(list(SCHEMA.field("scores").type.value_type))
        parts = [pa.Table.from_batches([], pa.schema([*map(SCHEMA.field, TRIAL_COLUMNS), *clips]))]
        for batch in trials.to_batches():  # not all at once: the paths of many trials overflow one array
            scores = batch["scores"]
            about = batch.select(list(TRIAL_COLUMNS)).take(scores.value_parent_indices())
            scored = pa.RecordBatch.from_struct_array(scores.flatten())
            parts.append(pa.Table.from_arrays([*about.columns, *scored.columns], schema=parts[0].schema))
        return pa.concat_tables(parts).to_pandas()

    def failures(self, columns: Sequence[str] | None = None, keys: Collection[str] | None = None) -> pd.DataFrame:
        """All failed attempts, or those at the trials of `keys`, in the same columns."""

        def look() -> pa.Table | None:
            wanted = [(name, 0) for name in self._failures() if keys is None or _tried(name) in keys]
            return read_rows(self.storage, wanted, SCHEMA.names if columns is None else columns)

        return again_and_again(self.storage, look).to_pandas()

    def failed(self) -> set[str]:
        """The keys of the trials at which an attempt has failed, finished since or not; from file names alone."""
        return set(map(_tried, self._failures()))

    def compact(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Compacted:
        """Packs finished trials into few files, for quick reading; whoever reads or writes meanwhile is not disturbed.

        `progress` takes trials packed and trials to pack. Killed, it is to be run again.
        """
        return self._trials.compact(progress)

    def write_embeddings(self, training_key: str, table: pa.Table) -> bool:
        """Keeps a training's embeddings: the clips' columns, `z` (fixed-size list of float32) and `class_score`."""
        named = {**(table.schema.metadata or {}), _OWNER: training_key.encode()}
        content = parquet(table.replace_schema_metadata(named))
        return self.storage.write_new(f"embeddings/{training_key}.parquet", content)

    def read_embeddings(self, training_key: str) -> pa.Table | None:
        """Those; None where there are none. Raises BadInput for a file that is damaged, or of another training."""
        name = f"embeddings/{training_key}.parquet"
        content = self.storage.read(name)
        if content is None:
            return None
        try:
            table = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read()
            owner = (table.schema.metadata or {}).get(_OWNER, training_key.encode())  # older files do not say it
            if not _EMBEDDED.issubset(table.column_names) or owner != training_key.encode():
                raise ValueError("it does not hold the embeddings of this training")
            return table
        except DAMAGED as error:
            raise unreadable(self.storage, name, error) from None

    def checkpoint(self, training_key: str, model: str) -> StoredCheckpoint:
        """Where one model of a training is kept between epochs."""
        return StoredCheckpoint(self.storage, f"work/{training_key}/{model}.pt")

    def checkpoints(self) -> dict[str, datetime]:
        """The training keys that have a checkpoint, each with the time of its last one."""
        found = [(detail.modified, name) for name, detail in self.storage.details("work", ".pt").items()]
        return {PurePosixPath(name).parent.name: modified for modified, name in sorted(found)}

    def clear_work(self, training_key: str) -> None:
        """Removes the checkpoints of a training that is finished, and its lock.

        Whoever waits for the lock finds the embeddings when they get it, so that it guards nothing any more.
        """
        self.storage.delete_folder(f"work/{training_key}")

    def lock(self, training_key: str) -> AbstractContextManager[object]:
        """Held by the one process that trains `training_key`; the others wait. A killed process lets go of it.

        Object storage has no locks: there, two studies that run at once may train a trial twice; one record is kept.
        """
        return self.storage.lock(f"work/{training_key}")

    def sizes(self) -> tuple[float | None, float | None]:
        """Mean bytes of a trial's record and of a training's embeddings; None where there are none."""
        counts = {"trials": len(self.done()), "embeddings": len(self.trained())}
        total = {
            folder: sum(detail.num_bytes for detail in self.storage.details(folder, ".parquet").values())
            for folder in counts
        }
        trial, embeddings = (total[folder] / count if count else None for folder, count in counts.items())
        return trial, embeddings

    def _failures(self) -> list[str]:
        return self.storage.names("failures", ".parquet")


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _tried(name: str) -> str:
    """The key of the trial that failed, from the name of a failure's file."""
    return _stem(name).rpartition("-")[0]
