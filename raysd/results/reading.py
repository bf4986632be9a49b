"""Whether a file of records is what it should be: its columns, its trials, and a value wherever a record has one.

Pages carry checksums (`schema.parquet`), which Arrow compares. What is left is a file in the place of another, one that
was not written by raysd, and damage where a file says what its columns are.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from raysd.errors import BadInput
from raysd.results.schema import SCHEMA, SCHEMA_VERSION
from raysd.results.storage import Storage

DAMAGED = (pa.ArrowException, OSError, ValueError, LookupError)
"""What Arrow, and what is asked of what it reads, raise for a file that is no record or is damaged."""
MAY_BE_NULL = ("profile", "failure_kind", "traceback", "clips_per_second", "scores.domain", "scores.label", "history.")
"""The columns, and parts of entries, that a whole record may lack a value of; of `history` any."""


def unreadable(storage: Storage, name: str, error: Exception) -> BadInput:
    return BadInput(
        f"{storage}/{name}: cannot be read as results ({error}); delete it, and what is missing is run again"
    )


def all_as_written(files: Sequence[pyarrow.dataset.ParquetFileFragment]) -> bool:
    """Whether all files have the columns of records. Asked after they were read, it reads nothing more."""
    known: list[pq.ParquetSchema] = []
    for file in files:
        own = file.metadata.schema
        if not any(own.equals(other) for other in known):
            if not file.physical_schema.equals(SCHEMA):
                return False
            known.append(own)
    return True


def read_whole(storage: Storage, name: str, keys: Sequence[str]) -> pa.Table | None:
    """All rows of a record file that should hold the trials of `keys`; None where it is not there.

    Raises BadInput for one that cannot be read, that holds other trials, or that a newer raysd wrote.
    """
    content = storage.read(name)
    if content is None:
        return None
    try:
        found = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        version = (found.schema_arrow.metadata or {}).get(b"raysd_schema_version", b"0")
        check_version(storage, name, int(version))  # a newer schema may not fit this one's types
        table = found.read()
        for version in table["schema_version"].to_pylist() or [None]:
            check_version(storage, name, version)
        if not found.schema_arrow.equals(SCHEMA):
            raise ValueError("its columns are not those of a record")
        require_whole(table)
        if table["key"].to_pylist() != list(keys):
            raise ValueError("it holds other trials than it should")
        return table
    except DAMAGED as error:
        raise unreadable(storage, name, error) from None


def require_whole(table: pa.Table) -> None:
    """Raises ValueError where some columns of records lack what every record has.

    Arrow reads a column that a file has not, or under another name, as one of nulls.
    """
    for name in table.column_names:
        _require_values(name, table[name].chunks)
        if pa.types.is_list(table.schema.field(name).type):
            entries = [chunk.flatten() for chunk in table[name].chunks]
            for i, part in enumerate(table.schema.field(name).type.value_type):
                _require_values(f"{name}.{part.name}", [own.field(i) for own in entries])


def _require_values(name: str, values: list[pa.Array]) -> None:
    if not name.startswith(MAY_BE_NULL) and any(own.null_count for own in values):
        raise ValueError(f"a value of '{name}' is not there")


def check_version(storage: Storage, name: str, version: int | None) -> None:
    if version is None or version < 1:
        raise unreadable(storage, name, ValueError("it has no schema_version"))
    if version > SCHEMA_VERSION:
        raise BadInput(
            f"{storage}/{name}: written by a newer raysd (schema {version}; this one reads up to {SCHEMA_VERSION}); "
            "upgrade raysd, or choose another results folder"
        )
