"""Corpora to pre-train on: a copy of AudioSet, or any folder of recordings. No machines, no sections, no labels used.

AudioSet is published as lists of segments of videos, `# YTID, start_seconds, end_seconds, positive_labels` with labels
in quotes and three lines of comment on top (research.google.com/audioset/download.html). Its sounds are downloaded by
each user, so that some are always missing, and every downloader has its own names for the clips.
"""

import csv
import json
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from raysd.data.layouts import Clip
from raysd.data.years import EXTENSIONS
from raysd.errors import BadInput, nearest
from raysd.settings import Settings

Segment = tuple[str, int]
"""A video's id, and the start in milliseconds."""
LABELS, ONTOLOGY = "class_labels_indices.csv", "ontology.json"
_YTID = r"[A-Za-z0-9_-]{11}"
# the id, perhaps behind a Y (an id may begin with a minus), then where the segment starts and ends
_CLIP = re.compile(rf"Y?(?P<ytid>{_YTID})(?:[_-](?P<start>[0-9]+(?:\.[0-9]+)?)(?:[_-][0-9]+(?:\.[0-9]+)?)?)?")


@dataclass(frozen=True)
class Listed:
    """What is there of one list of segments."""

    name: str
    """Of its file."""
    wanted: int
    """Segments of the classes that were asked for."""
    paths: frozenset[str] = field(repr=False)
    """The clips that are there."""

    @property
    def there(self) -> int:
        return len(self.paths)

    @property
    def missing(self) -> int:
        return self.wanted - self.there

    def __str__(self) -> str:
        return f"{self.there:,} of {self.wanted:,} clips of {self.name} are there; {self.missing:,} missing"


@dataclass(frozen=True)
class Survey:
    """The clips of a corpus that are there, for `open_store`, and what is missing."""

    corpus: "AudioSet | Folder"
    clips: list[Clip] = field(repr=False)
    """Sorted by path."""
    lists: tuple[Listed, ...] = ()

    @property
    def sample_rate_hz(self) -> int:
        return self.corpus.sample_rate_hz

    @property
    def channel(self) -> int | Literal["mean"]:
        return self.corpus.channel

    @property
    def dtype(self) -> Literal["int16", "float16"]:
        return self.corpus.dtype

    def scan(self, root: Path) -> list[Clip]:
        """The clips, which were looked for already."""
        return self.clips

    def require(self, root: Path, clips: list[Clip]) -> None:
        """Raises BadInput for fewer than two, which are no contrast."""
        if len(clips) < 2:
            raise BadInput(f"{root}: {len(clips)} clips can be used; a pretraining needs two at least")


class _Corpus(Settings):
    """What all corpora have."""

    licence: Annotated[str, Field(min_length=1)] = "unknown"
    """The licence of the recordings, which goes with the weights that are made of them."""
    sample_rate_hz: Annotated[int, Field(gt=0)] = 16_000
    """Rate to which all clips are resampled."""
    channel: Annotated[int, Field(ge=0)] | Literal["mean"] = "mean"
    """Which channel of a recording with several is used, counted from 0; or their mean."""
    dtype: Literal["int16", "float16"] = "int16"
    """How samples are kept."""
    shards: Annotated[int, Field(ge=1)] = 1
    """Parts into which the corpus is cut, by the clips' paths, so that each worker decodes and reads only its own. A
    batch has equally many items of each, and a clip is mixed with others of its shard, which changes the numbers."""


class AudioSet(_Corpus):
    """Clips that lists of AudioSet name, in any subfolder of the data root.

    A clip of a segment may be named `<YTID>`, `<YTID>_<start>` or `<YTID>_<start>_<end>`, in seconds or milliseconds,
    with or without a Y before it, as wav, flac or ogg. The lists lie in any subfolder, too.
    """

    name: Literal["audioset"] = "audioset"
    lists: Annotated[tuple[str, ...], Field(min_length=1)] = ("balanced_train_segments.csv",)
    """The lists whose segments are used, by the names of their files."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Only segments that are labelled with one of these, by display name (`Mechanical fan`, which is looked up in
    class_labels_indices.csv) or id (`/m/02x984l`). null: all."""
    children: bool = False
    """true: a class stands for all classes below it, too, by the ontology.json under the data root."""

    @field_validator("lists", "classes")
    @classmethod
    def _canonical(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(dict.fromkeys(names))

    def survey(self, root: Path) -> Survey:
        """What there is of the lists. Raises BadInput for a list or class that is unknown, and where no clip is."""
        audio, named = _walk(root, {*self.lists, LABELS, ONTOLOGY})
        wanted = None if self.classes is None else _mids(root, self.classes, self.children, named)
        own = {
            name: {one for one, labels in _list(root, name, named) if _is_wanted(labels, wanted)} for name in self.lists
        }
        starts = dict[str, list[int]]()
        for ytid, start_ms in sorted(set().union(*own.values())):
            starts.setdefault(ytid, []).append(start_ms)
        found = dict[Segment, str]()
        for path in audio:
            said = _CLIP.fullmatch(os.path.splitext(os.path.basename(path))[0])
            if said is None:
                continue
            for start_ms in starts.get(said["ytid"], ()):
                if _is_start(said["start"], start_ms):
                    found.setdefault((said["ytid"], start_ms), path)  # where it is there under two names: the first
        paths = sorted(set(found.values()))
        lists = tuple(
            Listed(name, len(of_list), frozenset(found[one] for one in of_list & found.keys()))
            for name, of_list in own.items()
        )
        if not paths:
            if not starts:
                raise BadInput(f"{root}: corpus.classes: no clip of {', '.join(self.lists)} is of one of them")
            raise BadInput(
                f"{root}: {'; '.join(map(str, lists))}; expected files such as <YTID>.wav or Y<YTID>_<start>.flac "
                f"below it, found {len(audio):,} {', '.join(EXTENSIONS)} files"
            )
        return Survey(self, [_clip(path) for path in paths], lists)


class Folder(_Corpus):
    """All wav, flac and ogg files in a folder and its subfolders."""

    name: Literal["folder"] = "folder"

    def survey(self, root: Path) -> Survey:
        """All of them. Raises BadInput where there are none."""
        audio, _ = _walk(root, ())
        if not audio:
            raise BadInput(f"{root}: no {', '.join(EXTENSIONS)} file in it or below")
        return Survey(self, [_clip(path) for path in audio])


Corpus = Annotated[AudioSet | Folder, Field(discriminator="name")]


def _clip(path: str) -> Clip:
    return Clip(path, "", "", "dev", "train", None, None, ())


def _walk(root: Path, names: Collection[str]) -> tuple[list[str], dict[str, Path]]:
    """All audio files below `root`, relative to it and sorted, and the first file of each of `names`.

    Links to folders are followed, each folder once. What is hidden is left out.
    """
    if not root.is_dir():
        raise BadInput(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; expected one with recordings")
    audio, named, seen = list[str](), dict[str, Path](), set[tuple[int, int]]()
    endings = tuple(f".{kind}" for kind in EXTENSIONS)
    for top, below, files in os.walk(root, followlinks=True, onerror=_unreadable):
        here = os.stat(top)
        if (here.st_dev, here.st_ino) in seen:
            below.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        below[:] = sorted(name for name in below if not name.startswith((".", "__MACOSX")))
        prefix = Path(top).relative_to(root).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        audio += [prefix + name for name in files if name.lower().endswith(endings) and not name.startswith(".")]
        for name in names:
            if name in files:
                named.setdefault(name, Path(top, name))
    return sorted(audio), named


def _unreadable(error: OSError) -> None:
    raise BadInput(f"{error.filename}: cannot be read: {error.strerror}")


def _list(root: Path, name: str, named: dict[str, Path]) -> Iterator[tuple[Segment, list[str]]]:
    """The segments of a list with their labels."""
    if name not in named:
        there = sorted({path.name for path in root.rglob("*.csv")} - {LABELS})
        hint = nearest(name, there) if there else "get it from research.google.com/audioset/download.html"
        raise BadInput(f"{root}: corpus.lists: no {name} below it; {hint}")
    path = named[name]
    for number, cells in _rows(path):
        if cells[0].startswith("#") or cells[0] == "YTID":
            continue
        try:
            ytid, start, _, labels = cells
            yield (ytid, round(1000 * float(start))), labels.split(",")
        except (ValueError, OverflowError):
            example = '-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"'
            raise BadInput(f"{path}: line {number}: expected a line such as '{example}'") from None


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file that are not empty, with their numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            yield from ((reader.line_num, cells) for cells in reader if cells)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read as CSV: {error}") from None


def _is_wanted(labels: list[str], wanted: Collection[str] | None) -> bool:
    return wanted is None or any(label.strip() in wanted for label in labels)


def _is_start(said: str | None, start_ms: int) -> bool:
    """Whether a name says this start, in seconds, perhaps without their fraction, or in milliseconds; or none."""
    return said is None or float(said) in (start_ms / 1000, start_ms // 1000, start_ms)


def _mids(root: Path, classes: tuple[str, ...], children: bool, named: dict[str, Path]) -> set[str]:
    """The ids of classes that are given by display name or id, and, if asked, of those below them."""
    of_name = dict[str, str]()
    if not all(_is_mid(one) for one in classes):
        if LABELS not in named:
            raise BadInput(
                f"{root}: corpus.classes: no {LABELS} below it; put it there, or give ids such as /m/02x984l"
            )
        of_name = {cells[2]: cells[1] for _, cells in _rows(named[LABELS]) if len(cells) == 3}
    for one in classes:
        if not _is_mid(one) and one not in of_name:
            raise BadInput(f"corpus.classes: '{one}' is not in {named[LABELS]}; {nearest(one, of_name)}")
    found = [of_name.get(one, one) for one in classes]
    if children:
        below = _children(root, named)
        for mid in found:  # which grows meanwhile
            found += [child for child in below.get(mid, ()) if child not in found]
    return set(found)


def _is_mid(name: str) -> bool:
    return bool(re.match(r"/[a-z]/", name))


def _children(root: Path, named: dict[str, Path]) -> dict[str, list[str]]:
    if ONTOLOGY not in named:
        raise BadInput(
            f"{root}: corpus.children needs AudioSet's {ONTOLOGY} below it; put it there, or set it to false"
        )
    try:
        content = json.loads(named[ONTOLOGY].read_text(encoding="utf-8"))
        return {entry["id"]: list(entry["child_ids"]) for entry in content}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{named[ONTOLOGY]}: cannot be read as AudioSet's ontology: {error}") from None
