"""Which trial runs next, and what becomes of one that failed: the rules alone, without any Ray.

- The first trial is a canary: no other starts before it has shown an epoch, and a study whose canary fails is stopped.
- No two trials of one training run at once: the second only scores the embeddings of the first.
- `infrastructure` (its process died): started again, a limited number of times; it goes on from its last epoch.
- `oom`: put off until nothing else is left to run, then tried once more, alone.
- `non_finite` and `code`: not tried again, because the same would happen.
- A budget decides whether the next may start; what it leaves is the next run's.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from raysd.scale.budget import Budget
from raysd.study.design import Trial


class Queue:
    """The trials of a run. An attempt at one is known by a name, given by whoever asks for the next."""

    def __init__(
        self,
        trials: Sequence[Trial],
        retries: int,
        more: Callable[[], Trial | None] | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`more` gives a search's trials, one by one, when those before are under way; None when there are no more."""
        self.canary_failed = False
        self.room = 1
        """How many trials have place at a time."""
        self._more, self._budget = more, budget
        self._retries = retries
        self._waiting = dict[str, Trial]()
        self._ask_for_more()  # a search's first trial is its baseline
        self._waiting |= {trial.key: trial for trial in trials}
        self._put_off: dict[str, Trial] = {}
        self._running: dict[str, Trial] = {}
        self._deaths = Counter[str]()
        self._ran_out: set[str] = set()
        """Keys of the trials that ran out of memory once; they run alone."""
        self._canary = next(iter(self._waiting), None)
        first = self._waiting.get(self._canary or "")
        self._canary_lives = more is not None and first is not None and first.role != "baseline"  # it lived before

    @property
    def settled(self) -> bool:
        """Nothing may be started any more, and nothing runs that might have to be started again."""
        return self.canary_failed or not (self._running or self._choice())

    @property
    def out_of_budget(self) -> bool:
        """It is settled, and what is left was not started for want of budget."""
        return self.settled and not self.canary_failed and bool(self._waiting or self._put_off)

    def next(self, attempt: str) -> Trial | None:
        """The trial that may start now; None where none may yet, or all are settled."""
        trial = self._choice()
        if trial is not None:
            self._waiting.pop(trial.key, None)
            self._put_off.pop(trial.key, None)
            self._running[attempt] = trial
            if self._budget is not None:
                self._budget.started(trial)
        return trial

    def lives(self, attempt: str) -> None:
        """It has shown an epoch."""
        self._canary_lives |= attempt in self._running and self._running[attempt].key == self._canary

    def done(self, attempt: str) -> bool:
        """It has finished its trial; False where the attempt was over already."""
        self.lives(attempt)
        return self._over(attempt, finished=True) is not None

    def failed(self, attempt: str, kind: str) -> bool:
        """It has failed. True where that settles its trial; False where it is tried again, or was over already."""
        trial = self._over(attempt, finished=False)
        if trial is None:
            return False
        if kind == "oom" and trial.key not in self._ran_out:
            self._ran_out.add(trial.key)
            self._put_off[trial.key] = trial
            return False
        if kind == "infrastructure":
            self._deaths[trial.key] += 1
            if self._deaths[trial.key] <= self._retries:
                if trial.key in self._ran_out:
                    self._put_off[trial.key] = trial
                else:
                    self._waiting = {trial.key: trial, **self._waiting}
                return False
        self.canary_failed |= trial.key == self._canary
        return True

    def _over(self, attempt: str, finished: bool) -> Trial | None:
        trial = self._running.pop(attempt, None)
        if trial is not None and self._budget is not None:
            self._budget.ended(trial, finished)
        return trial

    def _choice(self) -> Trial | None:
        running = list(self._running.values())
        one_only = not self._canary_lives or any(trial.key in self._ran_out for trial in running)
        if self.canary_failed or (running and one_only):
            return None
        if not self._canary_lives:
            canary = (self._waiting | self._put_off).get(self._canary or "")
            return canary if canary is not None and self._allowed(canary) else None
        if not self._waiting:
            self._ask_for_more()
        trained_now = {trial.training_key for trial in running}
        for trial in self._waiting.values():
            if trial.training_key not in trained_now and self._allowed(trial):
                return trial
        return None if running else next(filter(self._allowed, self._put_off.values()), None)

    def _allowed(self, trial: Trial) -> bool:
        waiting = (*self._waiting.values(), *self._put_off.values())
        return self._budget is None or self._budget.allows(trial, waiting, self.room)

    def _ask_for_more(self) -> None:
        trial = self._more() if self._more else None
        if trial is None:
            self._more = None
        else:
            self._waiting[trial.key] = trial
