"""Which factors of a search mattered for its objective, by two of Optuna's evaluators."""

import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

FEWEST = 10
"""With fewer finished suggestions nothing is said of importance."""


@dataclass(frozen=True)
class Importance:
    """One factor. Either share is of the sum over all factors that the evaluator could judge."""

    factor: str
    had: int
    """Finished suggestions in which the factor meant something."""
    of: int
    """Finished suggestions that were looked at."""
    fanova: float | None
    """Share of the objective's variance that a random forest traces to this factor alone (Hutter et al. 2014). None:
    not all finished suggestions had the factor, and fANOVA compares only those that all have."""
    ped_anova: float
    """How differently the factor is set in the best suggestions and in all (Watanabe et al. 2023): what mattered for
    getting to the top. It takes the factors that only some suggestions had too."""


def importances(search: optuna.Study, seed: int = 0) -> list[Importance]:
    """The factors by importance, from the finished suggestions. Empty with fewer than `FEWEST`, or if all are equal.

    What was pruned does not count: its objective was seen after fewer epochs.
    """
    finished = search.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    had = Counter(name for trial in finished for name in trial.params)
    values = np.array([trial.value for trial in finished], dtype=float)
    if len(finished) < FEWEST or not had or np.ptp(values) == 0:
        return []
    everywhere = [name for name, count in had.items() if count == len(finished)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few suggestions with a factor: how many had it is printed beside it
        fanova = get_param_importances(search, evaluator=FanovaImportanceEvaluator(seed=seed), params=everywhere)
        # Optuna's advice: at least five suggestions in the group that counts as the best
        best = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, 5 / len(finished))))
        ped_anova = get_param_importances(search, evaluator=best)
    found = [Importance(name, count, len(finished), fanova.get(name), ped_anova[name]) for name, count in had.items()]
    return sorted(found, key=lambda one: -max(one.ped_anova, one.fanova or 0))
