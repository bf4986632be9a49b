"""The synthetic corpus that the benchmarks run on, and the line that each of them prints."""

import json
import re
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


def report(name: str, unit: str, ours: list[float], reference: list[float] | None, goal: str) -> None:
    """One JSON line; the ratio is the median of the ratios of paired runs, null where nothing is compared."""
    value, theirs = median(ours), None if reference is None else median(reference)
    ratio = None if reference is None else median(a / b for a, b in zip(ours, reference, strict=True))
    line = {"name": name, "unit": unit, "ours": value, "reference": theirs, "ratio": ratio}
    rounded = {key: round(it, 4) if isinstance(it, float) else it for key, it in line.items()}
    print(json.dumps(rounded | {"goal": goal, "met": met(goal, unit, value, ratio)}), flush=True)


def met(goal: str, unit: str, ours: float, ratio: float | None) -> bool | None:
    """Whether a goal is met, such as ">= 0.97 of torchrun" (the ratio) or "<= 5 s; all imports count" (ours, in its
    unit). Of several all have to be. None for a goal that is no number, or is about something else than the line."""
    wanted = re.findall(r"([<>])= ([\d.,]*\d)(?: ([^\s;,]+))?", goal)
    values = [ours if what == unit else ratio if what in ("", "of", "x") else None for _, _, what in wanted]
    if not wanted or None in values:
        return None
    limits = [(sign, float(number.replace(",", ""))) for sign, number, _ in wanted]
    return all(
        value <= limit if sign == "<" else value >= limit
        for value, (sign, limit) in zip(values, limits, strict=True)
        if value is not None
    )
