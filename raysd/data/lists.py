"""The organisers' lists about clips: labels and domains of evaluation test clips, their names with labels, attributes.

Labels come in two forms. `eval_data_list.csv` (or `eval_data_list_<year>.csv`) has a line with a machine's name before
lines `name, name with label[, label]`. `ground_truth_<machine>_section_NN[_test].csv` has lines `name,label`; a file of
this name in a folder `ground_truth_domain` has 0 for source and 1 for target instead, and in a folder
`ground_truth_attributes` the name with label.
"""

import csv
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from raysd.data.years import RENAMED, YEARS, Attributes, match_name, misnamed, parse_attributes, stem, truth_name
from raysd.errors import BadInput

Key = tuple[str, str]
"""A test clip in a truth list: machine and `truth_name`."""
Truth = tuple[int, str | None]
"""1 for an anomaly, else 0; the domain where it is known."""

_TRUTH_FILE = re.compile(r"ground_truth_(?P<machine>.+)_section_[0-9]{2}(?:_(?:source|target))?(?:_test)?\.csv")
_TRUTH_LIST = re.compile(r"eval_data_list(?:_(?P<year>[0-9]{4}))?\.csv")

# `eval_data_list_2022.csv` of nttcslab/dcase2023_task2_baseline_ae has wrong labels for ToyCar and ToyTrain: 608 of
# 1,200 are not those of the official evaluator, as ASDKit's authors found. All that it says of these six is wrong.
_WRONG_TRUTH: dict[int, Mapping[Key, Truth]] = {
    2022: {
        ("ToyCar", "section_03_0166"): (1, "target"),
        ("ToyCar", "section_03_0167"): (0, "target"),
        ("ToyCar", "section_03_0168"): (1, "target"),
        ("ToyCar", "section_04_0000"): (1, "source"),
        ("ToyCar", "section_04_0007"): (1, "target"),
        ("ToyCar", "section_04_0011"): (1, "source"),
    }
}


def read_truth(folder: Path, year: int) -> dict[Key, Truth]:
    """Labels of evaluation test clips from the official lists: (machine, `truth_name`) -> (1 anomaly or 0, domain).

    Reads all lists of `folder` and up to three levels below it, or `folder` itself if it is one. Without any list the
    result is empty. Raises BadInput that names file and line for a line that cannot be read, that names a clip again,
    or that contradicts another list; and for the list of 2022 that is known to be wrong.
    """
    labels: dict[Key, Truth] = {}
    domains: dict[Key, int] = {}
    origin: dict[Key, Path] = {}
    for path, number, machine, cells in _truth_lines(folder, year):
        of_domain = path.parent.name == "ground_truth_domain"
        if path.parent.name == "ground_truth_attributes":
            continue
        known = _truth_line(cells, year) if _TRUTH_FILE.fullmatch(path.name) else _list_line(machine, cells, year)
        if isinstance(known, str):
            raise BadInput(f"{path}: line {number}: {known}")
        key = (machine, truth_name(cells[0]))
        if of_domain:
            if key in domains:
                raise BadInput(f"{path}: line {number}: '{cells[0]}' of {machine} is named twice")
            domains[key] = known[0]
            continue
        if key in labels:
            if origin[key] == path:
                raise BadInput(f"{path}: line {number}: '{cells[0]}' of {machine} is named twice")
            if labels[key][0] != known[0]:
                raise BadInput(
                    f"{path}: line {number}: the label of '{cells[0]}' of {machine} is {known[0]} here, but "
                    f"{labels[key][0]} in {origin[key]}; keep the right list alone"
                )
        labels[key] = (known[0], known[1] or labels.get(key, known)[1])
        origin[key] = path
    wrong = _WRONG_TRUTH.get(year)
    if wrong and all(labels.get(key) == said for key, said in wrong.items()):
        raise BadInput(
            f"{origin[next(iter(wrong))]}: this list of {year} has wrong labels of ToyCar and ToyTrain; instead of it "
            "use the folders ground_truth_data and ground_truth_domain of github.com/Kota-Dohi/dcase2022_evaluator"
        )
    for key, domain in domains.items():
        if key not in labels:
            raise BadInput(f"{folder}: {key[0]} {key[1]} is in ground_truth_domain but not in ground_truth_data")
        label, said = labels[key]
        if said not in (None, ("source", "target")[domain]):
            raise BadInput(f"{folder}: {key[0]} {key[1]} is of domain {said}, but not so in ground_truth_domain")
        labels[key] = (label, ("source", "target")[domain])
    return labels


def read_renamed(folder: Path, year: int) -> dict[Key, str]:
    """The names that the lists give evaluation test clips: (machine, name with label, no extension) -> `truth_name`.

    So are clips named in `test_rename`, and in scores of those; the official evaluators from 2023 on accept both names.
    """
    renamed: dict[Key, str] = {}
    for path, _, machine, cells in _truth_lines(folder, year):
        if len(cells) >= 2 and (_TRUTH_LIST.fullmatch(path.name) or path.parent.name == "ground_truth_attributes"):
            renamed[machine, stem(cells[1])] = truth_name(cells[0])
    return renamed


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


def _truth_lines(folder: Path, year: int) -> Iterator[tuple[Path, int, str, list[str]]]:
    """(file, line number, machine, cells) of all lists, without the lines that only name a machine."""
    if folder.name.startswith("ground_truth_") and folder.is_dir():
        folder = folder.parent  # the domains stand beside the labels
    for path in _truth_files(folder, year):
        of_file = _TRUTH_FILE.fullmatch(path.name)
        machine = of_file["machine"] if of_file else ""
        for number, cells in _csv_lines(path):
            if not of_file and len(cells) == 1 and stem(cells[0]) == cells[0]:
                machine = cells[0]
            else:
                yield path, number, machine, cells


def _truth_files(folder: Path, year: int) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    elif not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; expected one with the official truth lists")
    skipped = {"train", RENAMED, *YEARS[year].test_folders}
    for place, below, names in os.walk(folder):
        deep = len(Path(place).relative_to(folder).parts) >= 3
        below[:] = [] if deep else sorted(name for name in below if name not in skipped and not name.startswith("."))
        for name in sorted(names):
            of_year = _TRUTH_LIST.fullmatch(name)
            if _TRUTH_FILE.fullmatch(name) or (of_year and of_year["year"] in (None, str(year))):
                yield Path(place, name)


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and stripped cells of a CSV file; trailing empty cells and empty lines are left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read as CSV: {error}") from None
    for number, row in rows:
        cells = [cell.strip() for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield number, cells


def _truth_line(cells: list[str], year: int) -> Truth | str:
    """What a line `name,0|1` says, or why it cannot be read."""
    if len(cells) != 2 or cells[1] not in ("0", "1"):
        return f"expected 'name,0' or 'name,1', found '{','.join(cells)}'"
    if not _is_clip(cells[0]):
        return misnamed(year, cells[0])
    parsed = match_name(YEARS[year], f"{stem(cells[0])}.wav")
    return int(cells[1]), parsed.domain if parsed else None


def _list_line(machine: str, cells: list[str], year: int) -> Truth | str:
    """What a line `name,name with label[,label]` says, or why it cannot be read."""
    parsed = match_name(YEARS[year], cells[1]) if len(cells) in (2, 3) else None
    if not machine or parsed is None or parsed.label is None or not _is_clip(cells[0]):
        labelled, bare = YEARS[year].examples
        return f"expected a machine's name, then lines such as '{bare},{labelled}', found '{','.join(cells)}'"
    if len(cells) == 3 and cells[2] != str(parsed.label):
        return f"the label '{cells[2]}' is not what '{cells[1]}' says"
    return parsed.label, parsed.domain


def _is_clip(name: str) -> bool:
    """Whether a clip of any year may be called so, with extension or without: a folder may hold lists of several."""
    return any(match_name(row, f"{stem(name)}.wav") for row in YEARS.values())
