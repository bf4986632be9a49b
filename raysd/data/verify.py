"""A data root against what a DCASE year has published: what is there, what is missing, what is wrong.

Machines that are not in the table of years are counted, and compared with themselves alone.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysd.data.layouts import Clip, audio_names, machine_clips, machine_folders, renaming_problem, with_truth
from raysd.data.lists import read_attributes, read_truth
from raysd.data.probe import Progress, probe
from raysd.data.records import DOWNLOADS
from raysd.data.tally import Finding, Section, miscounted, missing, sections_of
from raysd.data.years import RENAMED, YEARS, Part, Year, stem, truth_name
from raysd.errors import BadInput, nearest


@dataclass(frozen=True)
class Report:
    """What was found in a data root."""

    root: Path
    year: int
    sections: list[Section]
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Nothing is wrong; something may be worth knowing."""
        return not any(finding.problem for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with every file."""
        return {
            "root": str(self.root),
            "year": self.year,
            "ok": self.ok,
            "sections": [
                {
                    "part": section.part,
                    "machine": section.machine,
                    "section": section.name,
                    "state": section.state,
                    "train": {domain or "all": clips for domain, clips in section.train.items()},
                    "test": [
                        {"domain": domain, "label": label, "clips": clips}
                        for (domain, label), clips in section.test.items()
                    ],
                }
                for section in self.sections
            ],
            "findings": [
                {
                    "kind": finding.kind,
                    "problem": finding.problem,
                    "text": finding.text,
                    "files": [{"path": path, "detail": detail} for path, detail in finding.files],
                }
                for finding in self.findings
            ],
        }


def verify(
    root: Path,
    year: int | None = None,
    machines: tuple[str, ...] = (),
    parts: tuple[str, ...] = (),
    deep: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Counts the clips of a data root and reads the header of each, or with `deep` all samples.

    `year`: None where names and machines tell it. `machines`: only these, which must all be there. `parts`: those of
    dev, additional and eval that must be there; without it, each part of which anything is there must be there whole,
    and the training set of every evaluation test set. Raises BadInput for a folder that is no data root, and for a
    year, machine or part that there is not.
    """
    _require_parts(parts)
    if year is None:
        year = recognise(root)
    elif year not in YEARS:
        raise BadInput(f"--year {year}: not a known year; allowed: {', '.join(map(str, YEARS))}")
    row = YEARS[year]
    folders = _folders(root, row, machines)
    clips, misfits = _clips(root, row, folders)
    clips, about_truth = _labelled(root, row, folders, clips)
    sections = sections_of(year, clips)
    findings = [
        *missing(year, clips, machines, parts),
        *miscounted(year, sections),
        *_misnamed(misfits),
        *about_truth,
        *_unread(root, row, folders),
        *_attributes(root, row, folders, clips),
    ]
    findings += probe(root, clips, set(row.machines), deep, progress)
    return Report(root, year, sections, sorted(findings, key=lambda finding: not finding.problem))


def recognise(root: Path) -> int:
    """The year whose names, machines and sections a data root has; raises BadInput where it may be several, or none."""
    places = {place for row in YEARS.values() for place in row.test_folders}
    all_clips: dict[int, int] = {}
    published: dict[int, int] = {}
    for year, row in YEARS.items():
        folders = machine_folders(root, row, ("dev", "eval"))
        clips, _ = _clips(root, row, folders)
        tests = {place for _, folder in folders for place in places if (folder / place).is_dir()}
        # 2021 has `source_test`, and beside it may have `test`
        if clips and (not tests or (row.test_folders[0] in tests and tests <= set(row.test_folders))):
            all_clips[year] = len(clips)
            if all(section.expected for section in sections_of(year, clips)):
                published[year] = len(clips)
    fitting = published or all_clips
    best = [year for year, number in fitting.items() if number == max(fitting.values())]
    if len(best) != 1:
        which = f"may be {' or '.join(map(str, best))}" if best else "cannot be told from their names"
        raise BadInput(f"{root}: the year of these clips {which}; say it with --year")
    return best[0]


def _require_parts(parts: tuple[str, ...]) -> None:
    for part in parts:
        if part not in DOWNLOADS:
            raise BadInput(f"part '{part}': {nearest(part, DOWNLOADS)}")


def _folders(root: Path, row: Year, machines: tuple[str, ...]) -> list[tuple[Part, Path]]:
    folders = machine_folders(root, row, ("dev", "eval"))
    known = {*row.machines, *(folder.name for _, folder in folders)}
    for machine in machines:
        if machine not in known:
            raise BadInput(f"machine '{machine}' is neither in {root} nor of {row.number}; {nearest(machine, known)}")
    return [(part, folder) for part, folder in folders if not machines or folder.name in machines]


def _clips(root: Path, row: Year, folders: list[tuple[Part, Path]]) -> tuple[list[Clip], list[tuple[str, str]]]:
    clips: list[Clip] = []
    misfits: list[tuple[str, str]] = []
    for part, folder in folders:
        own, others = machine_clips(root, row, part, folder, {})
        clips += own
        misfits += others
    return clips, misfits


def _misnamed(misfits: list[tuple[str, str]]) -> Iterator[Finding]:
    by_folder: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path, reason in misfits:
        by_folder[path.rpartition("/")[0]].append((path, reason))
    for folder, files in by_folder.items():
        what = f"{len(files):,} audio {'file is' if len(files) == 1 else 'files are'} not named as a clip of this kind"
        yield Finding("misnamed", True, f"{folder}: {what}", tuple(files))


def _labelled(
    root: Path, row: Year, folders: list[tuple[Part, Path]], clips: list[Clip]
) -> tuple[list[Clip], list[Finding]]:
    """The clips with labels from the truth lists; and what is wrong with these."""
    findings: list[Finding] = []
    renamed: set[str] = set()
    for _, folder in folders:
        if problem := renaming_problem(row, folder):
            findings.append(Finding("renamed", True, problem))
        renamed |= {folder.name} if audio_names(folder / RENAMED) else set()
    unlabelled = [clip for clip in clips if clip.label is None]
    if not unlabelled:
        return clips, findings
    try:
        truth = read_truth(root, row.number)
    except BadInput as error:
        return clips, [*findings, Finding("truth", True, str(error))]
    clips = [with_truth(clip, truth) for clip in clips]
    bare = tuple((clip.path, "no label") for clip in clips if clip.label is None)
    if not truth:
        text = f"there is no truth list: {len(bare):,} test clips have no label, and cannot be scored"
        findings.append(Finding("truth", True, text))
    elif bare:
        text = f"{len(bare):,} test clips are in no truth list: they have no label, and cannot be scored"
        findings.append(Finding("truth", True, text, bare))
    names = {(clip.machine, truth_name(Path(clip.path).name)) for clip in unlabelled}
    tested = {machine for machine, _ in names} - renamed
    gone = [key for key in truth if key[0] in tested and key not in names]
    if gone:
        files = tuple((f"{machine}/{name}", "not there") for machine, name in gone)
        findings.append(Finding("truth", True, f"{len(gone):,} test clips of the truth lists are not there", files))
    return clips, findings


def _unread(root: Path, row: Year, folders: list[tuple[Part, Path]]) -> Iterator[Finding]:
    """Folders with audio that are no part of the layout."""
    read = {"train", RENAMED, *row.test_folders}
    for _, folder in folders:
        others = sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in read)
        for place in (folder, *others):
            if names := audio_names(place):
                text = f"{place.relative_to(root).as_posix()}: {len(names):,} audio files that are not read"
                yield Finding("unread", False, text)


def _attributes(root: Path, row: Year, folders: list[tuple[Part, Path]], clips: list[Clip]) -> Iterator[Finding]:
    """Lists of attributes that are not there, cannot be read, or lack clips, in years that have them."""
    trained: dict[tuple[Part, str, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.split == "train":
            trained[clip.part, clip.machine, clip.section].append(clip)
    for part, folder in folders if row.attribute_lists else ():
        gone: list[str] = []
        for key, own in sorted(trained.items()):
            if key[:2] != (part, folder.name):
                continue
            path = folder / f"attributes_{own[0].section}.csv"
            if not path.is_file():
                gone.append(path.name)
                continue
            try:
                listed = read_attributes(path)
            except BadInput as error:
                yield Finding("attributes", True, str(error))
                continue
            bare = tuple((clip.path, "not listed") for clip in own if stem(Path(clip.path).name) not in listed)
            if bare:
                yield Finding("attributes", False, f"{path}: {len(bare):,} training clips are not listed", bare)
        if gone:
            text = f"{folder.relative_to(root).as_posix()}: {', '.join(gone)} not there; attributes are read from names"
            yield Finding("attributes", False, text)
