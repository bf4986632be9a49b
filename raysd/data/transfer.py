"""One file over HTTP -> a path: goes on where it was broken off, compares the checksum, becomes visible last.

requests does the transport (proxies, redirects, certificates). pooch, which sits on it too, writes to a temporary file
that it deletes when the transfer breaks off, so that nothing could go on from there; an archive here has gigabytes.

While a file is on its way there are three more beside it. `<name>.part` has the bytes so far and `<name>.part.json`
says of which version of the file they are, so that a process that was killed is no different from a lost connection.
`<name>.lock` lets one process or thread do it while others wait; these find the file there when their turn comes.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
from filelock import FileLock, Timeout
from rich.filesize import decimal

from raysd.errors import BadInput

Tell = Callable[[int, int | None], None]
"""Takes the bytes so far and in all, None where the server does not say. What it raises ends the transfer."""

CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = (15.0, 60.0)  # to connect; without a byte
ATTEMPTS = 6  # in a row that bring nothing new
FIRST_WAIT_SECONDS = 1.0  # doubled with each of these attempts
LONGEST_WAIT_SECONDS = 60.0  # of what a server may ask for
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_HEADERS = {"User-Agent": "raysd", "Accept-Encoding": "identity"}  # compressed, a length would not be the file's


def fetch(url: str, to: Path, checksum: str | None = None, progress: Tell | None = None) -> None:
    """Downloads `url` to the file `to`, whose folder is made; returns when it is there, whole and as expected.

    `checksum`: "md5:<hex>" or "sha256:<hex>". A file that is there already stays, if it has this checksum or if none
    is given. `progress(done, total)` is called with each piece, in bytes, and while waiting; it may raise to stop.

    Raises BadInput, one line, for an address that does not answer or refuses, for a file with another checksum, which
    is deleted, and for a place that cannot be written. What a broken transfer has brought is kept for the next call.
    """
    tell = progress or (lambda done, total: None)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(beside(to, ".lock"))
        _acquire(lock, tell)
        try:
            if to.is_file() and (checksum is None or _like(checksum, to) == checksum):
                return
            _bring(url, to, checksum, tell)
            part = beside(to, ".part")
            if checksum and (found := _like(checksum, part)) != checksum:
                _forget(to)
                raise BadInput(f"{url}: wrong checksum: expected {checksum}, found {found}; the file was deleted")
            part.replace(to)
            _forget(to)
        finally:
            lock.release()
    except OSError as error:
        raise BadInput(f"{to}: cannot be written: {error.strerror or error}") from None


def checksum_of(path: Path, algorithm: str = "sha256") -> str:
    """`<algorithm>:<hex>` of a file; the algorithm is md5 or sha256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


def beside(path: Path, suffix: str) -> Path:
    """`name.zip` -> `name.zip<suffix>`, in the same folder."""
    return path.with_name(path.name + suffix)


def bytes_so_far(to: Path) -> int:
    """How much of a file is there: all of it, or what a transfer that was broken off has left."""
    return _length(to) or _length(beside(to, ".part"))


def size_at(url: str) -> int | None:
    """The bytes of a file on a server, None where it does not say.

    Raises BadInput where the server cannot be reached, or answers that there is no such file.
    """
    response = _asked(requests.head, url, allow_redirects=True)
    if response.status_code in (404, 410):
        raise BadInput(f"{url}: {_status(response)}")
    length = response.headers.get("Content-Length", "")
    return int(length) if response.ok and length.isdigit() else None


def json_at(url: str) -> Any:
    """What a server answers as JSON, None where it has no such answer; raises BadInput where it cannot be reached."""
    response = _asked(requests.get, url)
    with suppress(ValueError):
        return response.json() if response.ok else None


class _Passing(Exception):
    """A problem that may pass: what it is, and the seconds to wait that the server asked for."""


def _bring(url: str, to: Path, checksum: str | None, tell: Tell) -> None:
    """All bytes of the file into its `.part`, in as many attempts as it takes while they bring something."""
    part = beside(to, ".part")
    failures, before = 0, _length(part)
    while True:
        try:
            return _attempt(url, to, checksum, tell)
        except _Passing as passing:
            problem, asked_seconds = passing.args
        have = _length(part)
        failures = 1 if have > before else failures + 1
        before = have
        if failures == ATTEMPTS:
            kept = f"; {decimal(have)} are kept, and the same call goes on from there" if have else ""
            raise BadInput(f"{url}: {problem}, at the {ATTEMPTS}th attempt that brought nothing{kept}")
        until = time.monotonic() + max(FIRST_WAIT_SECONDS * 2 ** (failures - 1), asked_seconds)
        while (left_seconds := until - time.monotonic()) > 0:
            tell(have, _version(to).get("total"))
            time.sleep(min(0.2, left_seconds))


def _attempt(url: str, to: Path, checksum: str | None, tell: Tell) -> None:
    """One request, for what is missing. Raises _Passing where it ends early; what came in stays, whatever happens."""
    part, known = beside(to, ".part"), _version(to)
    have = _length(part)
    if not (known.get("validator") or checksum):
        have = 0  # a file could be pieced together from two versions, and nothing would tell
    if have and have == known.get("total"):
        return
    asked = {"Range": f"bytes={have}-", "If-Range": known.get("validator")} if have else {}
    try:
        with requests.get(url, headers=_HEADERS | asked, stream=True, timeout=TIMEOUT_SECONDS) as response:
            if response.status_code == 416:  # the part is longer than what is there now: another file
                _forget(to)
            if response.status_code in (416, *_PASSING):
                raise _Passing(_status(response), _wait_asked(response))
            if not response.ok:
                raise BadInput(f"{url}: {_status(response)}")
            have, total = _continues(response, have, known.get("total"))
            version = {"validator": _validator(response), "total": total}
            beside(to, ".part.json").write_text(json.dumps(version), encoding="utf-8")
            with part.open("r+b" if have else "wb") as file:
                done = file.seek(have)
                tell(done, total)
                for chunk in response.iter_content(CHUNK_BYTES):
                    done += file.write(chunk)
                    file.flush()  # a killed process loses nothing that it has counted
                    tell(done, total)
    except requests.RequestException as error:
        raise _Passing(_reason(error), 0.0) from None
    if total not in (None, done):
        raise _Passing(f"broken off at {decimal(done)} of {decimal(total)}", 0.0)


def _continues(response: requests.Response, have: int, total: int | None) -> tuple[int, int | None]:
    """From which byte on the answer goes, 0 where the server sends all of the file, and how many the file has."""
    if response.status_code != 206:
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() and not encoded else None
    found = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+)", response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != have or total not in (None, int(found[2])):
        raise _Passing("the server sends another range than it was asked for", 0.0)
    return have, int(found[2])


def _validator(response: requests.Response) -> str | None:
    """What tells this version of the file from others, in the form that If-Range takes; a weak ETag does not count."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _version(to: Path) -> dict[str, Any]:
    """Of which version of the file the part is: its `validator` and its bytes in `total`, where these were said."""
    try:
        found = json.loads(beside(to, ".part.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _forget(to: Path) -> None:
    for suffix in (".part", ".part.json"):
        beside(to, suffix).unlink(missing_ok=True)


def _acquire(lock: FileLock, tell: Tell) -> None:
    while True:
        with suppress(Timeout):
            lock.acquire(timeout=0.5)
            return
        tell(0, None)


def _asked(method: Callable[..., requests.Response], url: str, **options: Any) -> requests.Response:
    """The answer to a short request; a server that is overloaded is asked again."""
    failures = 0
    while True:
        try:
            response = method(url, headers=_HEADERS, timeout=TIMEOUT_SECONDS, **options)
        except requests.RequestException as error:
            raise BadInput(f"{url}: cannot be reached: {_reason(error)}") from None
        if response.status_code not in _PASSING:
            return response
        failures += 1
        if failures == ATTEMPTS:
            raise BadInput(f"{url}: {_status(response)}, {ATTEMPTS} times; try again later")
        time.sleep(max(FIRST_WAIT_SECONDS * 2 ** (failures - 1), _wait_asked(response)))


def _like(checksum: str, path: Path) -> str:
    """The checksum of a file, of the same kind as `checksum`."""
    return checksum_of(path, checksum.partition(":")[0])


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _wait_asked(response: requests.Response) -> float:
    seconds = response.headers.get("Retry-After", "")  # its other form, a date, counts as none
    return min(float(seconds), LONGEST_WAIT_SECONDS) if seconds.isdigit() else 0.0


def _status(response: requests.Response) -> str:
    return f"the server answers {response.status_code} {response.reason or ''}".rstrip()


def _reason(error: requests.RequestException) -> str:
    """The innermost of what the libraries say, such as `Failed to resolve 'zenodo.org' (...)`."""
    cause = error.args[0] if error.args else error
    text = str(getattr(cause, "reason", None) or cause)
    return " ".join(text.split("): ")[-1].split())[:200] or type(error).__name__
