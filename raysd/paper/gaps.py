"""What the clips behind a trial lack of a year's whole data: without all of them its figures are of other data."""

from collections import Counter
from collections.abc import Iterable

from raysd.data.counts import Count, expected
from raysd.data.years import YEARS, Part
from raysd.results.store import Record


def data_gaps(record: Record, part: Part) -> list[str]:
    """In words, a machine type each; empty where the clips are those of the data set, going by their numbers."""
    counts = Counter(
        (clip["machine"], clip["section"], clip["split"]) for clip in record.scores if clip["part"] == part
    )
    machines = sections_by_machine(record.year, part)
    tested = {machine for machine, _, split in counts if split == "test"}
    lines = []
    if lacking := machines.keys() - tested:
        lines.append(f"{len(machines) - len(lacking)} of {len(machines)} machine types")
    for machine, sections in machines.items():
        if machine in tested:
            there = [section for section in sections if counts[machine, section, "test"]]
            told = [] if len(there) == len(sections) else [f"{len(there)} of {len(sections)} sections"]
            for split, name in (("train", "training"), ("test", "test")):
                found = sum(counts[machine, section, split] for section in there)
                whole = _sum(_expected(record.year, part, machine, section, split) for section in there)
                if found < whole.low or (whole.high is not None and found > whole.high):
                    told.append(f"{found:,} of {whole} {name} clips")
            lines += [f"{machine}: {', '.join(told)}"] if told else []
    return lines


def has_all_sections(record: Record, part: Part) -> bool:
    """Whether every section of every machine type has its figures, so that an average over them is that of the year."""
    metrics = YEARS[record.year].score_metrics
    measured = {(row["machine"], row["section"], row["metric"]) for row in record.metrics if row["part"] == part}
    whole = sections_by_machine(record.year, part)
    return {(m, s, metric) for m, sections in whole.items() for s in sections for metric in metrics} <= measured


def sections_by_machine(year: int, part: Part) -> dict[str, tuple[str, ...]]:
    """The machine types of that part of the year's data, with their sections."""
    at = ("dev", "eval").index(part)
    return {machine: sections[at] for machine, sections in YEARS[year].machines.items() if sections[at]}


def _expected(year: int, part: Part, machine: str, section: str, split: str) -> Count:
    clips = expected(year, part, machine, section)
    if clips is None:
        raise ValueError(f"{year} has no {machine} {section} in {part}")
    if split == "train":
        return _sum(clips.train.values())
    whole = clips.test.get((None, None))  # where it is known, the rest are parts of it
    return whole or _sum(clips.test.values())


def _sum(counts: Iterable[Count]) -> Count:
    found = list(counts)
    highs = [count.high for count in found if count.high is not None]
    return Count(sum(count.low for count in found), sum(highs) if len(highs) == len(found) else None)
