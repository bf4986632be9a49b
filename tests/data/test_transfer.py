"""Files over HTTP: from a server that breaks off, lies, is slow, or is not there."""

import os
import threading
from pathlib import Path

import pytest
from served import Served

from raysd.data.transfer import bytes_so_far, checksum_of, fetch, json_at, size_at
from raysd.errors import BadInput

CONTENT = os.urandom(1_000_000)
OTHER = os.urandom(1_000_000)


@pytest.fixture
def known(tmp_path: Path) -> str:
    """The SHA-256 of the content."""
    (tmp_path / "known").write_bytes(CONTENT)
    return checksum_of(tmp_path / "known")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.zip"


def left(to: Path) -> set[str]:
    """What lies there but the lock."""
    return {path.name for path in to.parent.iterdir()} - {"file.zip.lock"}


def test_a_file_is_brought_with_progress_and_then_left_alone(web: Served, to: Path, known: str) -> None:
    web.files["/file.zip"] = CONTENT
    web.answers["/old"] = [(302, {"Location": "/file.zip"})]
    told: list[tuple[int, int | None]] = []
    fetch(f"{web.url}/old", to, known, lambda done, total: told.append((done, total)))
    assert to.read_bytes() == CONTENT
    assert left(to) == {"file.zip"}
    assert told == sorted(told)
    assert told[-1] == (1_000_000, 1_000_000)
    fetch(f"{web.url}/file.zip", to, known)
    fetch(f"{web.url}/file.zip", to)
    assert len(web.gets("/file.zip")) == 1
    assert size_at(f"{web.url}/file.zip") == 1_000_000


@pytest.mark.parametrize("checksum", [True, False])
def test_goes_on_where_the_connection_broke_off(web: Served, to: Path, known: str, checksum: bool) -> None:
    web.files["/file.zip"] = CONTENT
    web.breaks["/file.zip"] = [300_000, 500_000]
    fetch(f"{web.url}/file.zip", to, known if checksum else None)
    assert to.read_bytes() == CONTENT
    first, *later = web.gets("/file.zip")
    assert first == ""
    starts = [int(given.removeprefix("bytes=").rstrip("-")) for given in later]
    assert starts == sorted(starts)
    assert all(200_000 < start < 500_000 for start in starts)


def begin(url: str, to: Path, checksum: str | None = None) -> None:
    """Brings some 400,000 bytes, then is interrupted."""

    def stop(done: int, total: int | None) -> None:
        if done > 400_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(url, to, checksum, stop)
    assert left(to) == {"file.zip.part", "file.zip.part.json"}
    assert 400_000 < bytes_so_far(to) < 600_000


def test_goes_on_from_what_an_earlier_call_has_left(web: Served, to: Path, known: str) -> None:
    web.files["/file.zip"] = CONTENT
    begin(f"{web.url}/file.zip", to, known)
    fetch(f"{web.url}/file.zip", to, known)
    assert to.read_bytes() == CONTENT
    assert left(to) == {"file.zip"}
    assert [given.partition("=")[0] for given in web.gets("/file.zip")] == ["", "bytes"]


@pytest.mark.parametrize("fault", ["ignores ranges", "another version", "shorter version", "no validator"])
def test_begins_anew_where_it_cannot_go_on(web: Served, to: Path, fault: str) -> None:
    web.files["/file.zip"] = OTHER if "version" in fault else CONTENT
    web.validator = None if fault == "no validator" else "ETag"
    begin(f"{web.url}/file.zip", to)
    web.knows_ranges = fault != "ignores ranges"
    web.files["/file.zip"] = CONTENT[:300_000] if fault == "shorter version" else CONTENT
    fetch(f"{web.url}/file.zip", to)
    assert to.read_bytes() == web.files["/file.zip"]


def test_the_wrong_file_is_named_and_deleted(web: Served, to: Path, known: str) -> None:
    web.files["/file.zip"] = b"<html>Please log in</html>"
    with pytest.raises(BadInput) as raised:
        fetch(f"{web.url}/file.zip", to, known)
    assert f"{web.url}/file.zip: wrong checksum: expected {known}, found sha256:" in str(raised.value)
    assert left(to) == set()
    to.write_bytes(OTHER)  # a wrong file that is there already is replaced, once the right one is here
    with pytest.raises(BadInput):
        fetch(f"{web.url}/file.zip", to, known)
    assert to.read_bytes() == OTHER
    web.files["/file.zip"] = CONTENT
    fetch(f"{web.url}/file.zip", to, known)
    assert to.read_bytes() == CONTENT


def test_an_overloaded_server_is_asked_again(web: Served, to: Path) -> None:
    web.files["/file.zip"] = CONTENT
    web.answers["/file.zip"] = [(503, {}), (429, {"Retry-After": "0"}), (503, {"Retry-After": "Sun, 06 Nov 2050"})]
    fetch(f"{web.url}/file.zip", to)
    assert to.read_bytes() == CONTENT
    web.answers["/down"] = [(503, {})] * 9
    with pytest.raises(BadInput, match="/down: the server answers 503 Service Unavailable, at the 6th attempt"):
        fetch(f"{web.url}/down", to.with_name("down"))
    web.files["/sizes"] = b'{"size": 1}'
    web.answers["/sizes"] = [(429, {}), (503, {})]
    assert json_at(f"{web.url}/sizes") == {"size": 1}
    assert json_at(f"{web.url}/none") is None
    web.answers["/sizes"] = [(429, {})] * 9
    with pytest.raises(BadInput, match="/sizes: the server answers 429 Too Many Requests, 6 times; try again later"):
        json_at(f"{web.url}/sizes")


def test_what_is_not_there_is_said_at_once(web: Served, to: Path) -> None:
    with pytest.raises(BadInput, match=r"/file.zip: the server answers 404 Not Found$"):
        fetch(f"{web.url}/file.zip", to)
    assert web.gets("/file.zip") == [""]
    with pytest.raises(BadInput, match="answers 404"):
        size_at(f"{web.url}/file.zip")
    with pytest.raises(BadInput, match=r"^http://127.0.0.1:1/file.zip: .*Connection refused"):
        fetch("http://127.0.0.1:1/file.zip", to)
    with pytest.raises(BadInput, match=r"cannot be reached: .*Connection refused"):
        size_at("http://127.0.0.1:1/file.zip")
    assert left(to) == set()


def test_a_place_that_cannot_be_written_is_named(web: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadInput, match="file/below/it: cannot be written: Not a directory"):
        fetch(f"{web.url}/file.zip", tmp_path / "file" / "below" / "it")


def test_several_at_once_download_once(web: Served, to: Path, known: str) -> None:
    web.files["/file.zip"] = CONTENT
    web.pause_seconds = 0.002
    threads = [threading.Thread(target=fetch, args=(f"{web.url}/file.zip", to, known)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert to.read_bytes() == CONTENT
    assert web.gets("/file.zip") == [""]
