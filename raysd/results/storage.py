"""Files below a results root: a folder, local or of a shared file system, or a prefix in object storage.

Wherever it is, a file appears whole or not at all. Names are relative to the root, with forward slashes; a file whose
name starts with a point is being written, and no listing shows it.
"""

import os
import re
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import pyarrow as pa
from filelock import FileLock, Timeout
from pyarrow import fs

from raysd.errors import BadInput, nearest
from raysd.results.patience import StorageError

S3_OPTIONS = ("region", "scheme", "endpoint_override", "tls_ca_file_path")
"""What may stand behind the question mark of s3://BUCKET/FOLDER?...; gs:// has pyarrow's own options."""
CONNECT_SECONDS, ANSWER_SECONDS, GS_SECONDS = 3, 10, 15
"""How long a server may take to be there (S3), to answer (S3), and to do either with all retries (GS)."""
_HIDDEN = (".tmp", ".probe")  # how files end that are being written, or try whether one can be
AT_ONCE = 32
"""Files that are read at once: object storage answers late, but many together."""


@dataclass(frozen=True)
class Detail:
    """What a listing tells of a file."""

    num_bytes: int
    modified: datetime


class Storage(ABC):
    """The files below one root; `str()` gives it without credentials, for messages. Trouble raises StorageError."""

    @abstractmethod
    def exists(self, name: str) -> bool: ...

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """A whole file, never a mixture of two versions; None where there is none."""

    @abstractmethod
    def write_new(self, name: str, content: bytes) -> bool:
        """Makes a file appear whole, unless it is there: then False, and nothing changes.

        Of two writers at the same moment the first wins in a folder; in object storage, and on a file system without
        hard links, the last does, and both are told True.
        """

    @abstractmethod
    def replace(self, name: str, content: bytes) -> None:
        """Makes a file appear whole, in the place of the one that is there."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Removes a file, if it is there."""

    @abstractmethod
    def delete_folder(self, name: str) -> None:
        """Removes a folder, if it is there, and its lock."""

    @abstractmethod
    def lock(self, name: str, wait: bool = True) -> AbstractContextManager[bool]:
        """Held by one process at a time, the others wait; a killed process lets go of it. Object storage has none.

        It stands beside the folder `name`, so that the folder can be removed while it is held. Gives whether it is
        held: without `wait` another process may hold it.
        """

    @abstractmethod
    def names(self, folder: str, suffix: str) -> list[str]:
        """The files below a folder whose names end so, in order; one listing, however many there are."""

    @abstractmethod
    def details(self, folder: str, suffix: str) -> dict[str, Detail]:
        """The same with what is known of each."""

    @abstractmethod
    def left_overs(self) -> dict[str, Detail]:
        """The files below the root that no listing shows: what is being written, and what killed writers left."""

    @abstractmethod
    def for_arrow(self, names: Sequence[str]) -> tuple[list[str], fs.FileSystem]:
        """Paths and file system, as pyarrow's readers want them."""


def open_storage(root: str | Path) -> Storage:
    """The files below a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.

    For object storage the server is asked for the bucket, once a process. Raises StorageError where there is no answer,
    and BadInput for an address that cannot be one.
    """
    return _Bucket(root) if is_uri(root) else _Folder(Path(root))


def is_uri(root: str | Path) -> bool:
    """Whether a results root is in object storage; anything else is a folder."""
    return isinstance(root, str) and "://" in root


def absolute(root: str | Path) -> str | Path:
    """A results root as other processes may be told it: a URI unchanged, a folder from the top."""
    return root if is_uri(root) else Path(root).resolve()


def redacted(text: str) -> str:
    """`text` without the credentials that URIs in it carry (s3://KEY:SECRET@BUCKET, even where written wrongly)."""
    return re.sub(r"://(?:[^/\s@]*:\S*@|[^/\s@]*@)", "://***@", text)


class _Folder(Storage):
    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def exists(self, name: str) -> bool:
        return os.path.isfile(self._root / name)  # False, not an error, where it may not be looked at

    def read(self, name: str) -> bytes | None:
        path = self._root / name
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError.of(f"{path}: cannot be read: {error.strerror}; make it readable", error) from None

    def write_new(self, name: str, content: bytes) -> bool:
        path = self._root / name
        if os.path.exists(path):
            return False
        with self._hidden(path, content) as hidden:
            try:
                os.link(hidden, path)  # unlike a rename, never replaces what another writer put there
            except FileExistsError:
                return False
            except OSError:  # a file system without hard links
                os.replace(hidden, path)
        return True

    def replace(self, name: str, content: bytes) -> None:
        path = self._root / name
        with self._hidden(path, content) as hidden:
            os.replace(hidden, path)

    def delete(self, name: str) -> None:
        with suppress(OSError):  # Windows keeps a file that is open
            (self._root / name).unlink()

    def delete_folder(self, name: str) -> None:
        shutil.rmtree(self._root / name, ignore_errors=True)
        self.delete(f"{name}.lock")

    @contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[bool]:
        path = self._root / f"{name}.lock"
        _make(path.parent)
        lock = FileLock(path, blocking=wait)
        try:
            with suppress(Timeout):
                lock.acquire()
        except OSError as error:
            raise _unkept(path.parent, error) from None
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def names(self, folder: str, suffix: str) -> list[str]:
        return self._names(folder, suffix, hidden=False)

    def _names(self, folder: str, suffixes: str | tuple[str, ...], hidden: bool) -> list[str]:
        found = []
        for top, _, files in os.walk(self._root / folder):
            below = Path(top).relative_to(self._root).as_posix()
            within = "" if below == "." else f"{below}/"
            found += [within + name for name in files if name.endswith(suffixes) and name.startswith(".") == hidden]
        return sorted(found)

    def details(self, folder: str, suffix: str) -> dict[str, Detail]:
        return self._details(self.names(folder, suffix))

    def left_overs(self) -> dict[str, Detail]:
        return self._details(self._names("", _HIDDEN, hidden=True))

    def _details(self, names: Iterable[str]) -> dict[str, Detail]:
        found = {}
        for name in names:
            with suppress(FileNotFoundError):  # a checkpoint is removed when its training is finished
                stat = os.stat(f"{self._root}/{name}")
                found[name] = Detail(stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))
        return found

    def for_arrow(self, names: Sequence[str]) -> tuple[list[str], fs.FileSystem]:
        return [f"{self._root}/{name}" for name in names], fs.LocalFileSystem()

    @contextmanager
    def _hidden(self, path: Path, content: bytes) -> Iterator[Path]:
        """A whole file beside `path`, to be given its name; a writer that is killed leaves it hidden, or nothing."""
        _make(path.parent)
        hidden = path.parent / f".{path.stem}.{uuid.uuid4().hex}.tmp"
        try:
            with hidden.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave a name without its content
            yield hidden
            _sync(path.parent)
        except OSError as error:
            raise _unkept(path.parent, error) from None
        finally:
            with suppress(OSError):
                hidden.unlink()


class _Bucket(Storage):
    def __init__(self, uri: str | Path) -> None:
        parts = _split(str(uri))
        self._name = f"{parts.scheme}://{_path(parts)}"
        self._fs, self._path = _connect(str(uri))

    def __str__(self) -> str:
        return self._name

    def exists(self, name: str) -> bool:
        with self._asked(name):
            return self._fs.get_file_info(f"{self._path}/{name}").type == fs.FileType.File

    def read(self, name: str) -> bytes | None:
        path = f"{self._path}/{name}"
        with self._asked(name):
            while True:
                try:
                    with self._fs.open_input_file(path) as file:
                        content = file.read()  # in one request, so of one version; but as long as the one before it
                except FileNotFoundError:
                    return None
                if self._fs.get_file_info(path).size in (len(content), None):
                    return content

    def write_new(self, name: str, content: bytes) -> bool:
        if self.exists(name):
            return False
        self.replace(name, content)
        return True

    def replace(self, name: str, content: bytes) -> None:
        with self._asked(name), self._fs.open_output_stream(f"{self._path}/{name}", compression=None) as file:
            file.write(content)  # in one piece: an error between two would close, and so show, half a file

    def delete(self, name: str) -> None:
        with self._asked(name), suppress(FileNotFoundError):
            self._fs.delete_file(f"{self._path}/{name}")

    def delete_folder(self, name: str) -> None:
        path = f"{self._path}/{name}"
        with self._asked(name), suppress(FileNotFoundError):
            if self._fs.get_file_info(path).type != fs.FileType.NotFound:
                self._fs.delete_dir(path)

    def lock(self, name: str, wait: bool = True) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def names(self, folder: str, suffix: str) -> list[str]:
        return list(self.details(folder, suffix))

    def details(self, folder: str, suffix: str) -> dict[str, Detail]:
        return self._files(folder, suffix, hidden=False)

    def left_overs(self) -> dict[str, Detail]:
        return self._files("", _HIDDEN, hidden=True)

    def _files(self, folder: str, suffixes: str | tuple[str, ...], hidden: bool) -> dict[str, Detail]:
        selector = fs.FileSelector(f"{self._path}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
        with self._asked(folder):
            found = self._fs.get_file_info(selector)
        return {
            info.path.removeprefix(f"{self._path}/"): Detail(info.size, info.mtime)
            for info in sorted(found, key=lambda info: info.path)
            if info.is_file and info.base_name.endswith(suffixes) and info.base_name.startswith(".") == hidden
        }

    def for_arrow(self, names: Sequence[str]) -> tuple[list[str], fs.FileSystem]:
        return [f"{self._path}/{name}" for name in names], self._fs

    def _asked(self, name: str) -> AbstractContextManager[None]:
        return _in_one_line(f"{self}/{name}")


@lru_cache(maxsize=8)  # connections are kept from trial to trial
def _connect(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, and the path in it; the server has answered."""
    parts = _split(uri)
    path = _path(parts)
    bucket = path.partition("/")[0]
    pa.set_io_thread_count(max(AT_ONCE, pa.io_thread_count()))
    with _in_one_line(f"{parts.scheme}://{path}"):
        if parts.scheme == "gs":
            options = {"retry_limit_seconds": str(GS_SECONDS), **dict(parse_qsl(parts.query))}
            found, _ = fs.FileSystem.from_uri(parts._replace(query=urlencode(options)).geturl())
            found.get_file_info(fs.FileSelector(path, allow_not_found=True))
            return found, path
        found = fs.S3FileSystem(**_s3_options(parts, bucket))
        if found.get_file_info(bucket).type == fs.FileType.NotFound:
            raise StorageError(f"s3://{path}: there is no bucket '{bucket}'; make it, or correct its name")
        return found, path


def _s3_options(parts: SplitResult, bucket: str) -> dict[str, Any]:
    """Arguments of S3FileSystem, as pyarrow takes them from a URI, but with limits to the time that it waits."""
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    for unknown in options.keys() - set(S3_OPTIONS):
        raise BadInput(f"{redacted(parts.geturl())}: unknown option '{unknown}'; {nearest(unknown, S3_OPTIONS)}")
    environ = os.environ
    endpoint = options.get("endpoint_override") or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    region = options.get("region")
    if region is None and endpoint:  # only Amazon's own servers can be asked for it
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    options |= {"endpoint_override": endpoint, "region": region or fs.resolve_s3_region(bucket)}
    credentials, at, _ = parts.netloc.rpartition("@")
    if at:
        key, _, secret = credentials.partition(":")
        options |= {"access_key": unquote(key), "secret_key": unquote(secret)}
    waits = {"connect_timeout": CONNECT_SECONDS, "request_timeout": ANSWER_SECONDS}
    return options | waits | {"allow_delayed_open": True}  # one request for a small file instead of three


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme not in ("s3", "gs"):
        raise BadInput(
            f"{redacted(uri)}: results cannot be kept there; give a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
        )
    bucket = parts.netloc.rpartition("@")[2]
    if not bucket or ":" in bucket:
        raise BadInput(
            f"{redacted(uri)}: no bucket is named; give {parts.scheme}://BUCKET/FOLDER, credentials in the environment"
        )
    return parts


def _path(parts: SplitResult) -> str:
    """BUCKET/FOLDER."""
    return f"{parts.netloc.rpartition('@')[2]}/{unquote(parts.path).strip('/')}".rstrip("/")


@contextmanager
def _in_one_line(place: str) -> Iterator[None]:
    """Trouble with object storage as the user is told it."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        names = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if place.startswith("gs:"):
            names = "GOOGLE_APPLICATION_CREDENTIALS"
        trouble = StorageError(
            f"{place}: object storage refused this, or did not answer: {shorten(redacted(str(error)), 300)}; check the "
            f"address, the network, and the credentials ({names}, or the machine's own)"
        )
        trouble.passing = True
        raise trouble from None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unkept(folder, error) from None


def _unkept(folder: Path, error: OSError) -> StorageError:
    return StorageError.of(f"{folder}: results cannot be kept there: {error.strerror}; choose another folder", error)


def _sync(folder: Path) -> None:
    with suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
