"""What a study still needs, what it will cost, and what its number of seeds can show. Launches nothing."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raysd.model.encoders import build_encoder
from raysd.recipe import Recipe, recipe_key
from raysd.results.statistics import smallest_p
from raysd.results.store import Timing
from raysd.study.design import LoadedStudy, Role, trials_of

_BYTES_PER_CLIP = 60  # of a record: a path, a few words and a score, compressed
_BYTES_PER_RECORD = 30_000  # what every record holds beside its clips


@dataclass(frozen=True)
class PlannedRow:
    """One variant of the plan."""

    name: str
    role: Role
    changed: dict[str, tuple[Any, Any]]
    seeds: int
    done: int
    seconds: float | None
    """Estimated for what is to do; None where nothing like it has been measured."""

    @property
    def to_do(self) -> int:
        return self.seeds - self.done


@dataclass(frozen=True)
class Plan:
    """A study against what is in the results."""

    study: str
    question: str
    profile: str | None
    seeds: tuple[int, ...]
    notes: tuple[str, ...]
    rows: tuple[PlannedRow, ...]
    trainings: int
    """Trainings to do; trials that differ in the scoring alone share one."""
    reused_trainings: int
    """Trainings whose embeddings are there, so that only the scoring is to do."""
    scorings: int
    """Trials to score: all that are to do."""
    seconds: float
    """Estimated for all trials of which something like it has been measured, one after another."""
    unknown_trials: int
    """Trials to do whose time cannot be estimated."""
    num_bytes: int | None
    """Estimated disk space: records, embeddings and the largest checkpoint under way. None: unknown."""
    smallest_p: float
    """The least p that an exact two-sided sign-flip test over the seeds can give."""
    data_known: bool
    """False: no data was given, so nothing could be found in the results."""

    @property
    def done(self) -> int:
        return sum(row.done for row in self.rows)


def make_plan(
    study: LoadedStudy,
    fingerprint: str | Callable[[Recipe], str] | None,
    done: Collection[str] = (),
    trained: Collection[str] = (),
    timings: Sequence[Timing] = (),
    sizes: tuple[float | None, float | None] = (None, None),
    clips: int | None = None,
) -> Plan:
    """The plan of a study.

    `done` and `trained` are the keys of trials and of embeddings that are there; `timings` are those of finished
    trials; `sizes` are mean bytes of a record and of a training's embeddings; `clips` counts the corpus. `fingerprint`
    None: the data is not known, and everything is to do.
    """
    trials = trials_of(study, fingerprint or "")
    if fingerprint is None:
        done, trained = (), ()
    to_do = [trial for trial in trials if trial.key not in done]
    keys = {trial.training_key for trial in to_do if type(trial.recipe.encoder).trains}
    estimate = _Estimate(timings, {trial.fingerprint for trial in trials} if fingerprint else None)

    paid: set[str] = set(trained)
    seconds: dict[str, list[float | None]] = {row.name: [] for row in study.variants}
    for trial in to_do:
        training, scoring = estimate.of(trial.recipe)
        if trial.training_key in paid:
            training = 0.0
        paid.add(trial.training_key)
        seconds[trial.variant].append(None if training is None or scoring is None else training + scoring)

    rows = []
    for row in study.variants:
        own, times = [trial for trial in trials if trial.variant == row.name], seconds[row.name]
        known = [time for time in times if time is not None]
        total = sum(known) if len(known) == len(times) else None
        rows.append(PlannedRow(row.name, row.role, row.changed, len(own), len(own) - len(times), total))
    times = [time for row in seconds.values() for time in row]
    trainings = keys - set(trained)
    checkpoint = _checkpoint_bytes(trial.recipe for trial in to_do if trial.training_key in trainings)
    return Plan(
        study=study.name,
        question=study.study.question,
        profile=study.profile,
        seeds=study.study.seeds,
        notes=study.notes,
        rows=tuple(rows),
        trainings=len(trainings),
        reused_trainings=len(keys) - len(trainings),
        scorings=len(to_do),
        seconds=sum(time for time in times if time is not None),
        unknown_trials=times.count(None),
        num_bytes=_disk(study.baseline.recipe, len(to_do), len(trainings), checkpoint, sizes, clips),
        smallest_p=smallest_p(len(study.study.seeds)),
        data_known=fingerprint is not None,
    )


class _Estimate:
    """Seconds of training and of scoring, from finished trials on the same data."""

    def __init__(self, timings: Sequence[Timing], fingerprints: set[str] | None) -> None:
        self._of_recipe: dict[str, list[tuple[float, float]]] = {}
        self._of_shape: dict[str, list[tuple[float, float]]] = {}
        about = {text: _cost(json.loads(text)) for text in {timing.recipe for timing in timings}}
        for timing in timings:
            if fingerprints is None or timing.data_fingerprint in fingerprints:
                shape, epochs = about[timing.recipe]
                scoring = timing.total_seconds - timing.train_seconds
                if scoring < 0:  # epochs were trained in another run
                    scoring = timing.total_seconds
                seconds = (timing.train_seconds / epochs, scoring)
                self._of_recipe.setdefault(timing.recipe_key, []).append(seconds)
                self._of_shape.setdefault(shape, []).append(seconds)
        self._known: dict[str, tuple[float | None, float | None]] = {}

    def of(self, recipe: Recipe) -> tuple[float | None, float | None]:
        """Medians over the trials of the recipe itself; else over those whose training costs as much an epoch."""
        key = recipe_key(recipe)
        if key not in self._known:
            shape, epochs = _cost(recipe.model_dump(mode="json"))
            like = self._of_recipe.get(key) or self._of_shape.get(shape) or []
            training, scoring = np.median(like, axis=0).tolist() if like else (None, None)
            self._known[key] = (None if training is None else training * epochs, scoring)
        return self._known[key]


def _cost(recipe: dict[str, Any]) -> tuple[str, int]:
    """What decides how long an epoch takes, as text, and the number of epochs."""
    loss = {key: part.get("name") if isinstance(part, dict) else part for key, part in recipe["loss"].items()}
    training = {key: recipe["train"][key] for key in ("batch_size", "precision", "channels_last")}
    parts = [recipe[key] for key in ("data", "features", "segments", "encoder")]
    return json.dumps([*parts, loss, training], sort_keys=True), recipe["train"]["epochs"]


def _disk(
    baseline: Recipe,
    records: int,
    trainings: int,
    checkpoint: int,
    sizes: tuple[float | None, float | None],
    clips: int | None,
) -> int | None:
    record, embeddings = sizes
    if clips is not None:
        dimension = getattr(baseline.encoder, "embedding_dim", baseline.features.num_bands)
        record = record or _BYTES_PER_RECORD + _BYTES_PER_CLIP * clips
        embeddings = embeddings or 4 * dimension * clips
    if record is None or embeddings is None:
        return None if records else 0
    return round(records * record + trainings * embeddings + checkpoint)


def _checkpoint_bytes(recipes: Iterable[Recipe]) -> int:
    """The largest: float32 weights with AdamW's two moments, and the averaged weights where there are some."""
    sizes: dict[str, int] = {}
    for recipe in recipes:
        encoder, bands, copies = recipe.encoder, recipe.features.num_bands, 3 if recipe.train.ema is None else 4
        key = f"{encoder.model_dump_json()} {bands} {copies}"
        if key not in sizes:
            sizes[key] = 4 * copies * sum(p.numel() for p in build_encoder(encoder, bands, seed=0).parameters())
    return max(sizes.values(), default=0)


# --- printing ---------------------------------------------------------------------------------------------------------


def render(plan: Plan) -> Group:
    """The plan for a terminal."""
    title = f"{plan.study}: {plan.question}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("variant", overflow="fold")
    table.add_column("differs from the baseline in", overflow="fold")
    for name in ("seeds", "done", "to do", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in plan.rows:
        if row.role == "reference" and table.rows:
            table.rows[-1].end_section = True
        changed = "(a reference)" if row.role == "reference" else describe(row.changed)
        time = "-" if row.to_do == 0 else "?" if row.seconds is None else duration(row.seconds)
        table.add_row(*map(Text, [row.name, changed, str(row.seeds), str(row.done), str(row.to_do), time]))
    return Group(table, *(Text(line) for line in summary(plan)))


def summary(plan: Plan) -> list[str]:
    """What stands below the table of a plan, line by line."""
    reused = f", {plan.reused_trainings} trained before" if plan.reused_trainings else ""
    lines = [
        f"{plan.scorings} of {plan.scorings + plan.done} trials to do: {_count(plan.trainings, 'training')}{reused}, "
        f"{_count(plan.scorings, 'scoring')}; {plan.done} in the results"
    ]
    if not plan.data_known:
        lines.append("the data is not known, so nothing could be looked up in the results: give --data-root")
    if plan.scorings:
        unknown = f"{_count(plan.unknown_trials, 'trial')} unlike any finished one"
        if plan.unknown_trials == plan.scorings:
            lines.append("time: unknown until a trial of this kind has finished on this data")
        else:
            more = f", and {unknown}" if plan.unknown_trials else ""
            lines.append(f"time: about {duration(plan.seconds)} one after another{more}")
        lines.append(f"disk: {'unknown' if plan.num_bytes is None else 'about ' + size(plan.num_bytes)}")
    lines.append(
        f"{_count(len(plan.seeds), 'seed')}: no two-sided test of paired differences can go below p = "
        f"{plan.smallest_p:.3g}" + ("; 6 seeds reach 0.031" if plan.smallest_p > 0.05 else "")
    )
    if plan.profile is not None:
        lines.append(f"profile: {plan.profile}")
    return [*lines, *(f"note: {note}" for note in plan.notes)]


def describe(changed: dict[str, tuple[Any, Any]]) -> str:
    """What a variant changes, in words."""
    return "; ".join(
        f"{path} {'off' if before == 'on' and after is None else _plain(after)}"
        + ("" if "on" in (before, after) else f" (was {_plain(before)})")
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


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
