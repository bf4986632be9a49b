"""The results of trials: one Parquet file a trial, written once and whole, under a documented and versioned schema.

- ROOT/trials/<key>.parquet: a finished trial, one row. `pandas.read_parquet(ROOT/trials)` reads all.
- ROOT/failures/<key>-<time>.parquet: one failed attempt, in the same schema.
- ROOT/embeddings/<training key>.parquet: the embeddings of a training, so that another scorer needs none.
- ROOT/work/<training key>/<model>.pt, and <training key>.lock: checkpoints of trainings under way.
"""

import io
import uuid
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from raysd.errors import BadInput
from raysd.results.storage import AT_ONCE, Storage, StorageError, is_uri, open_storage

SCHEMA_VERSION = 1
"""Raised whenever a column is added, removed or changes its meaning."""

FAILURE_KINDS = ("code", "oom", "non_finite", "infrastructure")


def _column(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


_TIME = pa.timestamp("us", tz="UTC")
_HISTORY = pa.struct(
    [
        _column("epoch", pa.int32(), "Number of the epoch, from 1."),
        _column("loss", pa.float64(), "Mean of the total loss over the epoch's steps."),
        _column("contrastive", pa.float64(), "Mean of its weighted contrastive part; null without one."),
        _column("classification", pa.float64(), "Mean of its weighted classification part; null without one."),
        _column("learning_rate", pa.float64(), "Learning rate of the epoch's last step."),
        _column("grad_norm", pa.float64(), "Norm of the gradient at the epoch's last step, before clipping."),
        _column("clips_per_second", pa.float64(), "Training items a second."),
        _column("seconds", pa.float64(), "Wall-clock seconds of the epoch."),
    ]
)
_SCORES = pa.struct(
    [
        _column("path", pa.string(), "The clip's path below the data root, with forward slashes."),
        _column("machine", pa.string(), "Machine type, for instance `ToyCar`."),
        _column("section", pa.string(), "Section (2021 and later) or machine ID (2020), two digits."),
        _column("part", pa.string(), "`dev` or `eval`."),
        _column("split", pa.string(), "`train` or `test`. Training clips are scored to set thresholds."),
        _column("domain", pa.string(), "`source` or `target`; null where there are no domains or it is hidden."),
        _column("label", pa.int8(), "0 normal, 1 anomalous; null where it is not known."),
        _column("score", pa.float64(), "Anomaly score; higher is more anomalous."),
    ]
)
_METRICS = pa.struct(
    [
        _column("part", pa.string(), "`dev` or `eval`."),
        _column("machine", pa.string(), "Machine type; `all` for a mean over machines."),
        _column("section", pa.string(), "Section; `arithmetic_mean`, `harmonic_mean` or `pooled` for a whole machine."),
        _column("metric", pa.string(), "Name of the metric, as in `raysd/detect/metrics.py`."),
        _column("value", pa.float64(), "Its value, a fraction of 1."),
        _column("num_normal", pa.int64(), "Normal clips behind the value."),
        _column("num_anomaly", pa.int64(), "Anomalous clips behind the value."),
    ]
)
SCHEMA = pa.schema(
    [
        _column("schema_version", pa.int32(), "Version of this schema."),
        _column("key", pa.string(), "Names the trial: hash of recipe, seed, data and numerics."),
        _column("training_key", pa.string(), "Names the training: the same hash without the scoring."),
        _column("recipe_key", pa.string(), "Names the recipe alone: equal for all seeds and data."),
        _column("numerics", pa.int32(), "Revision of the numerics of the code."),
        _column("state", pa.string(), "`done` or `failed`."),
        _column("failure_kind", pa.string(), "`code`, `oom`, `non_finite` or `infrastructure`; null when done."),
        _column("traceback", pa.string(), "What Python said of the failure; null when done."),
        _column("variant", pa.string(), "Name of the variant in the study that ran it."),
        _column("study", pa.string(), "Name of that study."),
        _column("profile", pa.string(), "Profile of the baseline recipe in that study; null without one."),
        _column("seed", pa.int64(), "The seed."),
        _column("year", pa.int32(), "The DCASE year, which sets the metrics."),
        _column("data_fingerprint", pa.string(), "Hash of the corpus."),
        _column("recipe", pa.string(), "The whole recipe as JSON, defaults included."),
        _column("started", _TIME, "When the trial was started (UTC)."),
        _column("finished", _TIME, "When it was finished (UTC)."),
        _column(
            "train_seconds", pa.float64(), "Seconds of all epochs, in whichever run they were trained; 0 without any."
        ),
        _column(
            "total_seconds", pa.float64(), "Seconds of the run that finished the trial: less where epochs were there."
        ),
        _column("clips_per_second", pa.float64(), "Training items a second over all epochs; null without training."),
        _column("history", pa.list_(_HISTORY), "One entry an epoch."),
        _column("scores", pa.list_(_SCORES), "One entry a clip. Every metric can be recomputed from these."),
        _column("metrics", pa.list_(_METRICS), "One entry a metric of a section or a mean."),
        _column("provenance", pa.string(), "Where the numbers come from, as JSON: commit, versions, machine, command."),
    ],
    metadata={"raysd_schema_version": str(SCHEMA_VERSION)},
)


Entries = list[dict[str, Any]] | pd.DataFrame
"""What a nested column is made from. Read back, it is a list."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trial as it is kept; the fields are the columns of `SCHEMA`."""

    key: str
    training_key: str
    recipe_key: str
    numerics: int
    variant: str
    study: str
    profile: str | None
    seed: int
    year: int
    data_fingerprint: str
    recipe: str
    started: datetime
    finished: datetime
    train_seconds: float
    total_seconds: float
    provenance: str
    state: str = "done"
    failure_kind: str | None = None
    traceback: str | None = None
    clips_per_second: float | None = None
    history: Entries = field(default_factory=list)
    scores: Entries = field(default_factory=list)
    metrics: Entries = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Timing:
    """What a finished trial took, and of what kind it was."""

    recipe_key: str
    recipe: str
    data_fingerprint: str
    train_seconds: float
    total_seconds: float


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

    def __init__(self, root: str | Path) -> None:
        self.root = root if is_uri(root) else Path(root)
        self._storage = open_storage(root)

    def __str__(self) -> str:
        return str(self._storage)

    def writable(self) -> None:
        """Raises StorageError unless a small file can be written, read back and removed."""
        name, content = f".{uuid.uuid4().hex}.probe", b"written by raysd to see whether it can"
        self._storage.replace(name, content)
        if self._storage.read(name) != content:
            raise StorageError(f"{self}: what is written there is not read back; choose another place for the results")
        self._storage.delete(name)

    def done(self) -> set[str]:
        """The keys of the finished trials, from file names alone."""
        return {_stem(name) for name in self._storage.names("trials", ".parquet")}

    def trained(self) -> set[str]:
        """The training keys whose embeddings are there, from file names alone."""
        return {_stem(name) for name in self._storage.names("embeddings", ".parquet")}

    def has(self, key: str) -> bool:
        return self._storage.exists(f"trials/{key}.parquet")

    def write(self, record: Record) -> bool:
        """Keeps a finished trial. The first one wins: False where the trial was there already, and nothing changes."""
        if record.state != "done" or record.failure_kind is not None:
            raise ValueError(f"trial {record.key} is not done")
        return self._storage.write_new(f"trials/{record.key}.parquet", _parquet(_table(record)))

    def write_failure(self, record: Record) -> str:
        """Keeps a failed attempt beside those before it, and returns where."""
        if record.state != "failed" or record.failure_kind not in FAILURE_KINDS:
            raise ValueError(f"trial {record.key} has not failed of any of {', '.join(FAILURE_KINDS)}")
        stamp = record.finished.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name = f"failures/{record.key}-{stamp}.parquet"
        self._storage.write_new(name, _parquet(_table(record)))
        return f"{self}/{name}"

    def read(self, key: str) -> Record:
        """One finished trial; raises BadInput where it is not there, or its file cannot be read."""
        found = self._read_one(f"trials/{key}.parquet")
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
        return self._read(self._storage.names("trials", ".parquet"), columns).to_pandas()

    def rows(self, columns: Sequence[str], keys: Collection[str] | None = None) -> list[dict[str, Any]]:
        """The same as plain values: some columns of all finished trials, or of those of `keys`."""
        names = [name for name in self._storage.names("trials", ".parquet") if keys is None or _stem(name) in keys]
        return self._read(names, columns).to_pylist()

    def failures(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All failed attempts, in the same columns."""
        return self._read(self._storage.names("failures", ".parquet"), columns).to_pandas()

    def timings(self) -> list[Timing]:
        """The times of all finished trials."""
        return [Timing(**row) for row in self.rows([column.name for column in fields(Timing)])]

    def write_embeddings(self, training_key: str, table: pa.Table) -> bool:
        """Keeps a training's embeddings: the clips' columns, `z` (fixed-size list of float32) and `class_score`."""
        return self._storage.write_new(f"embeddings/{training_key}.parquet", _parquet(table))

    def read_embeddings(self, training_key: str) -> pa.Table | None:
        name = f"embeddings/{training_key}.parquet"
        content = self._storage.read(name)
        if content is None:
            return None
        try:
            return pq.ParquetFile(pa.BufferReader(content)).read()
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(name, error) from None

    def checkpoint(self, training_key: str, model: str) -> StoredCheckpoint:
        """Where one model of a training is kept between epochs."""
        return StoredCheckpoint(self._storage, f"work/{training_key}/{model}.pt")

    def checkpoints(self) -> dict[str, datetime]:
        """The training keys that have a checkpoint, each with the time of its last one."""
        found = [(detail.modified, name) for name, detail in self._storage.details("work", ".pt").items()]
        return {PurePosixPath(name).parent.name: modified for modified, name in sorted(found)}

    def clear_work(self, training_key: str) -> None:
        """Removes the checkpoints of a training that is finished, and its lock.

        Whoever waits for the lock finds the embeddings when they get it, so that it guards nothing any more.
        """
        self._storage.delete_folder(f"work/{training_key}")

    def lock(self, training_key: str) -> AbstractContextManager[object]:
        """Held by the one process that trains `training_key`; the others wait. A killed process lets go of it.

        Object storage has no locks: there, two studies that run at once may train a trial twice; one record is kept.
        """
        return self._storage.lock(f"work/{training_key}")

    def sizes(self) -> tuple[float | None, float | None]:
        """Mean bytes of a trial's record and of a training's embeddings; None where there are none."""
        means = []
        for folder in ("trials", "embeddings"):
            sizes = [detail.num_bytes for detail in self._storage.details(folder, ".parquet").values()]
            means.append(sum(sizes) / len(sizes) if sizes else None)
        return means[0], means[1]

    def _read(self, names: list[str], columns: Sequence[str] | None) -> pa.Table:
        """The rows of record files, in that order."""
        asked = list(columns) if columns is not None else SCHEMA.names
        wanted = [*asked, *({"schema_version"} - set(asked))]
        if not names:
            return SCHEMA.empty_table().select(asked)
        paths, filesystem = self._storage.for_arrow(names)
        try:
            dataset = pyarrow.dataset.dataset(paths, schema=SCHEMA, format="parquet", filesystem=filesystem)
            found = dataset.to_table(columns=wanted, fragment_readahead=AT_ONCE)
        except (pa.ArrowException, OSError):  # one by one: to name the one, or one was replaced while it was read
            return pa.concat_tables(filter(None, map(self._read_one, names))).select(asked)
        for name, version in zip(names, found["schema_version"].to_pylist(), strict=True):
            self._check_version(name, version)
        return found.select(asked)

    def _read_one(self, name: str) -> pa.Table | None:
        """The row of a record file; None where it is not there."""
        content = self._storage.read(name)
        if content is None:
            return None
        try:
            found = pq.ParquetFile(pa.BufferReader(content))
            version = (found.schema_arrow.metadata or {}).get(b"raysd_schema_version", b"0")
            self._check_version(name, int(version))  # a newer schema may not fit this one's types
            table = pa.concat_tables([SCHEMA.empty_table(), found.read()], promote_options="default")
            self._check_version(name, table["schema_version"][0].as_py())
            return table.select(SCHEMA.names)
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            raise self._unreadable(name, error) from None

    def _check_version(self, name: str, version: int | None) -> None:
        if version is None:
            raise self._unreadable(name, ValueError("it has no schema_version"))
        if version > SCHEMA_VERSION:
            raise BadInput(
                f"{self}/{name}: written by a newer raysd (schema {version}; this one reads up to {SCHEMA_VERSION}); "
                "upgrade raysd, or choose another results folder"
            )

    def _unreadable(self, name: str, error: Exception) -> BadInput:
        return BadInput(
            f"{self}/{name}: cannot be read as results ({error}); delete it, and what is missing is run again"
        )


def schema_markdown() -> str:
    """The text of docs/parquet-schema.md."""
    lines = [
        "# The schema of a trial's record",
        "",
        "<!-- Made from raysd/results/store.py by `python -m raysd.results.store`; edit there. -->",
        "",
        f"Version {SCHEMA_VERSION}. Every finished trial is one Parquet file of one row in `RESULTS/trials/`, named by",
        "its key, written whole and never changed. `pandas.read_parquet('RESULTS/trials')` reads them as one frame,",
        "without raysd, and from object storage `pandas.read_parquet('BUCKET/FOLDER/trials', filesystem=...)` with",
        "`pyarrow.fs.S3FileSystem()` or `pyarrow.fs.GcsFileSystem()`. Failed attempts stand in `RESULTS/failures/` in",
        "the same schema. A file whose name starts with a point is being written; readers pass it over.",
        "",
        "`RESULTS/embeddings/<training_key>.parquet` holds the embeddings of a training, a row a clip: `path` to",
        "`label` as in `scores` below, `z` (the embedding, float32) and, with classification, `class_score` (float32).",
        "",
        *_markdown_table(list(SCHEMA)),
    ]
    for column in SCHEMA:
        if pa.types.is_list(column.type):
            lines += ["", f"## Entries of `{column.name}`", "", *_markdown_table(list(column.type.value_type))]
    return "\n".join(lines) + "\n"


def _markdown_table(columns: list[pa.Field]) -> list[str]:
    kinds = ["list of entries" if pa.types.is_list(column.type) else str(column.type) for column in columns]
    return [
        "| column | type | meaning |",
        "|---|---|---|",
        *(
            f"| `{column.name}` | {kind} | {(column.metadata or {})[b'description'].decode()} |"
            for column, kind in zip(columns, kinds, strict=True)
        ),
    ]


def _table(record: Record) -> pa.Table:
    values = {column.name: getattr(record, column.name) for column in fields(Record)}
    for name in ("history", "scores", "metrics"):
        if isinstance(values[name], pd.DataFrame):
            entries = pa.schema(list(SCHEMA.field(name).type.value_type))
            values[name] = pa.Table.from_pandas(values[name], schema=entries, preserve_index=False).to_pylist()
    return pa.Table.from_pylist([values], schema=SCHEMA)


def _parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


if __name__ == "__main__":
    print(schema_markdown(), end="")
