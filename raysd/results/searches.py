"""What a search has tried: one small file a suggestion, below the results root, so that a killed search goes on.

- ROOT/searches/<search>/suggestions/<number>.json: what was suggested, and what became of it.
- ROOT/searches/<search>/rungs/<epoch>/<trial key>.json: the objective after so many epochs.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import TypeAdapter

from raysd.errors import BadInput
from raysd.results.notes import read_note
from raysd.results.store import Results

STATES = ("done", "pruned", "asked", "failed")
"""What may have become of a suggestion, in the order in which tables name it."""


@dataclass(frozen=True)
class Suggestion:
    """One recipe that a search tries."""

    number: int
    """From 0, the baseline."""
    choices: dict[str, Any]
    """Factor -> the number, or the name of the level; a factor that means nothing here is absent."""
    changes: dict[str, Any]
    """Dotted path -> value: what it changes in the baseline recipe."""
    key: str
    """The key of its trial."""
    state: Literal["asked", "done", "pruned", "failed"] = "asked"
    """asked: under way, or broken off and to be continued."""
    value: float | None = None
    """The objective, higher is better; of a pruned one the last that was seen."""
    rungs: dict[int, float] = field(default_factory=dict)
    """Epochs -> the objective after them, of one that was judged early and has ended."""

    @property
    def name(self) -> str:
        return "baseline" if self.number == 0 else f"suggestion {self.number}"


@dataclass(frozen=True)
class _Judged:
    value: float


_SUGGESTION, _JUDGED = TypeAdapter(Suggestion), TypeAdapter(_Judged)


class SearchLog:
    """The suggestions of one search. `name` comes from the study and from all that decides what is suggested."""

    def __init__(self, results: Results, name: str) -> None:
        self.results, self.name = results, name
        self._storage = results.storage
        self._folder = f"searches/{name}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While this process runs the search. Raises BadInput where another does; object storage cannot tell."""
        with self._storage.lock(f"work/{self.name}", wait=False) as held:
            if not held:
                raise BadInput(
                    f"{self.results}: another run of the search {self.name} is under way; wait for its end, or stop it"
                )
            yield

    def write(self, suggestion: Suggestion) -> None:
        """Keeps a suggestion, or what became of it."""
        self._put(f"suggestions/{suggestion.number:06d}.json", asdict(suggestion))

    def read(self) -> list[Suggestion]:
        """All suggestions, in order."""
        names = self._storage.names(f"{self._folder}/suggestions", ".json")
        found = [read_note(self.results, name, _SUGGESTION, "part of a search") for name in names]
        return sorted(found, key=lambda suggestion: suggestion.number)

    def write_rung(self, epoch: int, key: str, value: float) -> None:
        """Keeps the objective of a trial after so many epochs."""
        self._put(f"rungs/{epoch}/{key}.json", asdict(_Judged(value)))

    def rung(self, epoch: int) -> dict[str, float]:
        """The objective of every trial that was judged after so many epochs."""
        names = self._storage.names(f"{self._folder}/rungs/{epoch}", ".json")
        return {PurePosixPath(name).stem: self._value(name) for name in names}

    def values_of(self, key: str) -> dict[int, float]:
        """Epochs -> the objective of a trial after them."""
        names = self._storage.names(f"{self._folder}/rungs", f"{key}.json")
        return {int(PurePosixPath(name).parent.name): self._value(name) for name in names}

    def _put(self, name: str, content: dict[str, Any]) -> None:
        self._storage.replace(f"{self._folder}/{name}", json.dumps(content).encode())

    def _value(self, name: str) -> float:
        return read_note(self.results, name, _JUDGED, "part of a search").value
