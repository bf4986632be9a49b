"""Where a published file belongs under a data root, and what of it is there.

Everything on its way is in `<root>/.downloads/dcase<year>/`: archives (raysd/data/transfer.py says how these are
continued), `<archive>.unpacked`, and `<archive>.json`, the note of its checksum and its number of clips, which stays.
An archive is unpacked whole before anything of it is seen, moved to its place by renames, and then deleted.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from raysd.data.archives import BadArchive, unpack
from raysd.data.counts import Count, expected
from raysd.data.records import Remote, sections
from raysd.data.transfer import beside
from raysd.data.years import EXTENSIONS, YEARS
from raysd.errors import BadInput

STATE = ".downloads"


@dataclass(frozen=True)
class Note:
    """What is kept of an archive that was unpacked."""

    archive: str
    url: str
    num_bytes: int
    checksum: str
    clips: int


@dataclass(frozen=True)
class Place:
    """One published file under one data root."""

    root: Path
    year: int
    remote: Remote

    @property
    def arriving(self) -> Path:
        """Where the archive or truth list is downloaded to, or was put by hand."""
        return self.root / STATE / f"dcase{self.year}" / self.remote.name

    @property
    def home(self) -> Path:
        """A machine's folder, or a truth list."""
        if self.remote.machine is None:
            return self.root / self.remote.name
        return self.root / ("dev_data" if self.remote.part == "dev" else "eval_data") / self.remote.machine

    @property
    def splits(self) -> tuple[str, ...]:
        """The folders of clips that an archive has."""
        test = YEARS[self.year].test_folders
        return {"dev": ("train", *test), "additional": ("train",), "eval": test}[self.remote.part]

    def folders(self) -> list[Path]:
        """Those of them that are there, with clips."""
        return [self.home / split for split in self.splits if self.remote.machine and _clips(self.home / split)]

    def count(self) -> int:
        """The clips that are there."""
        return sum(_clips(folder) for folder in self.folders())

    def expected(self) -> Count:
        """The clips that the year's table says there are."""
        counts: list[Count] = []
        machine, part = self.remote.machine or "", "dev" if self.remote.part == "dev" else "eval"
        for section in sections(self.year, machine, self.remote.part):
            known = expected(self.year, part, machine, section)
            if known and self.remote.part != "eval":
                counts.extend(known.train.values())
            if known and self.remote.part != "additional":
                counts.extend([known.test[None, None]] if (None, None) in known.test else known.test.values())
        highs = [count.high for count in counts if count.high is not None]
        return Count(sum(count.low for count in counts), sum(highs) if len(highs) == len(counts) else None)

    def note(self) -> Note | None:
        """What is known of the archive once it was unpacked here."""
        path = beside(self.arriving, ".json")
        try:
            return Note(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise BadInput(f"{path}: cannot be read ({error}); delete it, and {self.home}") from None

    def is_complete(self) -> bool:
        """Whether all of the file is in its place; raises BadInput where clips are gone that were there once."""
        if self.remote.machine is None:
            return self.home.is_file()
        note, count = self.note(), self.count()
        if note and 0 < count < note.clips and not self._unpacked.is_dir():
            raise BadInput(
                f"{self.home}: {note.clips - count:,} of {note.clips:,} clips of {self.remote.name} are gone; "
                f"delete {' and '.join(folder.name for folder in self.folders())}, and they are downloaded again"
            )
        return note is not None and count >= note.clips

    def is_foreign(self) -> bool:
        """Whether clips are there that did not come from here."""
        return bool(self.folders()) and self.note() is None

    def settle(self, url: str, checksum: str, progress: Callable[[int, int], None]) -> None:
        """Unpacks the archive that has arrived and moves what it has to its place; goes on where that was broken off.

        `progress(done, total)` may raise to stop. Raises BadArchive for an archive that is not as it should be.
        """
        if not self._unpacked.is_dir():
            under_way = beside(self.arriving, ".unpacking")
            shutil.rmtree(under_way, ignore_errors=True)
            try:
                self._unpack(under_way, url, checksum, progress)
            except BaseException:
                shutil.rmtree(under_way, ignore_errors=True)
                raise
        with FileLock(self.arriving.with_name("placing.lock")):  # two archives of a machine share its folder
            self._move()
        self.clean()

    def settle_list(self) -> None:
        """Moves a truth list that has arrived to its place, if it is one: a server may send some page instead."""
        lines = self.arriving.read_text(encoding="utf-8", errors="replace").split()
        if any("<" in line for line in lines) or not any(".wav," in line for line in lines):
            self.arriving.unlink()
            raise BadInput(f"{self.arriving}: no truth list was downloaded, with lines such as 'name.wav,0'; deleted")
        self.home.parent.mkdir(parents=True, exist_ok=True)
        self.arriving.replace(self.home)

    def clean(self) -> None:
        """Deletes what has arrived, once it is in its place."""
        shutil.rmtree(self._unpacked, ignore_errors=True)
        self.arriving.unlink(missing_ok=True)

    @property
    def _unpacked(self) -> Path:
        return beside(self.arriving, ".unpacked")

    def _unpack(self, under_way: Path, url: str, checksum: str, progress: Callable[[int, int], None]) -> None:
        unpack(self.arriving, under_way, self._inside, progress)
        clips = sum(_clips(under_way / split) for split in self.splits)
        if not clips:
            raise BadArchive(f"{self.arriving}: no clips in {self.remote.machine}/{' or '.join(self.splits)}")
        note = Note(self.remote.name, url, self.arriving.stat().st_size, checksum, clips)
        written = beside(self.arriving, ".json.tmp")
        written.write_text(json.dumps(asdict(note), indent=2) + "\n", encoding="utf-8")
        written.replace(beside(self.arriving, ".json"))  # before its clips can be seen, which would else be foreign
        under_way.rename(self._unpacked)

    def _inside(self, name: str) -> str | None:
        """Where an entry of the archive belongs below the machine's folder; None for what is no part of the layout."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        above = parts[:-1]
        if self.remote.machine in above:  # archives start with the machine's folder, or with one around it
            parts = parts[len(above) - above[::-1].index(self.remote.machine) :]
        is_clip = len(parts) == 2 and parts[0] in self.splits and not parts[1].startswith(".")
        is_attributes = len(parts) == 1 and parts[0].startswith("attributes_") and parts[0].endswith(".csv")
        return "/".join(parts) if is_clip or is_attributes else None

    def _move(self) -> None:
        self.home.parent.mkdir(parents=True, exist_ok=True)
        if not self.home.exists():
            self._unpacked.rename(self.home)
            return
        for path in sorted(self._unpacked.iterdir()):
            place = self.home / path.name
            if path.is_dir():
                with suppress(OSError):
                    place.rmdir()  # an empty folder is as good as none
                path.rename(place)
            elif self.remote.part != "eval" or not place.exists():  # attributes of training clips tell more
                path.replace(place)


def _clips(folder: Path) -> int:
    endings = tuple(f".{kind}" for kind in EXTENSIONS)
    return sum(name.lower().endswith(endings) for name in os.listdir(folder)) if folder.is_dir() else 0
