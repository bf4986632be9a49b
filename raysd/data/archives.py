"""Zip archives from outside -> files. Nothing is written outside the folder, and nothing but files and folders."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from rich.filesize import decimal

from raysd.errors import BadInput

MAX_EXPANSION = 10
"""How many times its own size an archive may unpack to: recordings of machines reach 1.5, a zip bomb thousands."""


class BadArchive(BadInput):
    """An archive that is not what it should be."""


def unpack(
    archive: Path,
    folder: Path,
    inside: Callable[[str], str | None] = lambda name: name,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpacks a zip archive into `folder`, which must not exist.

    `inside` gives the place of an entry below the folder, from its name in the archive; None leaves it out.
    `progress(done, total)` is called with each file, in bytes; it may raise to stop.

    Raises BadArchive before anything is written where an entry's name is absolute or leads out of the folder, where an
    entry is a link, another special file or encrypted, and where all of it is more than `MAX_EXPANSION` times as large
    as the archive; later where it turns out to be damaged. Raises BadInput where the disk has no room for all of it.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            for entry in entries:
                _refuse(archive, entry)
            total = sum(entry.file_size for entry in entries)
            if total > MAX_EXPANSION * archive.stat().st_size:
                raise BadArchive(f"{archive}: not unpacked: {decimal(total)} in so small an archive are no recordings")
            folder.mkdir(parents=True)
            free = shutil.disk_usage(folder).free
            if total > free:
                raise BadInput(f"{folder}: {decimal(total)} to unpack, and {decimal(free)} are free; make room")
            done = 0
            for entry in entries:
                place = inside(entry.filename)
                if place is not None:
                    path = folder / place
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(entry) as source, path.open("xb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                done += entry.file_size
                if progress:
                    progress(done, total)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise BadArchive(f"{archive}: cannot be read as a zip archive: {error}") from None
    except OSError as error:
        raise BadInput(f"{error.filename or archive}: cannot be unpacked: {error.strerror or error}") from None


def _refuse(archive: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive was not made on Unix
    problem = None
    if name.startswith("/") or any(character in name for character in "\\:\0"):
        problem = "has an absolute or foreign name"
    elif ".." in name.split("/"):
        problem = "leads out of its folder"
    elif kind not in (0, stat.S_IFREG):
        problem = "is a link or a special file"
    elif entry.flag_bits & 1:
        problem = "is encrypted"
    if problem:
        raise BadArchive(f"{archive}: not unpacked: its entry {name!r} {problem}")
