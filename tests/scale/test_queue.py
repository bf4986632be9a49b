"""The rules of retries, on a queue without any Ray."""

from collections.abc import Callable

import pytest

from raysd.recipe import Recipe
from raysd.scale.queue import Queue
from raysd.settings import with_changes
from raysd.study.design import Trial


def trial(seed: int, scorer: str = "knn") -> Trial:
    recipe = with_changes(Recipe(), {"scoring.name": scorer}, "test")
    return Trial("baseline", "baseline", recipe, seed, "corpus")


@pytest.fixture
def three() -> list[Trial]:
    return [trial(seed) for seed in range(3)]


@pytest.fixture
def under_way(three: list[Trial]) -> Callable[[int], Queue]:
    """A queue of three trials whose first, attempt "a", has shown an epoch."""

    def queue(retries: int) -> Queue:
        made = Queue(three, retries)
        assert made.next("a") == three[0]
        made.lives("a")
        return made

    return queue


def test_trials_are_handed_out_in_order_once_the_first_has_shown_an_epoch(three: list[Trial]) -> None:
    queue = Queue(three, retries=0)
    assert queue.next("a") == three[0]
    assert queue.next("b") is None
    queue.lives("a")
    assert [queue.next(attempt) for attempt in "bcd"] == [three[1], three[2], None]
    assert [queue.done(attempt) for attempt in "abc"] == [True, True, True]
    assert queue.settled


def test_a_queue_is_settled_only_when_nothing_runs_that_could_come_back(under_way: Callable[[int], Queue]) -> None:
    queue = under_way(1)
    queue.done("a")
    queue.next("b")
    queue.next("c")
    queue.done("b")
    assert not queue.settled
    assert not queue.failed("c", "infrastructure")
    assert not queue.settled
    assert queue.next("d")
    queue.done("d")
    assert queue.settled
    assert Queue([], retries=0).settled


def test_no_two_trials_of_one_training_run_at_once() -> None:
    scorers = [trial(0), trial(0, "gaussian"), trial(1)]
    queue = Queue(scorers, retries=0)
    queue.next("a")
    queue.lives("a")
    assert queue.next("b") == scorers[2]
    assert queue.next("c") is None
    queue.done("a")
    assert queue.next("c") == scorers[1]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_trial_whose_process_dies_is_tried_again_a_limited_number_of_times(
    three: list[Trial], under_way: Callable[[int], Queue], retries: int
) -> None:
    queue = under_way(retries)
    assert queue.next("0") == three[1]
    for attempt in range(retries):
        assert not queue.failed(str(attempt), "infrastructure")
        assert queue.next(str(attempt + 1)) == three[1]  # before those that have not started: it goes on
    assert queue.failed(str(retries), "infrastructure")
    assert queue.next("last") == three[2]
    assert not queue.canary_failed


@pytest.mark.parametrize("kind", ["code", "non_finite"])
def test_what_would_go_wrong_again_is_not_tried_again(
    three: list[Trial], under_way: Callable[[int], Queue], kind: str
) -> None:
    queue = under_way(5)
    assert queue.next("b") == three[1]
    assert queue.failed("b", kind)
    assert queue.next("c") == three[2]
    assert queue.next("d") is None


def test_out_of_memory_a_trial_is_tried_once_more_alone_and_last(
    three: list[Trial], under_way: Callable[[int], Queue]
) -> None:
    queue = under_way(5)
    assert queue.next("b") == three[1]
    assert not queue.failed("b", "oom")
    assert queue.next("c") == three[2]
    assert queue.next("d") is None  # two still run
    queue.done("a")
    assert queue.next("d") is None
    queue.done("c")
    assert queue.next("d") == three[1]
    assert queue.failed("d", "oom")
    assert queue.settled


def test_while_one_is_tried_alone_nothing_else_starts_even_when_its_process_dies(
    three: list[Trial], under_way: Callable[[int], Queue]
) -> None:
    queue = under_way(1)
    queue.next("b")
    assert not queue.failed("a", "oom")
    assert not queue.failed("b", "oom")
    queue.next("c")
    queue.done("c")
    assert queue.next("d") == three[0]
    assert queue.next("e") is None
    assert not queue.failed("d", "infrastructure")
    assert queue.next("e") == three[1]
    assert queue.next("f") is None
    queue.done("e")
    assert queue.next("f") == three[0]
    queue.done("f")
    assert queue.settled


@pytest.mark.parametrize(("kind", "retries"), [("infrastructure", 2), ("oom", 1), ("code", 0)])
def test_a_first_trial_that_fails_after_its_retries_stops_the_study(
    three: list[Trial], kind: str, retries: int
) -> None:
    queue = Queue(three, retries=2)
    for attempt in range(retries):
        assert queue.next(str(attempt)) == three[0]
        assert queue.next("other") is None
        assert not queue.failed(str(attempt), kind)
    assert queue.next("last") == three[0]
    assert queue.failed("last", kind)
    assert queue.canary_failed
    assert queue.settled
    assert queue.next("other") is None


def test_what_is_said_of_an_attempt_that_is_over_changes_nothing(
    three: list[Trial], under_way: Callable[[int], Queue]
) -> None:
    queue = under_way(2)
    assert queue.done("a")
    assert not queue.failed("a", "infrastructure")  # its process died after it had told of its end
    assert not queue.done("a")
    assert [queue.next(attempt) for attempt in "bcd"] == [three[1], three[2], None]
