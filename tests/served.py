"""A small web server for tests, with the faults of large ones: it breaks off, ignores ranges, is slow, answers 503."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 1 << 14


@dataclass
class Served:
    """What a server has, how it behaves, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Path without the query -> content. An API of records, as Zenodo has it, is made of those in /records/."""
    has_api: bool = True
    answers: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """Path -> status and headers of its next answers, given before it is served."""
    breaks: dict[str, list[int]] = field(default_factory=dict)
    """Path -> bytes after which its next answers end."""
    knows_ranges: bool = True
    validator: str | None = "ETag"
    pause_seconds: float = 0.0
    """After each piece."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range of each request."""

    def gets(self, path: str) -> list[str]:
        """The ranges of the requests for a file, "" for all of it."""
        return [given for method, asked, given in self.asked if (method, asked) == ("GET", path)]


@contextmanager
def serving() -> Iterator[Served]:
    """A server of its own, on a free port, for as long as the block runs."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer("HEAD")

        def do_GET(self) -> None:
            self._answer("GET")

        def _answer(self, method: str) -> None:
            path = self.path.partition("?")[0]
            given = self.headers.get("Range", "")
            served.asked.append((method, path, given))
            content = served.files.get(path)
            if served.has_api and path.startswith("/api/records/"):
                content = json.dumps(_record(served, path)).encode()
            if queued := served.answers.get(path):
                status, headers = queued.pop(0)
                self._head(status, {"Content-Length": "0"} | headers)
                return
            if content is None:
                self._head(404, {"Content-Length": "0"})
                return
            etag = f'"{md5(content).hexdigest()}"'
            first = int(found[1]) if (found := re.match(r"bytes=(\d+)-", given)) and served.knows_ranges else 0
            if self.headers.get("If-Range", etag) != etag:
                first = 0
            if first and first >= len(content):
                self._head(416, {"Content-Length": "0"})
                return
            headers = {"Content-Length": str(len(content) - first)}
            if served.validator:
                headers[served.validator] = etag
            if first:
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self._head(206 if first else 200, headers)
            if method == "GET":
                ends = served.breaks.get(path)
                self._send(content[first : ends.pop(0) if ends else len(content)])

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, content: bytes) -> None:
            with suppress(ConnectionError):  # who has heard enough hangs up
                for at in range(0, len(content), PIECE):
                    self.wfile.write(content[at : at + PIECE])
                    time.sleep(served.pause_seconds)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    yield served
    server.shutdown()
    server.server_close()


def _record(served: Served, path: str) -> dict:
    folder = path.removeprefix("/api") + "/files/"
    return {
        "files": [
            {"key": name.removeprefix(folder), "size": len(content), "checksum": f"md5:{md5(content).hexdigest()}"}
            for name, content in served.files.items()
            if name.startswith(folder)
        ]
    }
