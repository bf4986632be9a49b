"""What is reported of trials under way, passed on to TensorBoard and MLflow by Ray Tune's own callbacks for them.

It is for looking on: raysd reads nothing of it again. A logger that fails is told of once and left out from then on.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.logger import LoggerCallback, TBXLoggerCallback

from raysd.detect.metrics import averaging, headline_metrics
from raysd.errors import BadInput
from raysd.results.storage import redacted
from raysd.results.store import Results
from raysd.settings import flatten
from raysd.study.design import Trial
from raysd.trial import Place

EPOCH = ("loss", "contrastive", "classification", "learning_rate", "grad_norm", "clips_per_second", "seconds")
"""What is logged of an epoch."""


class Noted(Protocol):
    """Hears of a logger that failed."""

    def note(self, line: str) -> None: ...


class Logged:
    """A trial as Ray's loggers ask for it: one run there, however often its process had to be started again."""

    def __init__(self, trial: Trial, study: str, folder: Path) -> None:
        self.trial = trial
        self.evaluated_params = self.config = {
            path: value if isinstance(value, (str, bool, int, float)) else json.dumps(value)
            for path, value in flatten(trial.recipe, defaults=True).items()
        }
        self.tags = {"study": study, "variant": trial.variant, "role": trial.role, "seed": str(trial.seed)}
        self.tags |= {"trial": trial.key, "data": trial.fingerprint}
        name = re.sub(r"[^\w.=+-]+", "_", f"{trial.variant} seed {trial.seed} {trial.key[:8]}")
        self.local_path = str(folder / study / name)
        self.epoch = 0
        self.failed = False

    def __str__(self) -> str:
        return f"{self.trial.variant}, seed {self.trial.seed}"

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


class Loggers(tune.Callback):
    """Tells Ray's loggers of trials: the recipe's settings, the loss of each epoch, the metrics at the end."""

    def __init__(self, place: Place, trial_of: Callable[[dict[str, Any]], Trial], watch: Noted) -> None:
        self._place, self._trial_of, self._watch = place, trial_of, watch
        self._loggers: dict[str, LoggerCallback] = {}
        self._logged: dict[str, Logged] = {}
        """By the trial's key."""
        self._open: dict[str, Logged] = {}
        """By Tune's name of an attempt, of those that have not ended."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that raysd has no use for."""
        return {}

    def setup(self, *args: Any, **info: Any) -> None:
        scale = self._place.scale
        for name, made in {
            "tensorboard": TBXLoggerCallback,
            "mlflow": lambda: _mlflow(scale.mlflow, self._place),
        }.items():
            if getattr(scale, name) is not None:
                self._try(name, lambda name=name, made=made: self._loggers.update({name: made()}))
        self._tell(lambda logger: logger.setup())

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        known = self._trial_of(trial.config)
        folder = Path(self._place.scale.tensorboard or "").absolute()
        logged = self._logged.setdefault(known.key, Logged(known, self._place.study, folder))
        self._open[trial.trial_id] = logged
        self._tell(lambda logger: logger.log_trial_start(logged))  # pyright: ignore[reportArgumentType]

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        logged, values = self._open[trial.trial_id], dict[str, Any]()
        match result.get("state"):
            case "training":
                logged.epoch = result["epoch"]
                values = {name: result[name] for name in EPOCH}
            case "done":
                values = {"total_seconds": result["seconds"], "train_seconds": result["train_seconds"]}
                with suppress(BadInput):  # the results root is out of reach just now
                    values |= self._metrics(logged.trial)
            case "failed":
                logged.failed = result["kind"] != "given_up"
        if values:
            told = {"training_iteration": logged.epoch, **values}
            self._tell(lambda logger: logger.log_trial_result(iteration, logged, told))  # pyright: ignore[reportArgumentType]

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._end(trial.trial_id, failed=False)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._end(trial.trial_id, failed=True)

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        for attempt in list(self._open):  # the study was interrupted
            self._end(attempt, failed=True)

    def _end(self, attempt: str, failed: bool) -> None:
        logged = self._open.pop(attempt, None)
        if logged is not None:
            failed |= logged.failed
            self._tell(lambda logger: logger.log_trial_end(logged, failed))  # pyright: ignore[reportArgumentType]

    def _metrics(self, trial: Trial) -> dict[str, float]:
        """The headline metrics of each machine and of all, as `dev/ToyCar/auc`; fractions of 1."""
        year = trial.recipe.data.year
        rows = Results(self._place.results_root).rows(["metrics"], {trial.key})
        return {
            f"{row['part']}/{row['machine']}/{row['metric']}": row["value"]
            for record in rows
            for row in record["metrics"]
            if row["section"] == averaging(year) and row["metric"] in headline_metrics(year)
        }

    def _tell(self, what: Callable[[LoggerCallback], None]) -> None:
        for name, logger in list(self._loggers.items()):
            self._try(name, lambda logger=logger: what(logger))

    def _try(self, name: str, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception as error:  # whatever goes wrong there, the study goes on
            self._loggers.pop(name, None)
            said = " ".join(redacted(f"{type(error).__name__}: {error}").split())[:300]
            self._watch.note(f"{name}: nothing more is logged there ({said}); the results are not concerned")


def _mlflow(where: str | None, place: Place) -> LoggerCallback:
    """MLflow's logger, with the tags of each trial; an experiment a study."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    class MLflow(MLflowLoggerCallback):
        def log_trial_start(self, trial: Any) -> None:
            self.tags = trial.tags
            super().log_trial_start(trial)

    return MLflow(tracking_uri=_tracking_uri(where or ""), experiment_name=place.study)


def _tracking_uri(where: str) -> str:
    """A URI as it is; a folder as that of a database in it."""
    if "://" in where or where == "databricks":
        return where
    folder = Path(where).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder}/mlflow.db"
