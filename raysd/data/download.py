"""Downloads the parts of a DCASE year into the official layout: what is missing, planned first, then brought.

What is there and complete is not touched, what was broken off goes on. An archive or a truth list that somebody put
into `<root>/.downloads/dcase<year>/` is not downloaded: so a machine without network is served.
"""

import os
import queue
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock
from rich.filesize import decimal

from raysd.data.archives import BadArchive
from raysd.data.placing import STATE, Place
from raysd.data.records import DOWNLOADS, RECORDS, SITES, remotes
from raysd.data.transfer import beside, bytes_so_far, checksum_of, fetch, json_at, size_at
from raysd.data.years import YEARS
from raysd.errors import BadInput, nearest

EXPANSION = 1.5
"""How many times its own size an archive is taken to unpack to; archives of real recordings reach 1.3 to 1.4."""


@dataclass(frozen=True)
class Wanted:
    """A file to be brought."""

    place: Place
    url: str
    checksum: str | None
    size_bytes: int | None
    """None where it is not known: for the small truth lists, and where a server does not say."""
    so_far_bytes: int
    """What is here already, of a transfer that was broken off or by hand."""

    @property
    def name(self) -> str:
        """Of the archive or the truth list."""
        return self.place.remote.name


@dataclass(frozen=True)
class Plan:
    """What a download will do."""

    root: Path
    year: int
    wanted: tuple[Wanted, ...]
    complete: tuple[Place, ...]
    foreign: tuple[Place, ...]
    """With clips that are there, but did not come from here: left as they are."""

    @property
    def to_download_bytes(self) -> int:
        """Without those that are here already."""
        return sum(max(0, (one.size_bytes or 0) - one.so_far_bytes) for one in self.wanted)

    @property
    def to_unpack_bytes(self) -> int:
        """An estimate: what archives unpack to is known when they are here."""
        return int(EXPANSION * sum(one.size_bytes or 0 for one in self.wanted if one.place.remote.machine))

    def needed_bytes(self, jobs: int) -> int:
        """Of disk: all that is unpacked, and those archives that are there at once."""
        sizes = sorted((one.size_bytes or 0 for one in self.wanted), reverse=True)
        return max(0, self.to_unpack_bytes + sum(sizes[:jobs]) - sum(one.so_far_bytes for one in self.wanted))


class Watch(Protocol):
    """Is told what happens, by several threads."""

    def downloading(self, name: str, done: int, total: int | None) -> None:
        """Bytes of a file so far, and in all where that is known."""

    def unpacking(self, name: str, done: int, total: int) -> None:
        """Bytes of its contents so far, and in all."""

    def ended(self, name: str, line: str) -> None:
        """A file is in its place."""


def plan_download(
    root: Path, year: int, parts: tuple[str, ...] = DOWNLOADS, machines: tuple[str, ...] = (), jobs: int = 1
) -> Plan:
    """What of a year is missing under `root`, with sizes and checksums as far as Zenodo says them; writes nothing.

    `machines`: only these; none means all. The environment variables RAYSD_ZENODO and RAYSD_GITHUB name mirrors.

    Raises BadInput for a year, part or machine that does not exist, a root that holds another year or lacks clips that
    were once there, a server that cannot be reached, and a disk that is too small.
    """
    _refuse_unknown("year", (str(year),), map(str, RECORDS))
    _refuse_unknown("--parts", parts, DOWNLOADS)
    _refuse_unknown("--machines", machines, YEARS[year].machines)
    others = sorted(path.name for path in (root / STATE).glob("dcase*") if path.name != f"dcase{year}")
    if others:
        raise BadInput(f"{root}: it holds {others[0]}; give each year a folder of its own")
    places = [Place(root, year, remote) for remote in remotes(year, parts, machines)]
    if not places:
        raise BadInput(f"dcase{year} has nothing of {', '.join(machines)} in {', '.join(parts)}; choose other --parts")
    complete = [place for place in places if place.is_complete()]
    foreign = [place for place in places if place.is_foreign()]
    wanted = _wanted([place for place in places if place not in complete and place not in foreign])
    plan = Plan(root, year, tuple(wanted), tuple(complete), tuple(foreign))
    free = shutil.disk_usage(next(folder for folder in (root, *root.absolute().parents) if folder.exists())).free
    needed = plan.needed_bytes(jobs)
    if needed > free:
        raise BadInput(
            f"{root}: the disk is too small: about {decimal(needed)} are needed and {decimal(free)} are free; "
            "choose another --to, or fewer --machines or --parts"
        )
    return plan


def carry_out(plan: Plan, watch: Watch, jobs: int = 1) -> list[str]:
    """Brings what a plan wants, `jobs` files at a time; a line for each that failed, while the others are brought.

    When it is interrupted what is here is kept for the next call.
    """
    for place in plan.complete:
        place.clean()  # what a process left that was killed at the very end
    todo: queue.SimpleQueue[Wanted] = queue.SimpleQueue()
    for wanted in plan.wanted:
        todo.put(wanted)
    stop = threading.Event()
    failures: list[str] = []
    broken: list[BaseException] = []

    def work() -> None:
        while not stop.is_set():
            try:
                _bring(todo.get_nowait(), watch, stop)
            except (queue.Empty, _Stopped):
                return
            except BadInput as error:
                failures.append(str(error))
            except OSError as error:
                failures.append(f"{error.filename or plan.root}: {error.strerror or error}")
            except BaseException as error:
                broken.append(error)
                return

    # daemons, so that one that waits for a silent server does not keep an interrupted command from ending
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(jobs, len(plan.wanted)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        stop.set()
        until = time.monotonic() + 2
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        raise
    if broken:
        raise broken[0]
    return failures


class _Stopped(Exception):
    """The command was interrupted."""


def _bring(wanted: Wanted, watch: Watch, stop: threading.Event) -> None:
    """One file, from the network to its place."""
    place, name = wanted.place, wanted.name

    def downloading(done: int, total: int | None) -> None:
        if stop.is_set():
            raise _Stopped
        watch.downloading(name, done, total)

    def unpacking(done: int, total: int) -> None:
        if stop.is_set():
            raise _Stopped
        watch.unpacking(name, done, total)

    place.arriving.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(beside(place.arriving, ".job.lock")):
        if place.is_complete():  # another process has brought it meanwhile
            return watch.ended(name, "")
        fetch(wanted.url, place.arriving, wanted.checksum, downloading)
        if place.remote.machine is None:
            place.settle_list()
            return watch.ended(name, "")
        try:
            place.settle(wanted.url, wanted.checksum or checksum_of(place.arriving, "md5"), unpacking)
        except BadArchive:
            if wanted.checksum is None:
                place.arriving.unlink(missing_ok=True)  # nothing says that it is what was published
            raise
    count, expected = place.count(), place.expected()
    fits = expected.low <= count and (expected.high is None or count <= expected.high)
    doubt = "" if fits else f"; expected {expected}, and `raysd data verify` says what is missing"
    watch.ended(name, f"{count:,} clips in {', '.join(str(folder) for folder in place.folders())}{doubt}")


def _wanted(places: list[Place]) -> list[Wanted]:
    """Addresses, sizes and checksums of what is missing; asks Zenodo about what is not here."""
    sites = {site: (os.environ.get(f"RAYSD_{site.upper()}") or known).rstrip("/") for site, known in SITES.items()}
    listings: dict[int, dict[str, tuple[int, str]]] = {}
    found = []
    for place in places:
        remote, note = place.remote, place.note()
        url = f"{sites[remote.site]}/{remote.path}"
        checksum = remote.checksum or (note and note.checksum)
        size_bytes = place.arriving.stat().st_size if place.arriving.is_file() else None
        if size_bytes is None and remote.record:
            if remote.record not in listings:
                listings[remote.record] = _listing(f"{sites['zenodo']}/api/records/{remote.record}")
            listing = listings[remote.record]
            if listing and remote.name not in listing:
                raise BadInput(f"{url}: Zenodo's record {remote.record} has no file {remote.name}")
            size_bytes, said = listing[remote.name] if listing else (size_at(url), None)
            if checksum and said and said != checksum:
                raise BadInput(f"{url}: expected {checksum}, and Zenodo's record {remote.record} says {said}")
            checksum = checksum or said
        found.append(Wanted(place, url, checksum, size_bytes, bytes_so_far(place.arriving)))
    return found


def _listing(url: str) -> dict[str, tuple[int, str]]:
    """The files of a record as Zenodo tells them, name -> bytes and "md5:<hex>"; empty where a mirror does not."""
    answer: Any = json_at(url)
    with suppress(TypeError, KeyError, ValueError):
        return {one["key"]: (int(one["size"]), str(one["checksum"])) for one in answer["files"]}
    return {}


def _refuse_unknown(what: str, words: Any, allowed: Any) -> None:
    known = list(allowed)
    for word in words:
        if word not in known:
            raise BadInput(f"{what} {word}: {nearest(word, known)}")
