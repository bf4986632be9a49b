"""What was launched: a note a study, profile and corpus, so that its results can be counted without its file.

ROOT/launches/<study>-<hash>.json is replaced whenever that study is run again.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pydantic import TypeAdapter

from raysd.results.notes import read_note
from raysd.results.store import Results


class LaunchedTrial(NamedTuple):
    """One trial that a study asked for, done already or not."""

    key: str
    training_key: str
    variant: str
    seed: int


@dataclass(frozen=True)
class Launch:
    """One study on one corpus as it was launched last."""

    study: str
    profile: str | None
    question: str
    year: int
    fingerprint: str
    when: datetime
    trials: tuple[LaunchedTrial, ...]
    """Of a search those that were known then."""
    search: str | None = None
    """The name of its log, where it is a search."""
    suggestions: int = 0
    """How many a search is to try; the baseline, which `trials` holds as well, is the first."""

    @property
    def name(self) -> str:
        about = json.dumps([self.study, self.profile, self.year, self.fingerprint])
        return f"launches/{self.study}-{hashlib.sha256(about.encode()).hexdigest()[:12]}.json"


_LAUNCH = TypeAdapter(Launch)


def write_launch(results: Results, launch: Launch) -> None:
    """Keeps the note in the place of that of the launch before."""
    results.storage.replace(launch.name, _LAUNCH.dump_json(launch))


def read_launches(results: Results) -> list[Launch]:
    """All notes, by name. Raises BadInput for one that cannot be read."""
    names = results.storage.names("launches", ".json")
    return [read_note(results, name, _LAUNCH, "a note of a launch") for name in names]
