"""What a data root holds, found again without listing it: a note in the cache of what the last listing found.

To list tens of thousands of clips and read their names takes a large part of a second, to see that nothing has changed
since a tenth of it. A note says of which clips the listing consisted, and in which state were all folders below the
data root and all files in them that are no audio. It is believed where each of these folders and files still has its
time of change, and was made by this very code. A folder's time changes with each name that comes, goes or is changed
in it, so the listing would find the same names and read the same lists. What the clips hold is no part of the note:
their sizes and times are asked for each time, as they name the store.

N clips.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from raysd.data.layouts import Clip
from raysd.data.years import EXTENSIONS

_MOST = 10_000  # folders and lists below a data root; where there are more, it is listed each time
_SETTLED_NS = 2_000_000_000  # clocks of file systems tick; what changes twice within a tick shows one time of change

_meaning = attrgetter(*(field.name for field in fields(Clip)))  # its repr takes several times as long

State = list[int] | None
"""What tells that a folder or file was changed: time of change, time of change of its entry, size, number; None for a
link to nowhere."""


@dataclass(frozen=True)
class Listed:
    """The clips of a data root, by name."""

    paths: list[str]
    """Relative to the data root, sorted."""
    digest: str
    """Names the clips: their paths and meaning."""
    clips: list[Clip] | None = None
    """None where they were found again."""

    @classmethod
    def of(cls, clips: list[Clip]) -> "Listed":
        digest = hashlib.sha256()
        for clip in clips:
            digest.update(f"{_meaning(clip)}\n".encode("utf-8", "surrogateescape"))
        return cls([clip.path for clip in clips], digest.hexdigest(), clips)

    def states(self, root: Path) -> np.ndarray:
        """(N, 2) int64: size in bytes and time of change in ns of each clip's file; -1 where there is none."""
        stat, prefix, states = os.stat, f"{root}/", list[int]()
        for path in self.paths:
            try:
                state = stat(prefix + path)
            except OSError:
                states += (-1, -1)
            else:
                states += (state.st_size, state.st_mtime_ns)
        return np.array(states, dtype=np.int64).reshape(-1, 2)


class Note:
    """The note about what `settings` find under `root`, in the folder `cache`."""

    def __init__(self, cache: Path, root: Path, settings: str) -> None:
        name = hashlib.sha256(json.dumps([str(root.resolve()), settings]).encode()).hexdigest()[:20]
        self._path = cache / ".listings" / f"{name}.json"
        self._root = root
        self._walked: dict[str, State] = {}
        self._began_ns = 0

    def read(self) -> Listed | None:
        """What was found, where it still holds."""
        try:
            note = json.loads(self._path.read_bytes())
            if note["code"] == _code() and all(_state(self._root / path) == was for path, was in note["seen"].items()):
                return Listed(note["paths"], note["digest"])
        except (OSError, ValueError, KeyError):  # there is none, or a damaged one
            pass
        return None

    def begin(self) -> None:
        """Looks at the data root; to be called before it is listed, as what changes meanwhile may not go unseen."""
        self._began_ns = time.time_ns()
        self._walked = _walk(self._root)

    def write(self, listed: Listed) -> None:
        """Notes what was found since `begin`, but for a data root that was changed just before."""
        seen = self._walked
        if not seen or max(max(state[:2]) for state in seen.values() if state) > self._began_ns - _SETTLED_NS:
            return
        note: dict[str, Any] = {"code": _code(), "seen": seen, "digest": listed.digest, "paths": listed.paths}
        new = self._path.with_suffix(f".{uuid4().hex}")
        with suppress(OSError):  # the next one lists again
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(note), encoding="utf-8")
            new.rename(self._path)


def _state(path: Path | str) -> State:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return [state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino]


def _walk(root: Path) -> dict[str, State]:
    """The state of all folders below the root, itself included, and of all files that are no audio; links are followed.

    Empty where there are too many, or one cannot be looked into.
    """
    audio = tuple(f".{kind}" for kind in EXTENSIONS)
    seen: dict[str, State] = {}
    folders, visited = [""], set[tuple[int, int]]()
    try:
        while folders and len(seen) < _MOST:
            folder = folders.pop()
            place = os.path.join(root, folder)
            state = os.stat(place)
            if (state.st_dev, state.st_ino) in visited:
                continue  # a link back, or a second way to it
            visited.add((state.st_dev, state.st_ino))
            seen[folder] = _state(place)
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.append(os.path.join(folder, entry.name))
                    elif not entry.name.lower().endswith(audio):
                        seen[os.path.join(folder, entry.name)] = _state(entry.path)
    except OSError:
        return {}
    return {} if folders else seen


def _code() -> list[State]:
    """What tells that the code that lists was changed."""
    return [_state(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
