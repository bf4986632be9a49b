"""What a cell of a study's table is made of: its trials, the baseline's beside them, and how they were compared."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from raysd.data.years import YEARS
from raysd.detect.metrics import ALL_MACHINES, averaging
from raysd.errors import BadInput
from raysd.paper.grids import Grid, Sheet
from raysd.paper.study_grids import TITLES, percent, probability, signed
from raysd.paper.values import At, Row, revision
from raysd.results.store import Results

if TYPE_CHECKING:
    from raysd.paper.tables import StudyTable

_COLUMNS = ("key", "seed", "metrics", "study", "variant", "provenance", "finished")


def origin(table: "StudyTable", results: Results, asked: str) -> Sheet:
    """What the cell that is `asked` for is made of; see `find_cell`."""
    row, at = find_cell(table, asked)
    part, machine, metric = at
    cell, baseline, one = row.cell(*at), table.rows[0].cell(*at), table.comparison(row, *at)
    compared = one is not None
    records = {record["key"]: record for record in results.rows(_COLUMNS, set(cell.keys.values()))}
    header = ["seed", "trial", "value"] + (["baseline's trial", "baseline", "difference"] if compared else [])
    rows = []
    for seed in sorted(cell.values.keys() | (baseline.values.keys() if compared else ())):
        shown = [str(seed), cell.keys.get(seed, "-"), _percent(cell.values.get(seed))]
        if compared:
            there = seed in cell.values and seed in baseline.values
            shown += [baseline.keys.get(seed, "-"), _percent(baseline.values.get(seed))]
            shown.append(signed(cell.values[seed] - baseline.values[seed]) if there else "no pair")
        rows.append(shown)
    grids = [Grid(header, rows, "trials", words=(0, 1, 3) if compared else (0, 1))]
    ordered = [records[cell.keys[seed]] for seed in sorted(cell.keys)]
    grids += _behind(ordered, at, table.year)
    about = [
        [
            *(str(record[name]) for name in ("seed", "key", "study", "variant")),
            revision(json.loads(record["provenance"])),
            f"{record['finished']:%Y-%m-%d %H:%M}",
        ]
        for record in ordered
    ]
    header = ["seed", "trial", "study that ran it", "its name there", "code", "finished (UTC)"]
    grids.append(Grid(header, about, "where the trials come from", words=range(len(header))))

    text = "no trial is finished" if not cell.values else f"{percent(cell.mean)}"
    text += f" ± {percent(cell.sd)}" if len(cell.values) > 1 else ""
    caption = [f"{text}, in percent, from {len(cell.values)} of {row.wanted} seeds"]
    if one is not None and one.n > 1:
        caption += [
            f"difference to the baseline {signed(one.difference)} [{percent(one.low)}, {percent(one.high)}] from "
            f"{one.n} pairs, p {probability(one.p)}; {probability(one.p_holm)} after Holm over {one.family}"
        ]
    elif compared:
        caption += ["no interval and no test: fewer than 2 seeds that the baseline has too"]
    if ordered:
        caption += [f"raysd show {ordered[0]['key']} --results {results} tells all of a trial"]
    what = f"{TITLES.get(metric, metric)}, {part}, {'mean over machines' if machine == ALL_MACHINES else machine}"
    return Sheet(f"{table.study}: {row.label}", what, caption, grids)


def _behind(records: Sequence[Mapping[str, Any]], at: At, year: int) -> list[Grid]:
    """The figures that each trial's value is a mean of: of sections; of machines, where it is a mean over machines."""
    part, machine, metric = at
    terms = YEARS[year].score_metrics if metric == "official" and machine != ALL_MACHINES else (metric,)
    lines: dict[tuple[str, str], dict[int, float]] = {}
    for record in records:
        for entry in record["metrics"]:
            if entry["part"] != part or entry["metric"] not in terms:
                continue
            if machine == ALL_MACHINES:
                if entry["section"] == averaging(year) and entry["machine"] != ALL_MACHINES:
                    lines.setdefault((entry["machine"], entry["metric"]), {})[record["seed"]] = entry["value"]
            elif entry["machine"] == machine and entry["section"].isdecimal():
                lines.setdefault((entry["section"], entry["metric"]), {})[record["seed"]] = entry["value"]
    of, names = ("machine" if machine == ALL_MACHINES else "section"), sorted(lines)
    rows = [[str(record["seed"]), *(_percent(lines[name].get(record["seed"])) for name in names)] for record in records]
    title = f"by {of}; a trial's value is their {averaging(year).replace('_', ' ')}"
    if machine == ALL_MACHINES and averaging(year) == "harmonic_mean":
        title = "by machine; a trial's value is the harmonic mean over all sections"
    header = [f"{name} {TITLES.get(term, term)}" if len(terms) > 1 else name for name, term in names]
    return [Grid(["seed", *header], rows, title)] if names else []


def find_cell(table: "StudyTable", asked: str) -> tuple[Row, At]:
    """The cell that words between commas name: a variant, a machine, a metric, a part, in any order.

    Without a machine the mean over all, without a metric the compared one, without a part the first. A variant may be
    named by what is in its name alone: `segments`, or `cutoff=2000` for `cutoff_hz=2000`. Raises BadInput for a word
    that names nothing, and where several variants fit.
    """
    metrics = {name.casefold(): metric for metric in table.metrics for name in (metric, TITLES.get(metric, metric))}
    kinds: list[dict[str, str]] = [
        {machine.casefold(): machine for machine in table.machines},
        metrics,
        {part.casefold(): part for part in table.parts},
    ]
    chosen = [table.machines[-1], table.metrics[0], table.parts[0]]
    left, whole = [], {row.variant.casefold(): row for row in table.rows}
    for word in filter(None, (word.strip() for word in asked.split(","))):
        known = [i for i, kind in enumerate(kinds) if word.casefold() in kind]
        if known and word.casefold() not in whole:
            chosen[known[0]] = kinds[known[0]][word.casefold()]
        else:
            left.append(word)
    named = whole.get(", ".join(left).casefold())
    fit = [named] if named else [row for row in table.rows if all(_fits(word, row.variant) for word in left)]
    own = ", ".join(f"{factor}={level}" for factor, level in table.rows[0].levels.items())
    if not fit and all(_fits(word, own) for word in left):  # levels of the baseline, that make no variant
        fit = [table.rows[0]]
    machine, metric, part = chosen
    if left and len(fit) == 1:
        return fit[0], (part, machine, metric)
    if not left or len(fit) > 1:
        rows = ", ".join(f"'{row.variant}'" for row in (fit or table.rows)[:8])
        raise BadInput(f"--explain '{asked}': say which variant: {rows}{', ...' if len(fit) > 8 else ''}")
    lost = next((word for word in left if not any(_fits(word, row.variant) for row in table.rows)), ", ".join(left))
    names = [*(row.variant for row in table.rows), *table.machines, *table.metrics, *table.parts]
    close = get_close_matches(lost, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "raysd table without --explain shows the names"
    raise BadInput(f"--explain '{asked}': '{lost}' is no variant, machine, metric or part of {table.study}; {hint}")


def _fits(word: str, variant: str) -> bool:
    """Whether a word is part of a variant's name; `factor=value` is where the value is the same."""
    word, variant = word.casefold(), variant.casefold()
    factor, equals, value = word.partition("=")
    if not equals:
        return word in variant
    pieces = (piece.partition("=") for piece in variant.split(", "))
    return any(factor.strip() in name and value.strip() == level for name, _, level in pieces)


def _percent(value: float | None) -> str:
    return "-" if value is None else percent(value)
