"""The synthetic corpus that the benchmarks run on, and the line that each of them prints."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from raysd.data.synthetic import Synthetic, synthesise

CORPUS = Synthetic(machines=2, sections=2, train_clips=100, test_clips=8, clip_seconds=6.0)


@contextmanager
def corpus() -> Iterator[tuple[Path, Path]]:
    """A folder for the benchmark's files, and in it the corpus."""
    with tempfile.TemporaryDirectory(prefix="raysd-bench-") as folder:
        synthesise(Path(folder) / "data", CORPUS)
        yield Path(folder), Path(folder) / "data"


def report(name: str, unit: str, ours: list[float], reference: list[float], goal: str) -> None:
    """One JSON line; the ratio is the median of the ratios of paired runs."""
    ratio = median(a / b for a, b in zip(ours, reference, strict=True))
    line = {"name": name, "unit": unit, "ours": median(ours), "reference": median(reference), "ratio": ratio}
    print(
        json.dumps(
            {key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()}
            | {"goal": goal}
        )
    )
