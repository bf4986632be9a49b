"""Published weights on this machine: where their files are, fetching them, verifying them, what was said of a licence.

A file is looked for in the folder that the environment variable RAYSD_WEIGHTS names, then in `weights/` of the cache,
and is downloaded there if it is in neither. Its SHA-256 is compared whenever it is used: with the published one, or
where none is published with that of its first use here. `<file>.json` in `weights/` of the cache is the record of the
first use; with it the licence was shown.
"""

import json
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from filelock import FileLock
from rich.filesize import decimal

from raysd.data.transfer import Tell, beside, checksum_of, fetch
from raysd.errors import BadInput, nearest
from raysd.model.published import PUBLISHED, Published

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "RAYSD_WEIGHTS"
"""Environment variable: a folder with files under their published names, which overrides the cache."""


@dataclass(frozen=True)
class _Record:
    """What is known of a file that was used here, as it lay there when it was verified last."""

    sha256: str
    path: str
    num_bytes: int
    modified_ns: int
    licence: str


def weights_file(
    name: str,
    cache: Path,
    progress: Tell | None = None,
    offline: bool = False,
    announce: Callable[[str], None] | None = None,
) -> Path:
    """The verified file of a published checkpoint; downloaded into `<cache>/weights` if it is nowhere.

    `progress` takes the bytes so far and in all. `announce` takes the line about the licence, once a machine (a cache);
    None: standard error. Several processes may ask at once.

    Raises BadInput for an unknown name, for a file that is not what it should be, and where it cannot be downloaded:
    without network (or `offline`), or because its licence forbids raysd to.
    """
    return file_and_sha256(name, cache, progress, offline, announce)[0]


def file_and_sha256(
    name: str,
    cache: Path,
    progress: Tell | None = None,
    offline: bool = False,
    announce: Callable[[str], None] | None = None,
) -> tuple[Path, str]:
    """The same with its SHA-256, for which it was read."""
    published = find(name)
    path = where(published, cache) or _download(published, cache, progress, offline)
    found = _record(published, path, verified(path, published))
    if found == _read_record(published, cache):
        return path, found.sha256
    try:
        weights_folder(cache).mkdir(parents=True, exist_ok=True)
        with FileLock(beside(_record_path(published, cache), ".lock")):
            known = _read_record(published, cache)
            if known and not published.sha256 and known.sha256 != found.sha256:
                raise _wrong(path, published, known.sha256, found.sha256)
            if known is None:
                (announce or _print)(_about_licence(published))
            _write_record(published, cache, found)
    except OSError as error:
        raise BadInput(
            f"{weights_folder(cache)}: cannot be written: {error.strerror or error}; choose another --cache"
        ) from None
    return path, found.sha256


def weights_folder(cache: Path) -> Path:
    """Where downloaded files are kept, and the records of what was used."""
    return cache / "weights"


def find(name: str) -> Published:
    """The row of the table; raises BadInput for a name that it does not have."""
    if name not in PUBLISHED:
        raise BadInput(f"weights {name}: {nearest(name, PUBLISHED)}")
    return PUBLISHED[name]


def where(published: Published, cache: Path) -> Path | None:
    """Where the file is on this machine, verified or not; None where it is absent."""
    own = os.environ.get(FOLDER)
    if own and not Path(own).is_dir():
        raise BadInput(f"{FOLDER}: {own} is no folder; name one with files of weights, or unset it")
    places = [*([Path(own)] if own else []), weights_folder(cache)]
    return next((place / published.file_name for place in places if (place / published.file_name).is_file()), None)


def is_verified(published: Published, path: Path, cache: Path) -> bool:
    """Whether the file was verified here and has not been changed since; reads none of it."""
    known = _read_record(published, cache)
    return known is not None and known == _record(published, path, known.sha256)


def verified(path: Path, published: Published) -> str:
    """The SHA-256 of a file, which is that of the table if it has one; raises BadInput for another file."""
    num_bytes = path.stat().st_size
    if published.num_bytes not in (None, num_bytes):
        raise BadInput(f"{path}: expected {published.num_bytes:,} bytes for {published.name}, found {num_bytes:,}")
    found = _sha256(path)
    if published.sha256 not in (None, found):
        raise _wrong(path, published, published.sha256, found)
    return found


def known_here(cache: Path) -> dict[str, bool]:
    """The names of the published checkpoints whose files are here; whether each is verified."""
    paths = {name: where(published, cache) for name, published in PUBLISHED.items()}
    return {name: is_verified(PUBLISHED[name], path, cache) for name, path in paths.items() if path}


def examine(what: str, cache: Path, announce: Callable[[str], None] | None = None) -> list[str]:
    """Lines about a published checkpoint that is here (`what` is its name), or about a file: where it is, whose bytes
    it has, and which encoder its tensors fit.

    Raises BadInput for a file that is not what it should be, or holds anything but tensors, or other ones.
    """
    if what in PUBLISHED:
        published = PUBLISHED[what]
        path, sha256 = file_and_sha256(what, cache, offline=True, announce=announce)
        whose = "as at its first use here"
    else:
        path = Path(what)
        if not path.is_file():
            raise BadInput(f"{what}: no such file, nor a name in the table of weights: {nearest(what, PUBLISHED)}")
        published = next((row for row in PUBLISHED.values() if row.file_name == path.name), None)
        sha256, whose = verified(path, published) if published else _sha256(path), "of which nothing is known"
    if published and published.sha256:
        whose = f"as published for {published.name}"
    tensors = read_tensors(path)
    fit = _fit(path, tensors, published) if published else f"{len(tensors)} tensors"
    return [str(path), f"{decimal(path.stat().st_size)}, sha256 {sha256}, {whose}", fit]


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """The tensors of a file by their names, on the CPU; those under `state_dict`, if it has that.

    Raises BadInput for a file that cannot be read, or holds anything else: a pickle can run code, so none is loaded.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how old pickles were written
            found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise BadInput(
            f"{path}: not loaded: it holds Python objects, which can run code, or no weights at all"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise BadInput(f"{path}: cannot be read as torch weights: {error}") from None
    state = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInput(f"{path}: expected tensors by name (a state dict), found something else")
    return dict(state)


def _fit(path: Path, tensors: "dict[str, Tensor]", published: Published) -> str:
    """How many of the tensors the row's encoder takes; raises BadInput where they are not those that it has."""
    import torch
    from pydantic import TypeAdapter

    from raysd.model.encoders import Encoder
    from raysd.model.features import Features, num_bands
    from raysd.model.pretrained import Weights, compare

    settings = TypeAdapter[Encoder](Encoder).validate_python(published.encoder)
    with torch.device("meta"):  # names and shapes, no numbers
        encoder = settings.build(num_bands(Features.model_validate(published.features)))
    report = compare(encoder, Weights(published.name, tensors, unused=published.head), head=())
    if report.problems:
        raise BadInput(f"{path}: the tensors are not those of {published.name}: {'; '.join(report.problems)}")
    return f"encoder {settings.name}: {report}"


def _about_licence(published: Published) -> str:
    return (
        f"weights {published.name}: licence {published.licence} ({published.licence_url}); from {published.source}; "
        "this is said once"
    )


def _sha256(path: Path) -> str:
    try:
        return checksum_of(path).removeprefix("sha256:")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from None


def _wrong(path: Path, published: Published, expected: str, found: str) -> BadInput:
    record = f"; or, if it is right, {published.file_name}.json in weights/ of the cache, the record of the first use"
    of, fix = ("of", "") if published.sha256 else ("at the first use of", record)
    return BadInput(f"{path}: expected sha256 {expected} {of} {published.name}, found {found}; remove the file{fix}")


def _download(published: Published, cache: Path, progress: Tell | None, offline: bool) -> Path:
    """The file in the cache. What a server sends instead of it is removed."""
    to = weights_folder(cache) / published.file_name
    by_hand = f"into {to.parent}, or into a folder that {FOLDER} names, as {published.file_name}"
    if published.url is None:
        raise BadInput(
            f"weights {published.name} are not here, and raysd does not download them ({published.licence}: "
            f"{published.licence_url}); where its terms allow your use, get them from {published.source}, and put the "
            f"file {by_hand}"
        )
    fix = f"without network, put the file from {published.url} {by_hand}"
    if offline:
        raise BadInput(f"weights {published.name} are not here: raysd weights fetch {published.name} gets them; {fix}")
    known = _read_record(published, cache)
    expected = published.sha256 or (known and known.sha256)
    try:
        fetch(published.url, to, expected and f"sha256:{expected}", progress)
    except BadInput as error:
        raise BadInput(f"weights {published.name}: {error}; {fix}") from None
    except OSError as error:
        raise BadInput(f"{to.parent}: cannot be written: {error.strerror or error}; choose another --cache") from None
    if expected is None and not zipfile.is_zipfile(to):  # as a network sends its log-in page for anything
        to.unlink(missing_ok=True)
        raise BadInput(f"weights {published.name}: what {published.url} sent is no file of torch's; {fix}")
    return to


def _record_path(published: Published, cache: Path) -> Path:
    return weights_folder(cache) / f"{published.file_name}.json"


def _record(published: Published, path: Path, sha256: str) -> _Record:
    status = path.stat()
    return _Record(sha256, str(path.resolve()), status.st_size, status.st_mtime_ns, published.licence)


def _read_record(published: Published, cache: Path) -> _Record | None:
    with suppress(OSError, ValueError, TypeError):
        return _Record(**json.loads(_record_path(published, cache).read_text(encoding="utf-8")))
    return None


def _write_record(published: Published, cache: Path, record: _Record) -> None:
    path = _record_path(published, cache)
    being_written = beside(path, ".tmp")
    being_written.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    being_written.replace(path)


def _print(line: str) -> None:
    print(line, file=sys.stderr)
