"""The index of a store: an Arrow file with a row per clip, which is mapped into memory and not parsed.

N clips.
"""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from raysd.data.build import Decoding, Written
from raysd.data.layouts import Clip

INDEX = "index.arrow"

_TOGETHER = 1000  # rows whose text is made at once
_PAIRS = pa.map_(pa.string(), pa.string())
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("path", "machine", "section", "part", "domain", "split")),
        ("label", pa.int8()),
        ("attributes", pa.dictionary(pa.int32(), _PAIRS)),  # each combination once, as many clips share one
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("source_rate_hz", pa.int32()),
        ("checksum", pa.string()),
        ("samples_crc32", pa.uint32()),
    ]
)
_OF_CLIP = ("path", "machine", "section", "part", "domain", "split", "label")
_OF_FILE = ("length", "source_rate_hz", "checksum", "samples_crc32")


def write_index(path: Path, clips: list[Clip], written: list[Written]) -> int:
    """Writes the rows of `clips`, of which `written` says what was decoded; gives the CRC-32 of the file."""
    combinations = {attributes: i for i, attributes in enumerate(dict.fromkeys(clip.attributes for clip in clips))}
    number_N = pa.array([combinations[clip.attributes] for clip in clips], pa.int32())
    length_N = np.array([entry.length for entry in written], dtype=np.int64)
    columns: dict[str, Any] = {
        **{name: [getattr(clip, name) for clip in clips] for name in _OF_CLIP},
        "attributes": pa.DictionaryArray.from_arrays(number_N, pa.array([list(c) for c in combinations], _PAIRS)),
        "offset": np.cumsum(length_N) - length_N,
        **{name: [getattr(entry, name) for entry in written] for name in _OF_FILE},
    }
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        writer.write_table(pa.table(columns, schema=_SCHEMA))
    return zlib.crc32(path.read_bytes())


def read_index(path: Path, crc32: int) -> pa.Table:
    """The rows, mapped into memory. Raises ValueError where they are not what was written."""
    with pa.memory_map(str(path)) as file:
        if zlib.crc32(file.read_buffer()) != crc32:
            raise ValueError(f"{INDEX} has another checksum")
        file.seek(0)
        return pa.ipc.open_file(file).read_all()


def clips_of(index: pa.Table) -> pd.DataFrame:
    """The rows as a frame; labels are nullable (Int8), attributes are tuples of (name, value)."""
    clips = index.drop(["attributes"]).to_pandas(types_mapper={pa.int8(): pd.Int8Dtype()}.get)
    attributes = index["attributes"].combine_chunks()
    combinations = np.empty(len(attributes.dictionary), dtype=object)
    for number, pairs in enumerate(attributes.dictionary.to_pylist()):
        combinations[number] = tuple(pairs)
    clips.insert(_SCHEMA.get_field_index("attributes"), "attributes", combinations[attributes.indices.to_numpy()])
    return clips


def fingerprint_of(decoding: Decoding, clips: list[Clip], written: list[Written]) -> str:
    """Names recordings and decoding: what is trained on and scored. Not what only the truth lists say of test clips: a
    trial needs none of it. `clips` are sorted by path."""
    digest = hashlib.sha256(f"[{json.dumps(decoding._asdict())}, [".encode())
    for first in range(0, len(clips), _TOGETHER):
        rows = [
            _row(clip, entry)
            for clip, entry in zip(clips[first : first + _TOGETHER], written[first : first + _TOGETHER], strict=True)
        ]
        digest.update(f"{', ' if first else ''}{json.dumps(rows)[1:-1]}".encode())
    digest.update(b"]]")
    return digest.hexdigest()[:20]


def _row(clip: Clip, entry: Written) -> list[Any]:
    domain = clip.domain if clip.split == "train" else None
    names = (clip.path, entry.checksum, clip.machine, clip.section, clip.part, clip.split, clip.attributes)
    return [*names, domain]
