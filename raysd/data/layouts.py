"""Folders of clips: a data root in the layout of a DCASE year -> list of clips, and back; the official lists of labels.

Machines that are not in the table of years are read too, as long as their files are named by the year's grammar, so
that a user's own recordings need no code.
"""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from raysd.data.years import (
    EXTENSIONS,
    YEARS,
    Attributes,
    Domain,
    Label,
    Name,
    Part,
    Split,
    Year,
    clip_name,
    clip_path,
    match_name,
    misnamed,
    parse_attributes,
    parse_name,
    stem,
    truth_name,
)
from raysd.errors import BadInput, nearest

__all__ = [
    "YEARS",
    "Attributes",
    "Clip",
    "Domain",
    "Label",
    "Name",
    "Part",
    "Split",
    "Year",
    "clip_name",
    "clip_path",
    "parse_attributes",
    "parse_name",
    "read_attributes",
    "read_truth",
    "require_train_and_test",
    "scan",
    "truth_name",
]

Key = tuple[str, str]
"""A test clip in a truth list: machine and `truth_name`."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of a data set."""

    path: str
    """Relative to the data root, with forward slashes."""
    machine: str
    section: str
    part: Part
    """dev: the development data. eval: the additional training data and the evaluation test data."""
    split: Split
    domain: Domain | None
    label: Label | None
    """1: anomaly, 0: normal, None: unknown."""
    attributes: Attributes


def scan(root: Path, year: int, machines: tuple[str, ...] | None = None, additional: bool = False) -> list[Clip]:
    """All clips of a data root, sorted by path.

    `root` holds `dev_data/<machine>/{train,test}` and, with `additional`, `eval_data/<machine>/{train,test}`; or it
    holds the machines' folders itself, which then count as development data. `machines`: only these. Test clips whose
    names have no label get it, and their domain, from the official truth lists under the root where these are found.

    Raises BadInput for a folder that is no data root, a machine that is missing or lacks train or test clips, a section
    that is tested without training clips, and names that do not fit the year's grammar.
    """
    row = YEARS[year]
    folders = _machine_folders(root, row, additional)
    found = sorted({folder.name for _, folder in folders})
    for machine in machines or ():
        if machine not in found:
            raise BadInput(f"{root}: machine '{machine}' is not there; {nearest(machine, found)}")
    clips: list[Clip] = []
    for part, folder in folders:
        if not machines or folder.name in machines:
            clips.extend(_machine_clips(root, row, part, folder))
    if any(clip.label is None for clip in clips):
        truth = read_truth(root, year)
        clips = [_with_truth(clip, truth) for clip in clips]
    require_train_and_test(root, clips)
    return sorted(clips, key=lambda clip: clip.path)


def require_train_and_test(root: Path, clips: Iterable[Clip]) -> None:
    """Raises BadInput for a machine without train or test clips, and for a tested section without train clips."""
    sections: dict[str, dict[str, set[str]]] = {}
    for clip in clips:
        sections.setdefault(clip.machine, {"train": set(), "test": set()})[clip.split].add(clip.section)
    for machine, by_split in sorted(sections.items()):
        for split in ("train", "test"):
            if not by_split[split]:
                raise BadInput(f"{root}: machine '{machine}' has no {split} clips")
        untrained = sorted(by_split["test"] - by_split["train"])
        if untrained:
            raise BadInput(
                f"{root}: machine '{machine}' has test clips of section {', '.join(untrained)} but no train clips of it"
            )


def read_truth(folder: Path, year: int) -> dict[Key, tuple[int, str | None]]:
    """Labels of evaluation test clips from the official lists: (machine, `truth_name`) -> (1 anomaly or 0, domain).

    Reads, in `folder` and up to three levels below it, or `folder` itself if it is such a file: `eval_data_list.csv`
    (or `eval_data_list_<year>.csv`), where a line with a machine's name comes before lines `name, name with
    label[, label]`; and `ground_truth_<machine>_section_NN[_test].csv` with lines `name,label`, those in a folder
    `ground_truth_domain` with 0 for source and 1 for target. Without any list the result is empty.

    Raises BadInput that names file and line for a line that cannot be read or that names a clip again.
    """
    if folder.name.startswith("ground_truth_") and folder.is_dir():
        folder = folder.parent  # the domains stand beside the labels
    labels: dict[Key, tuple[int, str | None]] = {}
    domains: dict[Key, int] = {}
    for path in _truth_files(folder, year):
        truth_file = re.fullmatch(_TRUTH_FILE, path.name)
        machine = truth_file["machine"] if truth_file else ""
        of_domain = path.parent.name == "ground_truth_domain"
        for number, cells in _csv_lines(path):
            if not truth_file and len(cells) == 1 and stem(cells[0]) == cells[0]:
                machine = cells[0]
                continue
            known = _truth_line(cells, year) if truth_file else _list_line(machine, cells, year)
            key = (machine, truth_name(cells[0]))
            if isinstance(known, str) or key in (domains if of_domain else labels):
                problem = known if isinstance(known, str) else f"'{cells[0]}' of {machine} is named twice"
                raise BadInput(f"{path}: line {number}: {problem}")
            if of_domain:
                domains[key] = known[0]
            else:
                labels[key] = known
    for key, domain in domains.items():
        if key not in labels:
            raise BadInput(f"{folder}: {key[0]} {key[1]} is in ground_truth_domain but not in ground_truth_data")
        labels[key] = (labels[key][0], ("source", "target")[domain])
    return labels


def read_attributes(path: Path) -> dict[str, Attributes]:
    """`attributes_NN.csv` (columns file_name,d1p,d1v,d2p,d2v ...): clip's name without extension -> pairs."""
    attributes: dict[str, Attributes] = {}
    for number, (name, *values) in _csv_lines(path):
        clip = stem(Path(name).name)
        if clip in attributes:
            raise BadInput(f"{path}: line {number}: '{name}' is named twice")
        if name != "file_name":
            pairs = zip(values[::2], [*values[1::2], ""], strict=False)
            attributes[clip] = tuple((key, value) for key, value in pairs if parse_attributes(key))
    return attributes


_TRUTH_FILE = r"ground_truth_(?P<machine>.+)_section_[0-9]{2}(?:_(?:source|target))?(?:_test)?\.csv"
_TRUTH_LIST = r"eval_data_list(?:_(?P<year>[0-9]{4}))?\.csv"


def _machine_folders(root: Path, row: Year, additional: bool) -> list[tuple[Part, Path]]:
    """The folders of machines under a data root, with the part of the data that they belong to."""
    expected = "expected dev_data/<machine>/train and .../test below it, or <machine>/train and .../test"
    if not root.is_dir():
        raise BadInput(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; {expected}")
    parts: tuple[Part, ...] = ("dev", "eval") if additional else ("dev",)
    there = {part for part in parts if (root / f"{part}_data").is_dir()}
    if additional and "eval" not in there:
        raise BadInput(f"{root}: data.additional needs eval_data/<machine>/train below it; found {_contents(root)}")
    folders: list[tuple[Part, Path]] = []
    for part in parts:
        if part in there:
            folders.extend((part, folder) for folder in _subfolders(root / f"{part}_data"))
    if not there:
        splits = {"train", *row.test_folders}
        machines = [folder for folder in _subfolders(root) if splits & {inner.name for inner in _subfolders(folder)}]
        folders.extend(("dev", folder) for folder in machines)
    if not folders:
        one = "; it looks like the folder of one machine: give the folder above it" if (root / "train").is_dir() else ""
        raise BadInput(f"{root}: not a data root: {expected}; found {_contents(root)}{one}")
    return folders


def _machine_clips(root: Path, row: Year, part: Part, folder: Path) -> Iterator[Clip]:
    """The clips of one machine's folder."""
    attributes: dict[str, Attributes] = {}
    for path in sorted(folder.glob("attributes_[0-9][0-9].csv")):
        attributes.update(read_attributes(path))
    misfits: list[str] = []
    count: dict[Split, int] = {"train": 0, "test": 0}
    for name in ("train", *row.test_folders):
        split: Split = "train" if name == "train" else "test"
        prefix = (folder / name).relative_to(root).as_posix()
        for file_name in _audio_names(folder / name):
            count[split] += 1
            parsed = match_name(row, file_name)
            if parsed is None:
                misfits.append(f"{prefix}: {misnamed(row.number, file_name)}")
                continue
            if parsed.split not in (None, split) or (split == "train" and parsed.label != 0):
                misfits.append(f"{prefix}: '{file_name}' is named as another kind of clip than a {split} clip")
                continue
            pairs = attributes.get(stem(file_name))
            yield Clip(
                path=f"{prefix}/{file_name}",
                machine=folder.name,
                section=parsed.section,
                part=part,
                split=split,
                domain=parsed.domain,
                label=parsed.label,
                attributes=parse_attributes(parsed.attributes) if pairs is None else pairs,
            )
    if misfits:
        more = f" (and {len(misfits) - 1} more such files of this machine)" if len(misfits) > 1 else ""
        raise BadInput(f"{root}: {misfits[0]}{more}")
    for split, clips in count.items():
        wanted = ["train"] if split == "train" else [name for name in row.test_folders if (folder / name).is_dir()]
        # the additional training data comes without the evaluation test data, which is a download of its own
        if not clips and (part == "dev" or wanted):
            names = "|".join(wanted or row.test_folders)
            found = _contents(folder / names) if (folder / names).is_dir() else _contents(folder)
            raise BadInput(
                f"{root}: machine '{folder.name}' has no {split} clips: expected wav, flac or ogg files in "
                f"{folder.relative_to(root).as_posix()}/{names}; found {found}"
            )


def _with_truth(clip: Clip, truth: Mapping[Key, tuple[int, str | None]]) -> Clip:
    known = truth.get((clip.machine, truth_name(Path(clip.path).name)))
    if clip.label is not None or known is None:
        return clip
    label, domain = cast("tuple[Label, Domain | None]", known)
    return replace(clip, label=label, domain=clip.domain or domain)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith((".", "__")))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read: {error.strerror or error}") from None


def _subfolders(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder) if (folder / name).is_dir()]


def _audio_names(folder: Path) -> list[str]:
    """By the name alone: what is named as audio but is none, a dangling link for instance, is for the store to name."""
    endings = tuple(f".{kind}" for kind in EXTENSIONS)
    return [name for name in _names(folder) if name.lower().endswith(endings)] if folder.is_dir() else []


def _contents(folder: Path) -> str:
    names = _names(folder)
    return "nothing" if not names else ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _truth_files(folder: Path, year: int) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    elif not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; expected one with the official truth lists")
    skipped = {"train", *YEARS[year].test_folders}
    for place, below, names in os.walk(folder):
        deep = len(Path(place).relative_to(folder).parts) >= 3
        below[:] = [] if deep else sorted(name for name in below if name not in skipped and not name.startswith("."))
        for name in sorted(names):
            truth_list = re.fullmatch(_TRUTH_LIST, name)
            if re.fullmatch(_TRUTH_FILE, name) or (truth_list and truth_list["year"] in (None, str(year))):
                yield Path(place, name)


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and stripped cells of a CSV file; trailing empty cells and empty lines are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = list(csv.reader(lines, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read as CSV: {error}") from None
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield number, cells


def _truth_line(cells: list[str], year: int) -> tuple[int, str | None] | str:
    """What a line `name,0|1` says, or why it cannot be read."""
    if len(cells) != 2 or cells[1] not in ("0", "1"):
        return f"expected 'name,0' or 'name,1', found '{','.join(cells)}'"
    parsed = match_name(YEARS[year], cells[0])
    return int(cells[1]), parsed.domain if parsed else None


def _list_line(machine: str, cells: list[str], year: int) -> tuple[int, str | None] | str:
    """What a line `name,name with label[,label]` says, or why it cannot be read."""
    parsed = match_name(YEARS[year], cells[1]) if len(cells) in (2, 3) else None
    if not machine or parsed is None or parsed.label is None:
        labelled, bare = YEARS[year].examples
        return f"expected a machine's name, then lines such as '{bare},{labelled}', found '{','.join(cells)}'"
    if len(cells) == 3 and cells[2] != str(parsed.label):
        return f"the label '{cells[2]}' is not what '{cells[1]}' says"
    return parsed.label, parsed.domain
