"""What a study still needs, what it will cost, and what its number of seeds can show. Launches nothing."""

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from raysd.errors import BadInput
from raysd.paper.statistics import ALPHA, detectable_by_sign_flips, smallest_p
from raysd.recipe import Recipe
from raysd.study.cost import UNKNOWN, Clips, Cost, Speeds, cost, disk_bytes, wall_seconds
from raysd.study.design import LoadedStudy, Role, Trial
from raysd.study.places import shown
from raysd.study.spread import Spread

POWER = 0.8
"""The chance with which a study wants to find a difference that is there."""


@dataclass(frozen=True)
class PlannedRow:
    """One variant of the plan; of a search, all its suggestions but the baseline are one row."""

    name: str
    role: Role
    changed: dict[str, tuple[Any, Any]]
    seeds: int
    done: int
    trainings: int
    """To do. Trials that differ in the scoring alone share one, which counts where it comes first."""
    scorings: int
    """Trials to do."""
    seconds: float | None
    """Estimated for what is to do; None where nothing like it has been measured."""


@dataclass(frozen=True)
class PlannedTrial:
    """One trial to do."""

    key: str
    variant: str
    seed: int
    trains: bool
    """False: it finds its embeddings there, or another trial of this plan makes them."""
    seconds: float | None


@dataclass(frozen=True)
class Room:
    """How many trials can run at a time."""

    at_once: int
    reason: str
    """Where the number comes from, in words."""


@dataclass(frozen=True)
class Space:
    """One factor of a search."""

    factor: str
    setting: str
    values: str
    when: str


@dataclass(frozen=True)
class Plan:
    """A study against what is in the results."""

    study: str
    question: str
    profile: str | None
    metric: str
    seeds: tuple[int, ...]
    notes: tuple[str, ...]
    rows: tuple[PlannedRow, ...]
    missing: tuple[PlannedTrial, ...]
    """In the order in which they would be run; of a search the baseline and the references only."""
    begun_seeds: tuple[int, ...]
    """Seeds of which some variant has its trial."""
    space: tuple[Space, ...]
    """What a search searches; empty for other designs."""
    searched: str
    """How it does so, in words."""
    trainings: int
    """Trainings to do; trials that differ in the scoring alone share one."""
    reused_trainings: int
    """Trainings whose embeddings are there, so that only the scoring is to do."""
    scorings: int
    """Trainings to score: all that are to do."""
    seconds: float
    """Estimated for all trials of which something like it has been measured, one after another."""
    unknown_trials: int
    """Trials to do whose time cannot be estimated."""
    wall_seconds: float | None
    """The same by the clock, with as many at a time as there is room for; None where nothing is known."""
    room: Room
    gpu_hours: float | None
    """Of the known trials; None where no GPU is used."""
    paid_seconds: float | None
    """What the trials that are there took; None where that is not known."""
    measured: str
    """What the estimates rest on, in words; empty where there are none."""
    records_read: int | None
    """Finished trials that the estimates were looked for in; None: in all."""
    num_bytes: int | None
    """Estimated disk space: records, embeddings and the largest checkpoint under way. None: unknown."""
    smallest_p: float
    """The least p that an exact two-sided sign-flip test over the seeds can give."""
    family: int
    """Variants that are compared with the baseline; Holm's first step asks for a p of ALPHA over this number."""
    spread: Spread | None
    detectable: float | None
    """The least true difference in the metric that the sign-flip test finds (ALPHA, POWER), a fraction of 1. None where
    the spread is not known, or no difference is found with so few seeds."""
    data_known: bool
    """False: no data was given, so nothing could be found in the results."""
    budget: str
    """What one run may take, in words; empty without a budget."""

    @property
    def done(self) -> int:
        return sum(row.done for row in self.rows)

    def to_json(self) -> str:
        """All of it, for scripts. Seconds, bytes, fractions of 1; null where something is not known."""
        plain = asdict(self) | {
            "done": self.done,
            "alpha": ALPHA,
            "power": POWER,
            "missing": [asdict(trial) for trial in self.missing],
        }
        for row in plain["rows"]:
            row["changed"] = {path: list(pair) for path, pair in row["changed"].items()}
        return json.dumps(plain, indent=2, ensure_ascii=False)


def make_plan(
    study: LoadedStudy,
    trials: Sequence[Trial],
    data_known: bool = True,
    done: Collection[str] = (),
    trained: Collection[str] = (),
    speeds: Speeds | None = None,
    sizes: tuple[float | None, float | None] = (None, None),
    clips: Callable[[Recipe], Clips] | None = None,
    room: Room = Room(1, ""),
    spread: Spread | None = None,
    paid_seconds: float | None = None,
    records_read: int | None = None,
    suggestions_ended: int = 0,
) -> Plan:
    """The plan of a study.

    `trials` are all of the study's; where the data is not known, they are named by no corpus, and all are to do. `done`
    and `trained` are the keys of trials and of embeddings that are there; `speeds` come from finished trials or a
    calibration; `sizes` are mean bytes of a record and of a training's embeddings; `clips` counts a recipe's corpus;
    `suggestions_ended` counts what a search is done with, without its baseline. Raises BadInput for a budget of
    GPU-hours of trials that use no GPU.
    """
    if not data_known:
        done, trained = (), ()
    costs = {row.name: UNKNOWN for row in study.variants}
    if speeds is not None and clips is not None:
        prints = {trial.variant: trial.fingerprint for trial in trials}
        for row in study.variants:
            if row.name in prints:
                costs[row.name] = cost(row.recipe, prints[row.name], clips(row.recipe), speeds)

    missing, reused = _missing(trials, done, trained, costs)
    rows = _rows(study, trials, missing)
    times = [trial.seconds for trial in missing]
    extra = _suggestions(study, costs["baseline"], suggestions_ended)
    if extra is not None:
        rows.insert(1, extra)
        times += [costs["baseline"].seconds(trains=True)] * extra.scorings
    known = [time for time in times if time is not None]
    trainings, scorings = sum(row.trainings for row in rows), sum(row.scorings for row in rows)
    to_train = {trial.variant for trial in missing if trial.trains}
    scale, seeds = study.study.scale, study.study.seeds
    detectable = detectable_by_sign_flips(spread.sd, len(seeds), POWER, ALPHA) if spread else math.inf
    return Plan(
        study=study.name,
        question=study.study.question,
        profile=study.profile,
        metric=study.study.metric,
        seeds=seeds,
        notes=study.notes,
        rows=tuple(rows),
        missing=tuple(missing),
        begun_seeds=tuple(sorted({trial.seed for trial in trials if trial.key in done and trial.role != "reference"})),
        space=_space(study),
        searched=_searched(study),
        trainings=trainings,
        reused_trainings=reused,
        scorings=scorings,
        seconds=sum(known),
        unknown_trials=len(times) - len(known),
        wall_seconds=wall_seconds(known, room.at_once) if known or not times else None,
        room=room,
        gpu_hours=sum(known) / 3600 * scale.workers * scale.gpus_per_worker if scale.gpus_per_worker else None,
        paid_seconds=paid_seconds if len(missing) < len(trials) else None,
        measured=_measured(speeds),
        records_read=records_read,
        num_bytes=disk_bytes(
            study.baseline.recipe,
            scorings,
            trainings,
            [row.recipe for row in study.variants if row.name in to_train],
            sizes,
            clips(study.baseline.recipe) if clips else None,
        ),
        smallest_p=smallest_p(len(seeds)),
        family=sum(row.role == "variant" for row in study.variants),
        spread=spread,
        detectable=detectable if math.isfinite(detectable) else None,
        data_known=data_known,
        budget=_budget(study),
    )


def _missing(
    trials: Sequence[Trial], done: Collection[str], trained: Collection[str], costs: dict[str, Cost]
) -> tuple[list[PlannedTrial], int]:
    """The trials to do, and how many of their trainings are there already."""
    paid, missing, reused = set(trained), list[PlannedTrial](), set[str]()
    for trial in trials:
        if trial.key in done:
            continue
        makes = trial.training_key not in paid
        paid.add(trial.training_key)
        has_training = trial.recipe.trains
        if has_training and trial.training_key in trained:
            reused.add(trial.training_key)
        seconds = costs[trial.variant].seconds(makes)
        missing.append(PlannedTrial(trial.key, trial.variant, trial.seed, makes and has_training, seconds))
    return missing, len(reused)


def _rows(study: LoadedStudy, trials: Sequence[Trial], missing: Sequence[PlannedTrial]) -> list[PlannedRow]:
    asked: dict[str, int] = {}
    for trial in trials:
        asked[trial.variant] = asked.get(trial.variant, 0) + 1
    to_do: dict[str, list[PlannedTrial]] = {row.name: [] for row in study.variants}
    for trial in missing:
        to_do[trial.variant].append(trial)
    rows = []
    for row in study.variants:
        own, seeds = to_do[row.name], asked.get(row.name, 0)
        known = [trial.seconds for trial in own if trial.seconds is not None]
        seconds = sum(known) if len(known) == len(own) else None
        trainings = sum(trial.trains for trial in own)
        rows.append(PlannedRow(row.name, row.role, row.changed, seeds, seeds - len(own), trainings, len(own), seconds))
    return rows


def _measured(speeds: Speeds | None) -> str:
    if speeds is None:
        return ""
    elsewhere = ", ".join(speeds.measured_elsewhere)
    if speeds.measured_on is None and elsewhere:
        text = f"earlier trials ran on {elsewhere}, which says nothing of this study's scale"
        return text + ("; the time is from the calibration" if speeds.calibrated else "")
    parts = [f"on {speeds.measured_on}"] if speeds.measured_on else []
    parts += ["by the calibration, with one worker"] if speeds.calibrated else []
    return f"measured {' and '.join(parts)}" if parts else ""


def _budget(study: LoadedStudy) -> str:
    budget = study.study.budget
    if budget is None:
        return ""
    if budget.gpu_hours is not None and not study.study.scale.gpus_per_worker:
        raise BadInput(
            f"{shown(study.path)}: budget.gpu_hours: its trials use no GPU (scale.gpus_per_worker is 0); give hours"
        )
    much = f"{budget.hours:g} hours" if budget.hours is not None else f"{budget.gpu_hours:g} GPU-hours"
    whole = "" if study.study.search else ", in whole seeds of all variants"
    return f"budget: {much} a run{whole}; what does not fit is left to the next run of the same command"


# --- searches ---------------------------------------------------------------------------------------------------------


def _suggestions(study: LoadedStudy, baseline: Cost, ended: int) -> PlannedRow | None:
    """What a search tries beside the baseline: at most so many trainings like it."""
    if study.study.search is None:
        return None
    number = study.study.search.suggestions - 1
    left, each = max(0, number - ended), baseline.seconds(trains=True)
    seconds = None if each is None else left * each
    return PlannedRow(count(number, "suggestion"), "variant", {}, number, number - left, left, left, seconds)


def _searched(study: LoadedStudy) -> str:
    search, pruning = study.study.search, study.study.pruning
    if search is None:
        return ""
    judged = f"{search.objective} (on {search.held_out:.0%} of the normal training clips, held out)"
    if search.oracle:
        judged = f"ORACLE: {study.study.metric} on the test clips, whose labels it looks at"
    less = "; bad ones are given up early, so the time is the most it can be" if pruning else ""
    return f"{search.suggestions} suggestions, the baseline first, one seed each; objective: {judged}{less}"


def _space(study: LoadedStudy) -> tuple[Space, ...]:
    if study.study.search is None:
        return ()
    found = []
    for name, factor in study.study.factors.items():
        if factor.range is not None:
            values = f"{_plain(factor.range.low)} to {_plain(factor.range.high)}{', log' if factor.range.log else ''}"
        elif factor.levels is not None:
            levels = [level if isinstance(factor.levels, dict) else _plain(level) for level in factor.levels]
            values = ", ".join([*levels, *(["off"] if "off" in factor.model_fields_set else [])])
        else:
            values = "on, off"
        when = "; ".join(f"{path} is {_choice(value)}" for path, value in factor.when.items())
        found.append(Space(name, factor.setting or "(bundles of settings)", values, when))
    return tuple(found)


def _choice(value: Any) -> str:
    return " or ".join(map(_plain, value)) if isinstance(value, list) else _plain(value)


# --- words for people -------------------------------------------------------------------------------------------------


def describe(changed: dict[str, tuple[Any, Any]]) -> str:
    """What a variant changes, in words."""
    new = tuple(path.removesuffix("name") for path in changed if path.endswith(".name"))  # had other settings before
    return "; ".join(
        f"{path} {'off' if before == 'on' and after is None else _plain(after)}"
        + ("" if "on" in (before, after) or (before is None and path.startswith(new)) else f" (was {_plain(before)})")
        for path, (before, after) in changed.items()
    )


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: float) -> str:
    """Decimal units: `3.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def count(number: int, word: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
