"""How many clips a data root has of what, against what a DCASE year has published; from names alone."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from raysd.data.counts import Count, Expected, Kind, expected
from raysd.data.layouts import Clip
from raysd.data.records import DOWNLOADS, Download, remotes
from raysd.data.years import YEARS, Domain, Label, Part, Split

_SETS: dict[Download, tuple[Part, Split | None, str]] = {
    "dev": ("dev", None, "development data"),
    "additional": ("eval", "train", "additional training set"),
    "eval": ("eval", "test", "evaluation test set"),
}


@dataclass(frozen=True)
class Finding:
    """Something to know about a data set."""

    kind: str
    """A word for scripts: missing, short, unreadable, doubled, ..."""
    problem: bool
    """False: worth knowing, but no fault."""
    text: str
    """One sentence that names the place, and what to do where something can be done."""
    files: tuple[tuple[str, str], ...] = ()
    """Each file that it is about, relative to the data root, and what is said of it."""


class Deviation(NamedTuple):
    """A number of clips that is not the published one."""

    what: str
    """How many clips of what there are."""
    count: Count
    """How many there should be."""
    state: str
    """short or surplus"""


@dataclass(frozen=True)
class Section:
    """The clips of a section in one part of the data."""

    part: Part
    machine: str
    name: str
    train: dict[Domain | None, int]
    test: dict[Kind, int]
    """By domain and label; None where they are unknown."""
    expected: Expected | None
    """None: not a section of the year."""

    @property
    def state(self) -> str:
        """no train, no test, short, surplus or ok; counted where nothing is expected."""
        if self.expected is None:
            return "counted"
        if self.part == "eval" and not (self.train and self.test):
            return "no test" if self.train else "no train"
        states = {found.state for found in self.deviations()}
        return next((state for state in ("short", "surplus") if state in states), "ok")

    def deviations(self) -> Iterator["Deviation"]:
        """Where there are too few clips or too many of a kind, as far as it can be told.

        In eval, training and test clips are published apart: none of either is not looked at here.
        """
        if self.expected is None:
            return
        together = self.part == "dev"
        for domain, count in self.expected.train.items():
            there = sum(clips for own, clips in self.train.items() if domain in (None, own))
            if (self.train or together) and (state := _state(there, count)):
                yield Deviation(f"{there:,} {_words(domain, None)}train clips", count, state)
        no_label = any(label is None for _, label in self.test)
        no_domain = any(domain is None for domain, _ in self.test)
        for (domain, label), count in self.expected.test.items():
            if not (self.test or together) or (label is not None and no_label) or (domain is not None and no_domain):
                continue
            there = sum(
                clips
                for (own_domain, own_label), clips in self.test.items()
                if domain in (None, own_domain) and label in (None, own_label)
            )
            if state := _state(there, count):
                yield Deviation(f"{there:,} {_words(domain, label)}test clips", count, state)


def sections_of(year: int, clips: list[Clip]) -> list[Section]:
    """The sections of some clips, with how many there are and how many there should be."""
    by_section: dict[tuple[Part, str, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        by_section[clip.part, clip.machine, clip.section].append(clip)
    return [
        Section(
            *key,
            dict(Counter(clip.domain for clip in own if clip.split == "train")),
            dict(Counter((clip.domain, clip.label) for clip in own if clip.split == "test")),
            expected(year, *key),
        )
        for key, own in sorted(by_section.items())
    ]


def missing(
    year: int, clips: list[Clip], machines: tuple[str, ...] = (), parts: tuple[str, ...] = ()
) -> Iterator[Finding]:
    """Machines and sections of which a part has no clips at all.

    It is a problem for `parts`, and without them for each part of which any clip is there, for the training set of
    every test set, and for a machine of `machines` of which nothing is there; it is a note for the rest.
    """
    there = {(download_of(clip), clip.machine, clip.section) for clip in clips}
    found = {machine for _, machine, _ in there}
    present = {download for download, _, _ in there}
    if "eval" in present:
        present.add("additional")
    published = YEARS[year].machines
    chosen = [machine for machine in published if machine in machines] if machines else list(published)
    for download in DOWNLOADS if machines or found & set(published) else ():
        part, split, name = _SETS[download]
        absent: list[str] = []
        for machine in chosen:
            sections = published[machine][part == "eval"]
            gone = [section for section in sections if (download, machine, section) not in there]
            first = download == "dev" or not published[machine][0]
            named = bool(machines) and machine not in found and first and not parts
            if gone and (named or download in (parts or present)):
                place = f"{part}_data/{machine}" + (f"/{split}" if split else "")
                which = f"section {', '.join(gone)} of " if len(gone) < len(sections) else ""
                archive = next(remotes(year, (download,), (machine,)))
                source = f"{archive.name} of Zenodo record {archive.record}"
                yield Finding("missing", True, f"{place}: {which}the {name} of {machine} is not there ({source})")
            elif gone:
                absent.append(machine)
        if absent and not parts:
            yield Finding("missing", False, f"the {name} of {', '.join(absent)} is not there")


def miscounted(year: int, sections: Iterable[Section]) -> Iterator[Finding]:
    """Sections with too few clips or too many of a kind, and those that a machine of the year does not have."""
    for section in sections:
        place = f"{section.part}_data/{section.machine}, section {section.name}"
        if section.expected is None and section.machine in YEARS[year].machines:
            yield Finding("surplus", False, f"{place}: {year} has no such section in this part")
        found = list(section.deviations())
        if found:
            text = "; ".join(f"{deviation.what}, not {deviation.count}" for deviation in found)
            kind = "short" if any(deviation.state == "short" for deviation in found) else "surplus"
            yield Finding(kind, True, f"{place}: {text}")


def download_of(clip: Clip) -> Download:
    """With which part a clip is published."""
    if clip.part == "dev":
        return "dev"
    return "additional" if clip.split == "train" else "eval"


def _state(there: int, count: Count) -> str | None:
    if there < count.low:
        return "short"
    return "surplus" if count.high is not None and there > count.high else None


def _words(domain: Domain | None, label: Label | None) -> str:
    words = [domain or "", {0: "normal", 1: "anomalous", None: ""}[label]]
    return "".join(f"{word} " for word in words if word)
