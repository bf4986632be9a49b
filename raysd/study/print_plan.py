"""A plan for a terminal: its table, and the lines below it."""

from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raysd.paper.statistics import ALPHA, seeds_to_reach
from raysd.study.plan import POWER, Plan, count, describe, duration, size

MOST_ROWS = 100
"""Variants that the table shows."""


def render(plan: Plan) -> Group:
    """The plan for a terminal."""
    title = f"{plan.study}: {plan.question}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("variant", overflow="fold")
    table.add_column("differs from the baseline in", overflow="fold")
    for name in ("seeds", "done", "train", "score", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    compared = [row for row in plan.rows if row.role != "reference"]
    shown = [*compared[:MOST_ROWS], *(row for row in plan.rows if row.role == "reference")]
    for i, row in enumerate(shown):
        if row.role == "reference" and i and shown[i - 1].role != "reference":
            table.rows[-1].end_section = True
        changed = "(a reference)" if row.role == "reference" else describe(row.changed)
        if plan.space and row.role == "variant":
            changed = "the factors below"
        time = "-" if row.scorings == 0 else "?" if row.seconds is None else duration(row.seconds)
        counts = [str(number) if number else "-" for number in (row.done, row.trainings, row.scorings)]
        table.add_row(*map(Text, [row.name, changed, str(row.seeds), *counts, time]))
    parts: list[Any] = [table]
    if len(compared) > MOST_ROWS:
        parts.append(Text(f"and {len(compared) - MOST_ROWS:,} more variants, which --json lists"))
    if plan.space:
        space = Table(box=box.SIMPLE_HEAD)
        for name in ("factor", "setting", "values", "only where"):
            space.add_column(name, overflow="fold")
        for factor in plan.space:
            space.add_row(*map(Text, (factor.factor, factor.setting, factor.values, factor.when)))
        parts += [space, Text(f"search: {plan.searched}")]
    return Group(*parts, *(Text(line) for line in summary(plan)))


def summary(plan: Plan) -> list[str]:
    """What stands below the table of a plan, line by line."""
    reused = f", {plan.reused_trainings} trained before" if plan.reused_trainings else ""
    lines = [
        f"{plan.scorings} of {plan.scorings + plan.done} trials to do: {count(plan.trainings, 'training')}{reused}, "
        f"{count(plan.scorings, 'scoring')}; {plan.done} in the results"
        + (f", which took {duration(plan.paid_seconds)}" if plan.paid_seconds else "")
    ]
    if not plan.data_known:
        lines.append("the data is not known, so nothing was looked up in the results or timed: give --data-root")
    if plan.scorings:
        lines += _time(plan) if plan.data_known else []
        lines.append(f"disk: {'unknown' if plan.num_bytes is None else 'about ' + size(plan.num_bytes)}")
    if plan.budget:
        lines.append(plan.budget)
    lines += _what_seeds_show(plan) if not plan.space else []
    if plan.profile is not None:
        lines.append(f"profile: {plan.profile}")
    return [*lines, *(f"note: {note}" for note in plan.notes)]


def _time(plan: Plan) -> list[str]:
    like = "finished one" if plan.records_read is None else f"of the {plan.records_read:,} finished ones looked at"
    if plan.unknown_trials == plan.scorings:
        line = f"time: unknown, as these trials are unlike any {like}; --calibrate measures"
    else:
        line = f"time: about {duration(plan.seconds)} one after another"
        if plan.wall_seconds is not None and plan.room.at_once > 1:
            line += f", {duration(plan.wall_seconds)} with {plan.room.at_once} at a time ({plan.room.reason})"
        elif plan.room.reason:
            line += f" ({plan.room.reason})"
        if plan.gpu_hours is not None:
            line += f"; {plan.gpu_hours:.3g} GPU-hours"
        if plan.unknown_trials:
            line += f"; and {count(plan.unknown_trials, 'trial')} unlike any {like} (--calibrate measures)"
    return [line, *([plan.measured] if plan.measured else [])]


def _what_seeds_show(plan: Plan) -> list[str]:
    seeds, least = count(len(plan.seeds), "seed"), f"p = {plan.smallest_p:.3g}"
    test, step = "the exact two-sided test of paired differences", ALPHA / max(plan.family, 1)
    if plan.smallest_p > ALPHA:
        enough = seeds_to_reach(ALPHA)
        lines = [f"{seeds} cannot reach p < {ALPHA}: {test} ends at {least}; {enough} seeds reach 0.031"]
    else:
        lines = [f"{seeds}: {test} goes down to {least}"]
        if plan.smallest_p > step:
            lines.append(
                f"of {plan.family} variants Holm's first has to be below p = {step:.2g}, which takes "
                f"{seeds_to_reach(step)} seeds"
            )
    if plan.spread is None and plan.data_known:
        lines += ["smallest detectable difference: unknown until two seeds of the baseline are there"]
    if plan.spread is not None:
        least = f"none with {seeds}, however large"
        if plan.detectable is not None:
            least = f"{100 * plan.detectable:.2g} points with {seeds} (that test, alpha {ALPHA}, power {POWER})"
        lines += [
            f"smallest detectable difference in {plan.metric}: {least}",
            f"sd of differences: {100 * plan.spread.sd:.2g} points, {plan.spread.source}",
        ]
    return lines
