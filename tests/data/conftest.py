"""What the tests of this folder share; it also lets them import its helper modules by their bare name."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from served import Served, serving


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A web server, empty; what waits for a server waits a thousandth as long."""
    from raysd.data import transfer

    monkeypatch.setattr(transfer, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as served:
        yield served
