"""The schema of a trial's record, documented and versioned: `Record` in Python, one row in Parquet."""

import io
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = 2
"""Raised whenever a column is added, removed or changes its meaning; then `VERSIONS` tells what changed."""
VERSIONS = {
    1: "The first: these columns, all clips of the splits `train` and `test`, no proxies among the metrics.",
    2: "The same columns. `scores` may have clips of the splits `held_out`, `perturbed` and `other_section`, whose "
    "stand-ins have no label, and `metrics` the proxies that are made of them. Who counts test clips has to ask for "
    "`split = 'test'`.",
}
"""Version -> what it changed."""
PANDAS_LINE = (
    'pd.json_normalize(pq.read_table("RESULTS/trials", columns=["key", "study", "variant", "seed", "metrics"])'
    '.to_pylist(), "metrics", ["key", "study", "variant", "seed"])'
)
"""Reads the metrics of all trials as one flat table, after `import pandas as pd, pyarrow.parquet as pq`."""
DUCKDB_LINE = (
    'duckdb.sql("select key, study, variant, seed, m.* from '
    "(select *, unnest(metrics) as m from 'RESULTS/trials/*.parquet')\")"
)
"""The same with DuckDB."""

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
_SPLITS = (
    "`train` or `test`. Training clips are scored to set thresholds. Where training clips were held out, as a search "
    "does, also `held_out`, and stand-ins for anomalies: `perturbed`, copies of held-out clips, and `other_section`, "
    "held-out clips of another section, scored as if of this one."
)
_SCORES = pa.struct(
    [
        _column("path", pa.string(), "The clip's path below the data root, with forward slashes."),
        _column("machine", pa.string(), "Machine type, for instance `ToyCar`."),
        _column("section", pa.string(), "Section (2021 and later) or machine ID (2020), two digits."),
        _column("part", pa.string(), "`dev` or `eval`."),
        _column("split", pa.string(), _SPLITS),
        _column("domain", pa.string(), "`source` or `target`; null where there are no domains or it is hidden."),
        _column("label", pa.int8(), "0 normal, 1 anomalous; null where it is not known, and of stand-ins."),
        _column("score", pa.float64(), "Anomaly score; higher is more anomalous."),
    ]
)
_METRICS = pa.struct(
    [
        _column("part", pa.string(), "`dev` or `eval`."),
        _column("machine", pa.string(), "Machine type; `all` for a mean over machines."),
        _column("section", pa.string(), "Section; `arithmetic_mean`, `harmonic_mean` or `pooled` for a whole machine."),
        _column("metric", pa.string(), "Its name, as in `raysd/detect/metrics.py`, or a proxy of `proxies.py`."),
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


def schema_markdown() -> str:
    """The text of docs/parquet-schema.md."""
    lines = [
        "# The schema of a trial's record",
        "",
        "<!-- Made from raysd/results/schema.py by `python -m raysd.results.schema`; edit there. -->",
        "",
        f"Version {SCHEMA_VERSION}. A finished trial is one row of a Parquet file in `RESULTS/trials/`: of a file of",
        "its own, named by its key, or of a `pack-...` that `raysd compact` made of many. Files are written whole",
        "and never changed. `pandas.read_parquet('RESULTS/trials')` reads all as one frame, without raysd, and from",
        "object storage `pandas.read_parquet('BUCKET/FOLDER/trials', filesystem=...)` with",
        "`pyarrow.fs.S3FileSystem()` or `pyarrow.fs.GcsFileSystem()`. (While `raysd compact` runs, such a reader",
        "may meet a trial twice, equal in all columns, or a file that is gone; where it was killed, run it again.)",
        "Failed attempts stand in `RESULTS/failures/` in the same schema. A file whose name starts with a point is",
        "being written; readers pass it over.",
        "",
        "The metrics of all trials as one flat table, a row a metric: by pandas, after",
        "`import pandas as pd, pyarrow.parquet as pq`, or by DuckDB, after `import duckdb` (more SQL may follow, for",
        "instance `where m.machine = 'all' and m.metric = 'official'`):",
        "",
        "```",
        PANDAS_LINE,
        DUCKDB_LINE,
        "```",
        "",
        "`RESULTS/embeddings/<training_key>.parquet` holds the embeddings of a training, a row a clip: `path` to",
        "`label` as in `scores` below, `z` (the embedding, float32), with classification `class_score` (float32), and",
        "with the recipe's `beside` the embeddings without training, `beside_mean` and `beside_loudest` (float32).",
        "",
        *_markdown_table(list(SCHEMA)),
    ]
    for column in SCHEMA:
        if pa.types.is_list(column.type):
            lines += ["", f"## Entries of `{column.name}`", "", *_markdown_table(list(column.type.value_type))]
    lines += [
        "",
        "## Versions",
        "",
        "| version | what it is |",
        "|---|---|",
        *(f"| {version} | {what} |" for version, what in VERSIONS.items()),
        "",
        "Records are never changed, so a results root may hold trials of several versions. `schema_version` says of",
        "each row which it is, also in a pack. raysd reads all versions up to its own, as one table.",
        "It refuses a newer one in one line and changes nothing; `raysd compact` then leaves all files as they are.",
    ]
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


def table_of(record: Record) -> pa.Table:
    """The record as a table of one row."""
    values = {column.name: getattr(record, column.name) for column in fields(Record)}
    for name in ("history", "scores", "metrics"):
        if isinstance(values[name], pd.DataFrame):
            entries = pa.schema(list(SCHEMA.field(name).type.value_type))
            values[name] = pa.Table.from_pandas(values[name], schema=entries, preserve_index=False).to_pylist()
    return pa.Table.from_pylist([values], schema=SCHEMA)


def parquet(table: pa.Table) -> bytes:
    """A table as the content of a file, with a checksum of each page: a flipped bit is no other number."""
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd", write_page_checksum=True)
    return content.getvalue()


if __name__ == "__main__":
    print(schema_markdown(), end="")
