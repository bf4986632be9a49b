"""Which trial runs next, and what becomes of one that failed: the rules alone, without any Ray.

- The first trial is a canary: no other starts before it has shown an epoch, and a study whose canary fails is stopped.
- No two trials of one training run at once: the second only scores the embeddings of the first.
- `infrastructure` (its process died): started again, a limited number of times; it goes on from its last epoch.
- `oom`: put off until nothing else is left to run, then tried once more, alone.
- `non_finite` and `code`: not tried again, because the same would happen.
"""

from collections import Counter
from collections.abc import Sequence

from raysd.study.design import Trial


class Queue:
    """The trials of a run. An attempt at one is known by a name, given by whoever asks for the next."""

    def __init__(self, trials: Sequence[Trial], retries: int) -> None:
        self.canary_failed = False
        self._retries = retries
        self._waiting = {trial.key: trial for trial in trials}
        self._put_off: dict[str, Trial] = {}
        self._running: dict[str, Trial] = {}
        self._deaths = Counter[str]()
        self._ran_out: set[str] = set()
        """Keys of the trials that ran out of memory once; they run alone."""
        self._canary = next(iter(self._waiting), None)
        self._canary_lives = False

    @property
    def settled(self) -> bool:
        """Nothing is left to start, and nothing runs that might have to be started again."""
        return self.canary_failed or not (self._waiting or self._put_off or self._running)

    def next(self, attempt: str) -> Trial | None:
        """The trial that may start now; None where none may yet, or all are settled."""
        trial = self._choice()
        if trial is not None:
            self._waiting.pop(trial.key, None)
            self._put_off.pop(trial.key, None)
            self._running[attempt] = trial
        return trial

    def lives(self, attempt: str) -> None:
        """It has shown an epoch."""
        self._canary_lives |= attempt in self._running and self._running[attempt].key == self._canary

    def done(self, attempt: str) -> bool:
        """It has finished its trial; False where the attempt was over already."""
        self.lives(attempt)
        return self._running.pop(attempt, None) is not None

    def failed(self, attempt: str, kind: str) -> bool:
        """It has failed. True where that settles its trial; False where it is tried again, or was over already."""
        trial = self._running.pop(attempt, None)
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

    def _choice(self) -> Trial | None:
        running = list(self._running.values())
        one_only = not self._canary_lives or any(trial.key in self._ran_out for trial in running)
        if self.canary_failed or (running and one_only):
            return None
        if not self._canary_lives:
            return (self._waiting | self._put_off).get(self._canary or "")
        trained_now = {trial.training_key for trial in running}
        for trial in self._waiting.values():
            if trial.training_key not in trained_now:
                return trial
        return None if running else next(iter(self._put_off.values()), None)
