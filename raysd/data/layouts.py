"""Folders of clips: a data root in the layout of a DCASE year -> list of clips.

Machines that are not in the table of years are read too, as long as their files are named by the year's grammar, so
that a user's own recordings need no code.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from raysd.data.lists import Key, Truth, read_attributes, read_truth
from raysd.data.years import (
    EXTENSIONS,
    RENAMED,
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
    "audio_names",
    "clip_name",
    "clip_path",
    "machine_clips",
    "machine_folders",
    "parse_attributes",
    "parse_name",
    "places_of_test_clips",
    "read_attributes",
    "read_truth",
    "renaming_problem",
    "require_train_and_test",
    "scan",
    "truth_name",
    "with_truth",
]


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

    `root` holds `dev_data/<machine>/{train,test}` and, with `additional`, `eval_data/<machine>/{train,test}`, or the
    same with a folder `raw` above the machines; or it holds the machines' folders itself, which then count as
    development data. `machines`: only these. Test clips whose names have no label get it, and their domain, from the
    official truth lists under the root where these are found. Where a machine has its test clips again in
    `test_rename`, with labels in their names, they are taken from there.

    Raises BadInput for a folder that is no data root, a machine that is missing or lacks train or test clips, a section
    that is tested without training clips, and names that do not fit the year's grammar.
    """
    row = YEARS[year]
    if additional and root.is_dir() and not (root / "eval_data").is_dir():
        raise BadInput(f"{root}: data.additional needs eval_data/<machine>/train below it; found {_contents(root)}")
    folders = machine_folders(root, row, ("dev", "eval") if additional else ("dev",))
    found = sorted({folder.name for _, folder in folders})
    for machine in machines or ():
        if machine not in found:
            raise BadInput(f"{root}: machine '{machine}' is not there; {nearest(machine, found)}")
    clips: list[Clip] = []
    for part, folder in folders:
        if not machines or folder.name in machines:
            attributes: dict[str, Attributes] = {}
            for path in sorted(folder.glob("attributes_[0-9][0-9].csv")):
                attributes.update(read_attributes(path))
            found_clips, misfits = machine_clips(root, row, part, folder, attributes)
            _require_readable(root, row, part, folder, found_clips, misfits)
            clips.extend(found_clips)
    if any(clip.label is None for clip in clips):
        truth = read_truth(root, year)
        clips = [with_truth(clip, truth) for clip in clips]
    require_train_and_test(root, clips)
    return sorted(clips, key=lambda clip: clip.path)


def require_train_and_test(root: Path, clips: Iterable[Clip]) -> None:
    """Raises BadInput for a machine without train or test clips, and for a tested section without train clips.

    A machine of the evaluation data alone, as there are from 2023 on, may come without test clips: its additional
    training data is a download of its own.
    """
    sections: dict[str, dict[str, set[str]]] = {}
    developed = set()
    for clip in clips:
        sections.setdefault(clip.machine, {"train": set(), "test": set()})[clip.split].add(clip.section)
        developed |= {clip.machine} if clip.part == "dev" else set()
    for machine, by_split in sorted(sections.items()):
        for split in ("train", "test"):
            if not by_split[split] and (split == "train" or machine in developed):
                raise BadInput(f"{root}: machine '{machine}' has no {split} clips")
        untrained = sorted(by_split["test"] - by_split["train"])
        if untrained:
            raise BadInput(
                f"{root}: machine '{machine}' has test clips of section {', '.join(untrained)} but no train clips of it"
            )


def machine_folders(root: Path, row: Year, parts: tuple[Part, ...]) -> list[tuple[Part, Path]]:
    """The folders of machines under a data root, with the part of the data that they belong to, one of `parts`.

    Raises BadInput for a folder that is no data root.
    """
    expected = "expected dev_data/<machine>/train and .../test below it, or <machine>/train and .../test"
    if not root.is_dir():
        raise BadInput(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; {expected}")
    splits = {"train", RENAMED, *row.test_folders}
    there: list[Part] = [part for part in parts if (root / f"{part}_data").is_dir()]
    folders: list[tuple[Part, Path]] = []
    for part in there:
        base = root / f"{part}_data"
        raw = base / "raw"  # as the organisers' repository lays the data out since 2023
        if raw.is_dir() and not splits & {inner.name for inner in _subfolders(raw)}:
            base = raw
        folders.extend((part, folder) for folder in _subfolders(base))
    if not there:
        machines = [folder for folder in _subfolders(root) if splits & {inner.name for inner in _subfolders(folder)}]
        folders.extend(("dev", folder) for folder in machines)
    if not folders:
        one = "; it looks like the folder of one machine: give the folder above it" if (root / "train").is_dir() else ""
        raise BadInput(f"{root}: not a data root: {expected}; found {_contents(root)}{one}")
    return folders


def machine_clips(
    root: Path, row: Year, part: Part, folder: Path, attributes: Mapping[str, Attributes]
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """The clips of one machine's folder, whose names tell the attributes that `attributes` does not; and (path, reason)
    of the audio files that are no clips."""
    clips: list[Clip] = []
    misfits: list[tuple[str, str]] = []
    seen: dict[tuple[Split, str], str] = {}
    for place, names in (("train", audio_names(folder / "train")), *places_of_test_clips(row, folder)):
        split: Split = "train" if place == "train" else "test"
        prefix = (folder / place).relative_to(root).as_posix()
        for name in names:
            parsed = match_name(row, name)
            if parsed is None:
                misfits.append((f"{prefix}/{name}", misnamed(row.number, name)))
                continue
            if parsed.split not in (None, split) or (split == "train" and parsed.label != 0):
                reason = f"'{name}' is named as another kind of clip than a {split} clip"
                misfits.append((f"{prefix}/{name}", reason))
                continue
            other = seen.setdefault((split, truth_name(name)), name)
            if other != name:
                misfits.append((f"{prefix}/{name}", f"'{name}' is the same clip as '{other}'; keep one of them"))
                continue
            pairs = attributes.get(stem(name))
            clips.append(
                Clip(
                    path=f"{prefix}/{name}",
                    machine=folder.name,
                    section=parsed.section,
                    part=part,
                    split=split,
                    domain=parsed.domain,
                    label=parsed.label,
                    attributes=parse_attributes(parsed.attributes) if pairs is None else pairs,
                )
            )
    return clips, misfits


def places_of_test_clips(row: Year, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a machine's test clips lie, and their names; each clip once, though it may lie in two folders.

    `test_rename` is taken alone where it has any: all its clips are copies. In 2021 the organisers' tools copy the
    clips of both domains into `test`, under the same names.
    """
    if renamed := audio_names(folder / RENAMED):
        yield RENAMED, renamed
        return
    seen: set[str] = set()
    for place in row.test_folders:
        names = [name for name in audio_names(folder / place) if name not in seen]
        seen.update(names)
        yield place, names


def renaming_problem(row: Year, folder: Path) -> str | None:
    """What is wrong with a machine's `test_rename`: not a copy of each test clip, or labels known to be wrong."""
    copies = audio_names(folder / RENAMED)
    originals = len({name for place in row.test_folders for name in audio_names(folder / place)})
    if copies and originals and len(copies) != originals:
        return (
            f"{folder / RENAMED}: {len(copies)} clips, but it should hold copies of all {originals} test clips beside "
            "it, with labels in their names; complete it, or delete it and put the truth list into the data root"
        )
    parsed = [match_name(row, name) for name in copies]
    # the list that `read_truth` refuses numbers clips of these two machines anew, from 0 to 49 of a kind
    anew = bool(parsed) and all(name is not None and int(name.number) < 50 for name in parsed)
    if row.number == 2022 and folder.name in ("ToyCar", "ToyTrain") and anew:
        return (
            f"{folder / RENAMED}: named by the list of 2022 whose labels of this machine are wrong; delete it, and put "
            "ground_truth_data and ground_truth_domain of github.com/Kota-Dohi/dcase2022_evaluator into the data root"
        )
    return None


def with_truth(clip: Clip, truth: Mapping[Key, Truth]) -> Clip:
    """The clip with the label and the domain that the truth lists give it; a name that tells them is believed."""
    known = truth.get((clip.machine, truth_name(Path(clip.path).name)))
    if clip.label is not None or known is None:
        return clip
    label, domain = cast("tuple[Label, Domain | None]", known)
    return replace(clip, label=label, domain=clip.domain or domain)


def _require_readable(
    root: Path, row: Year, part: Part, folder: Path, clips: list[Clip], misfits: list[tuple[str, str]]
) -> None:
    """Raises BadInput for names that do not fit, a split without clips, and a `test_rename` not to be relied on."""
    if misfits:
        path, reason = misfits[0]
        more = f" (and {len(misfits) - 1} more such files of this machine)" if len(misfits) > 1 else ""
        raise BadInput(f"{root}: {path.rpartition('/')[0]}: {reason}{more}")
    for split in ("train", "test"):
        wanted = ["train"] if split == "train" else [name for name in row.test_folders if (folder / name).is_dir()]
        # the additional training data comes without the evaluation test data, which is a download of its own
        if not any(clip.split == split for clip in clips) and (part == "dev" or wanted):
            names = "|".join(wanted or row.test_folders)
            found = _contents(folder / names) if (folder / names).is_dir() else _contents(folder)
            raise BadInput(
                f"{root}: machine '{folder.name}' has no {split} clips: expected wav, flac or ogg files in "
                f"{folder.relative_to(root).as_posix()}/{names}; found {found}"
            )
    if problem := renaming_problem(row, folder):
        raise BadInput(problem)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith((".", "__")))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read: {error.strerror or error}") from None


def _subfolders(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder) if (folder / name).is_dir()]


def audio_names(folder: Path) -> list[str]:
    """By the name alone: what is named as audio but is none, a dangling link for instance, is for the store to name."""
    endings = tuple(f".{kind}" for kind in EXTENSIONS)
    return [name for name in _names(folder) if name.lower().endswith(endings)] if folder.is_dir() else []


def _contents(folder: Path) -> str:
    names = _names(folder)
    return "nothing" if not names else ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
