"""The way into a cluster that is there already, or why there is none, in one line and within seconds."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import ray
import ray.util

from raysd.errors import BadInput

START = "start it (ray start --head), or unset RAY_ADDRESS to use this machine alone"


class NoCluster(BadInput):
    """There is no way into the cluster of RAY_ADDRESS."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(f"{found}; {fix}")
        self.found, self.fix = found, fix


def join(address: str, **options: Any) -> str | None:
    """Connects to the cluster of RAY_ADDRESS, `address`; gives its dashboard's. Raises NoCluster."""
    check_address(address)
    with _said() as said:
        try:
            return ray.init(address="auto", **options).dashboard_url
        except Exception as raised:  # of many kinds; none is a reason for a traceback
            error = raised
    raise no_way_in(error, said[0])


def check_address(address: str) -> None:
    """Raises NoCluster for an address at which nobody listens; Ray itself would try for minutes."""
    if address == "auto":
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        parts = host = port = None
    if not parts or not host or not port or parts.scheme in ("http", "https"):
        raise NoCluster(
            f"RAY_ADDRESS is {address}, but Ray wants HOST:PORT",
            "export RAY_ADDRESS=HEAD:6379, the address that `ray start --head` printed; a dashboard's address is for "
            "raysd submit",
        )
    # Ray takes the machine's own address for these
    hosts = (host, ray.util.get_node_ip_address()) if host in ("localhost", "127.0.0.1") else (host,)
    for one in hosts:
        with suppress(OSError), socket.create_connection((one, port), timeout=10):
            return
    raise NoCluster(f"RAY_ADDRESS is {address}, but nobody listens there", START)


def no_way_in(error: Exception, said: str) -> NoCluster:
    """Why a cluster that is there lets nobody in; `said` is what Ray printed meanwhile."""
    text = " ".join(str(error).split())[:300]
    if "AuthToken" in said or "uthentication" in text:
        fix = "export RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN as `ray get-auth-token` prints it on the head"
        return NoCluster("the cluster wants a token, and gets none or another", fix)
    if "Version mismatch" in text:
        return NoCluster(text, "use the cluster's versions of Ray and Python here")
    return NoCluster(text or type(error).__name__, f"run this on a node of the cluster; else {START}")


@contextmanager
def _said() -> Iterator[list[str]]:
    """Keeps from the terminal, and gives in the end, what this process prints as errors, C++ code included."""
    said, kept = list[str](), os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
