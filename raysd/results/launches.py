"""What was launched: a note a study, profile and corpus, so that its results can be counted without its file.

ROOT/launches/<study>-<hash>.json is replaced whenever that study is run again.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime

from raysd.errors import BadInput
from raysd.results.storage import open_storage
from raysd.results.store import Results


@dataclass(frozen=True)
class LaunchedTrial:
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


def write_launch(results: Results, launch: Launch) -> None:
    """Keeps the note in the place of that of the launch before."""
    trials = [[trial.key, trial.training_key, trial.variant, trial.seed] for trial in launch.trials]
    content = asdict(launch) | {"when": launch.when.isoformat(), "trials": trials}
    open_storage(results.root).replace(launch.name, json.dumps(content).encode())


def read_launches(results: Results) -> list[Launch]:
    """All notes, by name. Raises BadInput for one that cannot be read."""
    storage, launches = open_storage(results.root), []
    for name in storage.names("launches", ".json"):
        try:
            content = json.loads(storage.read(name) or b"")
            trials = tuple(LaunchedTrial(*trial) for trial in content.pop("trials"))
            launches.append(Launch(**content | {"when": datetime.fromisoformat(content["when"]), "trials": trials}))
        except (ValueError, TypeError, KeyError) as error:
            raise BadInput(f"{results}/{name}: cannot be read as a note of a launch ({error}); delete it") from None
    return launches
