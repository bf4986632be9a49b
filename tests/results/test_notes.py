"""Small JSON files of a results root that are not what they should be: one line that names the file."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raysd.errors import BadInput
from raysd.results.launches import Launch, LaunchedTrial, read_launches, write_launch
from raysd.results.searches import SearchLog, Suggestion
from raysd.results.store import Results
from raysd.results.weights import own_weights, write_weights

LAUNCH = Launch(
    "cutoff", None, "Does it help?", 2020, "d0", datetime(2026, 1, 2, tzinfo=UTC), (LaunchedTrial("k", "t", "v", 3),)
)
KINDS: dict[str, Callable[[Results], Any]] = {
    "launches/cutoff-1.json": read_launches,
    "searches/s/suggestions/000001.json": lambda results: SearchLog(results, "s").read(),
    "searches/s/rungs/5/k.json": lambda results: SearchLog(results, "s").rung(5),
    "pretrained/k.json": own_weights,
}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    results = Results(tmp_path)
    write_launch(results, LAUNCH)
    assert read_launches(results) == [LAUNCH]
    log, tried = SearchLog(results, "s"), Suggestion(1, {"k": 2}, {"scoring.k": 2}, "k", "done", 0.5, {5: 0.25})
    log.write(tried)
    log.write_rung(5, "k", 0.25)
    log.write_rung(5, "n", math.nan)
    assert (log.read(), log.rung(5)["k"], log.values_of("k")) == ([tried], 0.25, {5: 0.25})
    assert math.isnan(log.rung(5)["n"])
    about = {"name": "n", "licence": "l", "encoder": {"name": "cnn"}, "features": {}, "clips": 4}
    write_weights(results, "k", {}, about)
    assert own_weights(results) == [about | {"key": "k"}]


def test_notes_of_earlier_versions_are_read(tmp_path: Path) -> None:
    note = {"study": "cutoff", "profile": None, "question": "Does it help?", "year": 2020, "fingerprint": "d0"}
    note |= {"when": "2026-01-02T00:00:00+00:00", "trials": [["k", "t", "v", 3]], "search": None, "suggestions": 0}
    (tmp_path / "launches").mkdir()
    (tmp_path / LAUNCH.name).write_text(json.dumps(note), encoding="utf-8")
    assert read_launches(Results(tmp_path)) == [LAUNCH]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "content",
    ["", "null", "3", "[]", "{}", '{"value": "x"}', '{"trials": 3}', "\ud800".encode("utf-8", "surrogatepass")],
)
def test_a_note_of_another_kind_is_named(tmp_path: Path, name: str, content: str | bytes) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput, match=rf"{name}: cannot be read as .*; delete it$") as error:
        KINDS[name](Results(tmp_path))
    assert "\n" not in str(error.value)
