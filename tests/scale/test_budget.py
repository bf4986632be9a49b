"""What a budget lets start, with a clock of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from workplace import STUDY, Workplace

from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.scale.budget import Budget, budget_of
from raysd.scale.queue import Queue
from raysd.session import Session
from raysd.settings import with_changes
from raysd.study.design import Trial, load_study
from raysd.study.plan import PlannedTrial
from raysd.trial import run_trial

VARIANTS = ("baseline", "a", "b")
HOUR = 3600.0


def trial(variant: str, seed: int) -> Trial:
    recipe = with_changes(Recipe(), {"train.weight_decay": 0.1 * (1 + VARIANTS.index(variant))}, "test")
    return Trial(variant, "baseline" if variant == "baseline" else "variant", recipe, seed, "corpus")


def study(seeds: int) -> list[Trial]:
    """Three variants, seed by seed."""
    return [trial(variant, seed) for seed in range(seeds) for variant in VARIANTS]


def planned(trials: Sequence[Trial], seconds: float | None) -> list[PlannedTrial]:
    return [PlannedTrial(trial.key, trial.variant, trial.seed, True, seconds) for trial in trials]


class Clockwork:
    """Runs a queue in made-up time: every trial takes `takes(trial)` seconds, `room` of them at a time."""

    def __init__(self) -> None:
        self.now = 0.0

    def run(self, queue: Queue, takes: Callable[[Trial], float], room: int = 1) -> list[Trial]:
        queue.room = room
        ends: dict[str, tuple[float, Trial]] = {}
        finished: list[Trial] = []
        while not queue.settled:
            while len(ends) < room and (found := queue.next(str(len(finished) + len(ends)))):
                attempt = str(len(finished) + len(ends))
                queue.lives(attempt)
                ends[attempt] = (self.now + takes(found), found)
            attempt, (self.now, over) = min(ends.items(), key=lambda item: item[1][0])
            del ends[attempt]
            assert queue.done(attempt)
            finished.append(over)
        return finished


def counts(finished: list[Trial]) -> set[int]:
    """The numbers of finished seeds that there are among the variants."""
    return {sum(trial.variant == variant for trial in finished) for variant in VARIANTS}


@pytest.mark.parametrize(
    ("hours", "seeds_done"),
    [(2.9, 0), (3.0, 1), (5.9, 1), (6.1, 2), (8.9, 2), (9.1, 3), (100, 3)],
)
def test_whole_seeds_that_fit_are_run_and_no_other(hours: float, seeds_done: int) -> None:
    trials, clock = study(3), Clockwork()
    budget = Budget(hours * HOUR, planned(trials, HOUR), clock=lambda: clock.now)
    queue = Queue(trials, 0, budget=budget)
    finished = clock.run(queue, lambda trial: HOUR)
    assert counts(finished) == {seeds_done}
    assert clock.now <= hours * HOUR
    assert queue.settled
    assert queue.out_of_budget == (seeds_done < 3)


@pytest.mark.parametrize(
    ("room", "hours", "seeds_done"), [(2, 1.9, 0), (2, 4.9, 2), (2, 5.0, 3), (3, 2.9, 2), (3, 3.0, 3)]
)
def test_with_several_at_a_time_more_seeds_fit(room: int, hours: float, seeds_done: int) -> None:
    trials, clock = study(3), Clockwork()
    budget = Budget(hours * HOUR, planned(trials, HOUR), clock=lambda: clock.now)
    finished = clock.run(Queue(trials, 0, budget=budget), lambda trial: HOUR, room)
    assert counts(finished) == {seeds_done}
    assert clock.now <= hours * HOUR


@pytest.mark.parametrize("room", [1, 2, 4])
def test_what_the_plan_did_not_know_is_learnt_from_the_first_seed(room: int) -> None:
    trials, clock = study(4), Clockwork()
    hours = {"baseline": 1.0, "a": 2.0, "b": 0.5}
    budget = Budget(8.0 * HOUR, planned(trials, None), clock=lambda: clock.now)
    finished = clock.run(Queue(trials, 0, budget=budget), lambda trial: hours[trial.variant] * HOUR, room)
    assert len(counts(finished)) == 1
    assert 0 not in counts(finished)
    assert clock.now <= 8.0 * HOUR


def test_trials_that_take_longer_than_planned_do_not_run_over() -> None:
    trials, clock = study(3), Clockwork()
    budget = Budget(5.0 * HOUR, planned(trials, 1.0), clock=lambda: clock.now)
    finished = clock.run(Queue(trials, 0, budget=budget), lambda trial: HOUR)
    assert [trial.seed for trial in finished] == [0, 0, 0]
    assert clock.now == 3 * HOUR


def test_a_seed_that_an_earlier_run_began_is_continued_trial_by_trial() -> None:
    trials, clock = study(2), Clockwork()
    for begun, done in (({0}, 2), (set[int](), 0)):
        clock.now = 0.0
        budget = Budget(2.5 * HOUR, planned(trials, HOUR), begun=begun, clock=lambda: clock.now)
        assert len(clock.run(Queue(trials, 0, budget=budget), lambda trial: HOUR)) == done


def test_what_only_scores_is_not_expected_to_take_what_trainings_took() -> None:
    trials, clock = study(2), Clockwork()
    plan = [PlannedTrial(t.key, t.variant, t.seed, t.variant != "b", None) for t in trials]
    budget = Budget(5.0 * HOUR, plan, clock=lambda: clock.now)
    finished = clock.run(Queue(trials, 0, budget=budget), lambda t: 36.0 if t.variant == "b" else HOUR)
    assert counts(finished) == {2}  # 2.01 hours a seed; as three trainings the second would not have fitted


def test_gpu_hours_count_the_gpus_of_all_trials_that_run() -> None:
    trials, clock = study(3), Clockwork()
    budget = Budget(15.0 * HOUR, planned(trials, HOUR), gpus=2, clock=lambda: clock.now)
    finished = clock.run(Queue(trials, 0, budget=budget), lambda trial: HOUR, room=3)
    assert counts(finished) == {2}  # 2 GPUs x 3 trials x 1 hour: 6 GPU-hours a seed
    failing, clock.now = Queue(trials, 0, budget=Budget(7 * HOUR, planned(trials, HOUR), 2, clock=lambda: clock.now)), 0
    assert failing.next("0")
    failing.lives("0")
    clock.now = 2 * HOUR
    failing.failed("0", "infrastructure")  # 4 GPU-hours are gone with it
    assert failing.canary_failed
    assert not failing.out_of_budget


def test_a_trial_that_failed_says_nothing_of_the_time() -> None:
    trials, clock = study(2), Clockwork()
    budget = Budget(10.0 * HOUR, planned(trials, None), clock=lambda: clock.now)
    queue = Queue(trials, 0, budget=budget)
    for attempt in "012":
        assert queue.next(attempt)
        clock.now += HOUR if attempt != "2" else 1.0
        assert queue.failed(attempt, "code") if attempt == "2" else queue.done(attempt)
    assert budget.allows(trials[3], trials[3:], 1)
    clock.now = 7.5 * HOUR
    assert not budget.allows(trials[3], trials[3:], 1)  # 3 hours: the mean of the two that finished, not of the third


def test_a_search_stops_when_its_next_suggestion_would_not_fit() -> None:
    suggestions, clock = [trial("baseline", 0), trial("a", 0), trial("b", 0)], Clockwork()
    asked = iter(suggestions)
    budget = Budget(2.5 * HOUR, planned(suggestions[:1], HOUR), clock=lambda: clock.now)
    queue = Queue([], 0, more=lambda: next(asked, None), budget=budget)
    assert clock.run(queue, lambda trial: HOUR) == suggestions[:2]
    assert queue.out_of_budget


def test_gpu_hours_without_gpus_are_a_mistake_of_one_line(
    raysd: Callable[..., tuple[int, str, str]], tmp_path: Path, corpus: Callable[[int], Path], cache_dir: Path
) -> None:
    place = Workplace(tmp_path, corpus(2020), STUDY)
    words = ["--set", "budget.gpu_hours=2", "--data-root", place.corpus, "--cache", cache_dir]
    for command in ("plan", "run"):
        status, out, err = raysd(command, place.study, "--results", place.results.root, *words)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert "budget.gpu_hours" in err
        assert "give hours" in err


@pytest.mark.slow
def test_a_study_with_a_budget_ends_with_as_many_seeds_of_each_variant(
    workplace: Callable[[str], Workplace],
) -> None:
    place = workplace(STUDY.replace("seeds: [0, 1]", "seeds: [0, 1, 2]\nreferences: []"))
    session = Session(load_study(place.study), Results(place.results.root), place.corpus, place.folder / "cache")
    session.decode()
    for trial in session.missing()[:3]:  # the first seed, so that the plan knows what a trial takes
        run_trial(trial, session.place())

    status, out, err = place.run("run", "--set", "budget.hours=0.0001")
    assert status == 0, err
    assert "budget: 0.0001 hours a run" in err
    assert "budget reached: 6 trials left; the same command goes on" in err
    assert out.count("1/3") >= 3
    assert len(place.results.done()) == 3
    assert len(place.results.failures()) == 0

    status, out, err = place.run("run", "--set", "budget.hours=1")
    assert status == 0, err
    assert "budget reached" not in err
    assert out.count("3/3") >= 3
    assert len(place.results.done()) == 9


def test_a_budget_is_made_of_the_study_and_its_plan(
    tmp_path: Path, corpus: Callable[[int], Path], cache_dir: Path
) -> None:
    place = Workplace(tmp_path, corpus(2020), STUDY)
    without = Session(load_study(place.study), place.results, place.corpus, cache_dir)
    without.decode()
    assert budget_of(without.study.study, without.plan()) is None
    tiny = load_study(place.study, {"budget": {"hours": 1e-9}})
    run_trial(without.missing()[0], without.place())
    session = Session(tiny, place.results, place.corpus, cache_dir)
    session.decode()
    queue = Queue(session.missing(), 0, budget=budget_of(tiny.study, session.plan()))
    assert queue.settled
    assert queue.out_of_budget
