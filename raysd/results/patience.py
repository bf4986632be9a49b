"""A results root may be out of reach for a while: whoever has a training to lose by it asks again."""

import errno
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from raysd.errors import BadInput

if TYPE_CHECKING:
    from raysd.results.storage import Storage

PATIENCE_SECONDS = 300.0
"""How long a training asks again: more than what a server takes to start anew."""
LONGEST_WAIT_SECONDS = 15.0
PASSING = (
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET, errno.ECONNREFUSED),
)
"""What a network file system says whose server is away. A full disk or a missing right does not pass by itself."""

log = logging.getLogger("raysd")
"""What a trial got over by itself, and its user should know."""


class Notes(logging.Handler):
    """Gives `tell` what `log` is told, in a process whose output nobody sees."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


class StorageError(BadInput):
    """The results root cannot be reached, read or written: trouble with the place, not with a trial."""

    passing = False
    """Whether it may be over in a minute."""

    @classmethod
    def of(cls, message: str, error: OSError) -> "StorageError":
        """Trouble with a folder."""
        found = cls(message)
        found.passing = error.errno in PASSING
        return found


class Patient:
    """A storage of which what fails is asked again, until `PATIENCE_SECONDS` are over; it says so once."""

    def __init__(self, storage: "Storage") -> None:
        self._storage = storage

    def __str__(self) -> str:
        return str(self._storage)

    def __getattr__(self, name: str) -> Any:
        return partial(self._again, getattr(self._storage, name))

    def _again(self, ask: Callable[..., Any], *args: Any, **options: Any) -> Any:
        began, wait_seconds, troubled = time.monotonic(), 1.0, False
        while True:
            try:
                found = ask(*args, **options)
            except StorageError as error:
                if not error.passing or time.monotonic() + wait_seconds > began + PATIENCE_SECONDS:
                    raise
                if not troubled:
                    log.warning(f"waits up to {PATIENCE_SECONDS / 60:.0f} min for the results: {error}")
                troubled = True
                time.sleep(wait_seconds)
                wait_seconds = min(2 * wait_seconds, LONGEST_WAIT_SECONDS)
            else:
                if troubled:
                    log.warning(f"goes on: {self} was out of reach for {time.monotonic() - began:.0f} s")
                return found
