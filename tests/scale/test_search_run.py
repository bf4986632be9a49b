"""A search under Ray Tune, through the command line: it learns, gives up what is bad, and outlives its driver."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from workplace import Workplace, until, workers_of

from raysd.results.searches import SearchLog, Suggestion

SEARCH = """
question: "What is best?"
baseline: recipe.yaml
design: search
factors:
  rate: { setting: train.learning_rate, range: { low: 1e-4, high: 1e-2, log: true } }
  mixup: { setting: augment.log_mixup_exp, off: null }
  alpha: { setting: augment.log_mixup_exp.alpha, range: { low: 0.1, high: 0.9 } }
search: { suggestions: 8, random_first: 3 }
pruning: { first_epochs: 1, reduction: 2 }
references: []
"""


def suggestions(place: Workplace) -> list[Suggestion]:
    found = [folder.name for folder in Path(place.results.root).glob("searches/*")]
    return SearchLog(place.results, found[0]).read() if found else []


def ended(place: Workplace) -> int:
    return sum(one.state != "asked" for one in suggestions(place))


def test_killed_at_any_time_a_search_goes_on_with_what_it_knows(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(SEARCH)
    first = place.start()
    until(lambda: ended(place) >= 3, "three suggestions to end")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    until(lambda: not workers_of(place.folder), "the killed search's workers to end", 60)
    before, records = suggestions(place), place.records()

    status, _, err = place.run()
    assert status == 0, err
    after = suggestions(place)
    assert [one.number for one in after] == list(range(8))
    for one in before:  # what was known stays as it was; what was under way has ended
        assert (after[one.number].choices, after[one.number].key) == (one.choices, one.key)
        assert one.state == "asked" or after[one.number] == one
    states = Counter(one.state for one in after)
    assert set(states) <= {"done", "pruned"}
    assert states["pruned"] > 0
    assert after[0].state == "done"  # the baseline is never given up
    assert {one.key for one in after if one.state == "done"} == set(place.records())
    assert {key: record for key, record in place.records().items() if key in records} == records
    assert not list(Path(place.results.root).glob("work/*/"))  # nor a checkpoint of those that were given up
    assert not list(Path(place.results.root).glob("failures/*"))
    assert f"{states['pruned'] - sum(one.state == 'pruned' for one in before)}" in err

    again = place.run()
    assert again[0] == 0
    assert suggestions(place) == after


@pytest.mark.slow
def test_several_workers_give_up_together_and_their_group_goes_on(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(SEARCH)
    status, _, err = place.run("run", "--workers", "2", "--set", "scale.cpus_per_worker=0.5")
    assert status == 0, err
    states = Counter(one.state for one in suggestions(place))
    assert states.total() == 8
    assert states["pruned"] > 0
    assert set(states) <= {"done", "pruned"}
    assert {one.key for one in suggestions(place) if one.state == "done"} == set(place.records())
    assert not list(Path(place.results.root).glob("failures/*"))
