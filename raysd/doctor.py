"""What this machine has for raysd, what will not work, and the fix. No Ray: `scale/doctor.py` asks whole clusters."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from raysd import machine
from raysd.data.audio import Unusable, decode
from raysd.data.layouts import YEARS, Clip, scan
from raysd.data.store import Data, known_fingerprint, open_store
from raysd.errors import BadInput
from raysd.machine import GIB, NAMED, Finding, State, one_line, size
from raysd.results.storage import is_uri, redacted
from raysd.results.store import Results
from raysd.weights import known_here

NO_DISK, LITTLE_DISK = GIB // 4, 5 * GIB


@dataclass(frozen=True)
class Ask:
    """What is looked at beside the machine itself."""

    results: str | Path
    """A folder, or object storage."""
    cache: Path
    data_root: Path | None = None
    year: int | None = None
    """None: the first whose layout and names fit."""


@dataclass(frozen=True)
class Report:
    """The findings about one machine, or about a cluster and each of its nodes."""

    about: str
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    """By place: the machine; or the cluster, then each node."""

    def count(self) -> dict[str, int]:
        """How many findings have each state."""
        states = [finding.state for some in self.findings.values() for finding in some]
        return {state.value: states.count(state) for state in State}

    @property
    def works(self) -> bool:
        """Nothing was found that will not work; what was not checked may still not."""
        return not self.count()[State.fails]


@dataclass(frozen=True)
class Corpus:
    """The clips below a data root, as they lie there."""

    root: Path
    years: list[int]
    """Those whose layout and names they have; the first is the one by which they were read."""
    clips: list[Clip]
    sizes: list[int]
    """Bytes of each clip."""

    @property
    def digest(self) -> str:
        """Names the listing: path, meaning and size of every file, whenever it was copied there."""
        lines = [f"{clip!r}{num_bytes}\n" for clip, num_bytes in zip(self.clips, self.sizes, strict=True)]
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def examine_here(ask: Ask) -> Report:
    """The findings about this machine."""
    return Report("this machine", {"this machine": examine(ask, read_corpus(ask))})


def examine(ask: Ask, corpus: Corpus | BadInput | None) -> list[Finding]:
    """All checks of the machine on which this runs, with its `read_corpus(ask)`; nothing is left behind.

    A check that could not be made says so.
    """
    checks: dict[str, Callable[[], Finding]] = {
        "python": machine.python,
        "raysd": machine.this_package,
        **{name: partial(machine.package, name) for name in NAMED},
        "packages": machine.packages,
        "cores": machine.cores,
        "memory": machine.memory,
        "GPUs": machine.gpus,
        "C++ compiler": machine.compiler,
        "/dev/shm": machine.shared_memory,
        "open files": machine.open_files,
        "clock": machine.clock,
        "data": partial(data, corpus),
        "store": partial(store, corpus, ask.cache),
        "cache": partial(cache, ask.cache),
        "weights": partial(weights, ask.cache),
        "results": partial(results, ask.results),
    }
    return [_guarded(name, check) for name, check in checks.items()]


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # the other checks are still worth making
        return Finding(name, f"could not be checked: {one_line(error)}", State.unknown)


def read_corpus(ask: Ask) -> Corpus | BadInput | None:
    """The clips of the data root; or why they cannot be used; or None where none was given."""
    root = ask.data_root
    if root is None:
        return None
    fitting: dict[int, list[Clip]] = {}
    problems: dict[int, BadInput] = {}
    for year in YEARS if ask.year is None else (ask.year,):
        try:
            fitting[year] = scan(root, year)
        except BadInput as error:
            problems[year] = error
        except OSError as error:
            return BadInput(f"{error.filename or root}: cannot be read: {error.strerror or error}")
    if not fitting:
        return problems[Data().year if ask.year is None else ask.year]
    clips = next(iter(fitting.values()))
    try:
        return Corpus(root, list(fitting), clips, [(root / clip.path).stat().st_size for clip in clips])
    except OSError as error:
        return BadInput(f"{error.filename}: cannot be read: {error.strerror}")


def data(corpus: Corpus | BadInput | None) -> Finding:
    """Whether the data root has the layout of a year, and its first clip can be decoded."""
    if corpus is None:
        return Finding("data", "no data root was given", State.unknown, "give --data-root, or set RAYSD_DATA_ROOT")
    if isinstance(corpus, BadInput):
        return Finding("data", str(corpus), State.fails, "give --data-root (and --year) of the data to be trained on")
    first = corpus.root / corpus.clips[0].path
    try:
        decode(first, Data().sample_rate_hz, Data().channel)
    except Unusable as error:
        fix = "mend or remove the clip; --skip-bad leaves such clips out"
        return Finding("data", f"{first}: {error}", State.fails, fix)
    machines, years = sorted({clip.machine for clip in corpus.clips}), " or ".join(map(str, corpus.years))
    found = f"{corpus.root}: {len(corpus.clips):,} clips of {', '.join(machines)} in the layout of {years}"
    return Finding("data", f"{found}, {size(sum(corpus.sizes))}", State.ok)


def store(corpus: Corpus | BadInput | None, folder: Path) -> Finding:
    """Whether the clips are decoded already, as the default settings ask."""
    if not isinstance(corpus, Corpus):
        return Finding("store", "not known without data", State.unknown, "give --data-root of usable data")
    data = Data.model_validate({"year": corpus.years[0]})
    try:
        fingerprint = known_fingerprint(corpus.root, data, folder)
        if fingerprint is not None:
            open_store(corpus.root, data, folder).verify()
    except BadInput as error:
        return Finding("store", str(error), State.fails, "as it says; then raysd plan builds it")
    if fingerprint is None:
        found, needed = f"not built: the first run decodes {len(corpus.clips):,} clips", sum(corpus.sizes)
        free = shutil.disk_usage(_there(folder)).free
        if free < needed:  # decoded they take about as much as they do now, compressed ones more
            fix = "free some space, or choose another disk with --cache"
            return Finding("store", f"{found} of {size(needed)}, but {size(free)} are free", State.fails, fix)
        return Finding("store", found, State.ok)
    return Finding("store", f"built, all samples as decoded; the data's fingerprint is {fingerprint}", State.ok)


def cache(folder: Path) -> Finding:
    """Whether decoded clips can be kept."""
    there = _there(folder)
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"probe")
    except OSError as error:
        fix = "choose another folder with --cache, best on a disk of the machine's own"
        return Finding("cache", f"{folder}: nothing can be written: {error.strerror}", State.fails, fix)
    return _room("cache", folder)


def weights(folder: Path) -> Finding:
    """Which published weights of encoders are on this machine."""
    try:
        here = known_here(folder)
    except BadInput as error:
        return Finding("weights", str(error), State.fails, "as it says")
    found = ", ".join(f"{name} {'' if done else 'not yet '}verified" for name, done in here.items())
    return Finding("weights", found or "none are here; a study that names some fetches them", State.ok)


def results(root: str | Path) -> Finding:
    """Whether results can be kept: in a folder that is there or can be made, or in object storage."""
    try:
        Results(root if is_uri(root) else _there(Path(root))).writable()
    except BadInput as error:
        return Finding("results", str(error), State.fails, "as it says; --results gives the place")
    if is_uri(root):
        return Finding("results", f"{redacted(str(root))}: writable", State.ok)
    return _room("results", Path(root))


def _room(check: str, folder: Path) -> Finding:
    free = shutil.disk_usage(_there(folder)).free
    found, fix = f"{folder}: writable, {size(free)} free", f"free some space, or choose another disk with --{check}"
    if free < NO_DISK:
        return Finding(check, found, State.fails, fix)
    return Finding(check, found, State.warning, fix) if free < LITTLE_DISK else Finding(check, found, State.ok)


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that exists: a check makes none."""
    return next(path for path in (folder, *folder.parents) if path.exists())
