"""The report of a study: one HTML file that needs nothing else, made of sections; a new kind of section is a function.

What is shown is given as values: raysd/reporting.py collects them. The file may run its own script, which sorts tables,
and load nothing: its Content-Security-Policy forbids all else.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysd.errors import BadInput
from raysd.paper.figures import Drawing, factor_importances, objective_history, two_rankings
from raysd.paper.formats import templates
from raysd.paper.grids import Entry, Grid
from raysd.paper.ranking import rank_agreement
from raysd.paper.search_table import title
from raysd.paper.sentences import Answer
from raysd.paper.tables import ORACLE, StudyTable
from raysd.results.storage import open_storage
from raysd.results.store import Results

if TYPE_CHECKING:
    from raysd.status import StudyStatus
    from raysd.study.design import LoadedStudy
    from raysd.study.importance import Importance
    from raysd.study.searched import Searched

MARK = '<meta name="generator" content="raysd report">'
"""By this a file is known as a report, which the next one may replace."""
POLICY = "; ".join(
    [
        *("default-src 'none'", "style-src 'unsafe-inline'", "script-src 'unsafe-inline'", "img-src data:"),
        *("base-uri 'none'", "form-action 'none'"),
    ]
)
"""What the file may load: nothing. Its styles and its script stand in it."""
WIDE = 120
"""What has a table with longer rows, in characters, is printed on pages turned sideways."""
LONG_WORDS = 30
"""So many characters of words stand in one line, where there is little room."""
OPEN_UP_TO = 5
"""A list of more points is folded."""
PROXIES = ("proxy_perturbed", "proxy_other_sections")


@dataclass(frozen=True)
class Listing:
    """Long text as it is, for instance a file or a traceback."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """One part of a report; whatever of it is empty is not shown."""

    title: str
    lead: str = ""
    """Its first sentence, larger than the others."""
    lines: Sequence[str] = ()
    points_title: str = ""
    points: Sequence[str] = ()
    notes: Sequence[str] = ()
    """Smaller: what holds for the tables."""
    grids: Sequence[Grid] = ()
    drawings: Sequence[Drawing] = ()
    listings: Sequence[Listing] = ()

    @property
    def is_wide(self) -> bool:
        """Whether it is printed on pages turned sideways."""
        return any(_row_length(grid) > WIDE for grid in self.grids)


def _row_length(grid: Grid) -> int:
    """Characters of its longest row; heads and words are broken where they are long."""
    columns = zip(grid.header, *([entry.text for entry in row] for row in grid.entries()), strict=True)
    total = 0
    for i, (head, *texts) in enumerate(columns):
        longest = max(map(len, texts), default=0)
        total += 2 + max(*map(len, head.split()), min(longest, LONG_WORDS) if i in grid.words else longest)
    return total


def page(name: str, question: str, stamps: Sequence[str], sections: Sequence[Section], made: str) -> str:
    """The whole file. `stamps` stand at the top of the page; `made` tells how it was made."""
    environment = templates()
    environment.filters["unbroken"] = _unbroken
    environment.globals |= {"blocks": _blocks, "open_up_to": OPEN_UP_TO}
    text = environment.get_template("report.html").render(
        mark=MARK, policy=POLICY, name=name, question=question, stamps=stamps, sections=sections, made=made
    )
    return text + "\n"


def _unbroken(text: str) -> str:
    """With no end of a line within an interval, or between a number and what it is."""
    text = re.sub(r"(?<=[\d.],) (?=[-+\d.]+\])", "\u00a0", text)
    return re.sub(r"(?<=\bp) (?=[=<])|(?<=[=<]) (?=\d)|(?<=\d) (?=points|seeds|%)", "\u00a0", text)


def _blocks(grid: Grid) -> list[tuple[str, list[Sequence[Entry]]]]:
    """The rows of a table below the line that stands over them; the first of them often have none."""
    blocks: list[tuple[str, list[Sequence[Entry]]]] = [("", [])]
    for i, row in enumerate(grid.entries()):
        if i in grid.breaks:
            blocks.append((grid.breaks[i], []))
        blocks[-1][1].append(row)
    return [block for block in blocks if block[1]]


def write_page(path: Path, text: str) -> None:
    """Writes a report whole. Raises BadInput where something else is there, or the place cannot be written."""
    try:
        if path.is_dir() or (path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")):
            raise BadInput(f"{path}: is there, and is no report of raysd; give another file with --to")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); give another file with --to") from None
    open_storage(path.absolute().parent).replace(path.name, text.encode())


# --- studies that compare variants ------------------------------------------------------------------------------------


def answer_section(answer: Answer, where: str) -> Section:
    """What the numbers say, before any of them. `where` is empty where there is but one answer."""
    points = answer.variants if len(answer.variants) > 1 else ()
    return Section(_on("Answer", where), answer.sentence, answer.more, "Variant by variant", points)


def result_sections(table: StudyTable, drawings: Sequence[Drawing], where: str) -> list[Section]:
    """The tables and figures of a study on one corpus, the most telling of each first and together."""
    grids, metrics = table.grids(), len(table.metrics)
    first = (
        [0, metrics, metrics + 1] if len(table.machines) > 1 else [0]
    )  # its differences stand in tables of their own
    telling, others = [grids[i] for i in first], [grid for i, grid in enumerate(grids) if i not in first]
    return [
        Section(_on("Results", where), grids=telling, notes=table.caption(), drawings=drawings[:1]),
        *([Section(_on("More tables", where), grids=others)] if others else []),
        *([Section(_on("More figures", where), drawings=drawings[1:])] if drawings[1:] else []),
    ]


def state_section(
    statuses: "Sequence[StudyStatus]",
    lines: Sequence[str],
    training: Mapping[tuple[str, str], Sequence[float]],
    more: Sequence[Grid],
) -> Section:
    """How far the study is, and what its trials took, by variant; `lines` say what the plan and the results say of all.

    `training` has the seconds of each finished trial, by the fingerprint of the corpus and the variant. `more` tables
    say what the plan says of seeds to come.
    """
    grids = []
    for status in statuses:
        rows = []
        for row in status.rows:
            seconds = training.get((status.fingerprint or "", row.name), ())
            took = (f"{np.median(seconds):.1f}", f"{sum(seconds) / 60:.1f}") if seconds else ("-", "-")
            counts = (str(len(part)) for part in (row.begun, row.failed, row.missing))
            rows.append([row.name, f"{len(row.done)}/{row.seeds}", *counts, *took])
        first_reference = sum(row.role != "reference" for row in status.rows)
        header = ["variant", "done", "begun", "failed", "missing", "training, s (median)", "in all, min"]
        on = f"data {status.fingerprint}: " if status.fingerprint else ""
        grids.append(Grid(header, rows, on + status.summary(), breaks={first_reference: "references"}))
    return Section("State, plan and cost", lines=lines, grids=[*grids, *more])


# --- searches ---------------------------------------------------------------------------------------------------------


def search_sections(found: "Searched", importances: "Sequence[Importance]", where: str = "") -> list[Section]:
    """What a search has found on one corpus. `where` is empty where there is no other."""
    table = found.table()
    first, *others = _in_short(found)
    return [
        Section(_on("Answer", where), first, others),
        Section(_on("Suggestions, the best first", where), notes=table.caption(), grids=[table.grid()]),
        Section(
            "The objective as the search went on",
            drawings=[objective_history(found.suggestions, title(found.objective))],
        ),
        _ranking_section(found),
        _importance_section(found, importances),
    ]


def _in_short(found: "Searched") -> list[str]:
    if not found.finished:
        return ["No suggestion is finished yet."]
    best, metric = found.finished[0], found.study.study.metric
    baseline = next((one for one in found.finished if one.number == 0), None)
    than = f"the baseline has {_percent(baseline.value)}" if baseline else "the baseline is not finished"
    lines = [f"Best by {title(found.objective)}: {best.name}, {_percent(best.value)}; {than}."]
    if best.number == 0:
        return [f"No suggestion beats the baseline in {title(found.objective)} ({_percent(best.value)})."]
    official = {one.number: found.metric(one, metric) for one in _distinct(found)}
    known = {number: value for number, value in official.items() if value is not None}
    if best.number in known and not found.settings.oracle:
        place = 1 + sum(value > known[best.number] for value in known.values())
        baseline_has = f"; the baseline has {_percent(known[0])}" if 0 in known else ""
        lines.append(
            f"By the {title(metric)}, which the search never looked at, it is number {place} of {len(known)}: "
            f"{_percent(known[best.number])}{baseline_has}."
        )
    lines.append(
        f"It is the best of {len(_distinct(found))}, with one seed, so that its values are optimistic. For an honest "
        f"number: raysd promote {found.study.name} --as FILE, then a run of that recipe with fresh seeds."
    )
    return lines


def _ranking_section(found: "Searched") -> Section:
    """How each proxy ranked the finished suggestions, against the metric that is compared, after the fact."""
    metric, heading = found.study.study.metric, "Did the objective rank as the official metric does?"
    lines, rows, drawings = [], [], []
    if found.settings.oracle:
        lines.append(f"{ORACLE}. The objective is the {title(metric)} itself; below are the proxies it did not use.")
    for proxy in sorted(PROXIES, key=lambda name: name != found.objective):
        pairs = [(one, found.metric(one, proxy), found.metric(one, metric)) for one in _distinct(found)]
        both = [(one, x, y) for one, x, y in pairs if x is not None and y is not None]
        if not both:
            continue
        ones, first, second = zip(*both, strict=True)
        agreement = rank_agreement(np.array(first), np.array(second))
        sentence = agreement.sentence(f"the {title(proxy)}", f"the {title(metric)}", "finished suggestions")
        lines.append(sentence[0].upper() + sentence[1:] + ".")
        role = "objective" if proxy == found.objective else "not looked at"
        numbers = (agreement.rho, agreement.low, agreement.high)
        rows.append([title(proxy), role, str(agreement.num), *("-" if np.isnan(x) else f"{x:+.2f}" for x in numbers)])
        drawings.append(two_rankings(ones, first, second, (title(proxy), title(metric)), found.finished[0].number))
    if not rows:
        return Section(heading, lines=[*lines, "No finished suggestion has both a proxy and the official metric."])
    notes = [
        "Spearman's rank correlation over finished suggestions of different recipes; 95 % percentile bootstrap over "
        "them. Pruned ones have no official metric. The sampler looks where the objective is high, so that over the "
        "whole space the correlation may be another.",
    ]
    header = ["proxy", "role", "n", "Spearman", "from", "to"]
    grid = Grid(header, rows, words=(0, 1))
    return Section(heading, lines=lines, notes=notes, grids=[grid], drawings=drawings)


def _importance_section(found: "Searched", importances: "Sequence[Importance]") -> Section:
    heading, finished = "What mattered for the objective", len(found.finished)
    if not importances:
        return Section(
            heading, lines=[f"{finished} finished: too few, or too much alike, to say which factor mattered."]
        )
    shares = {one.factor: {"fANOVA": one.fanova, "PED-ANOVA": one.ped_anova} for one in importances}
    rows = [
        [one.factor, f"{one.had}/{one.of}", *("-" if share is None else f"{100 * share:.0f}" for share in by.values())]
        for one, by in zip(importances, shares.values(), strict=True)
    ]
    notes = [
        "Percent of the sum over factors, by Optuna. fANOVA: the part of the objective's variance that a random forest "
        "traces to the factor alone. PED-ANOVA: how differently the factor is set in the best suggestions and in all.",
        f"From {importances[0].of} finished suggestions that hold all that their settings ask for; pruned ones do not "
        "count. had: in how many of them the factor means anything. fANOVA compares only factors that all of them had.",
        "The suggestions are few and chosen by the sampler: where the two disagree, or a share is small, nothing is "
        "shown. Importance for the objective is no importance for the official metric.",
    ]
    header = ["factor", "had", "fANOVA", "PED-ANOVA"]
    return Section(heading, notes=notes, grids=[Grid(header, rows)], drawings=[factor_importances(shares)])


def _distinct(found: "Searched") -> list[Any]:
    """The finished suggestions, each recipe once: one that was suggested twice is no second observation."""
    return list({one.key: one for one in reversed(found.finished)}.values())[::-1]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


# --- both -------------------------------------------------------------------------------------------------------------


def failure_section(results: Results, names: dict[str, str]) -> Section:
    """The last failed attempt at each trial of `names` (key -> what it is), with its traceback."""
    tried: dict[str, list[dict[str, Any]]] = {}
    failures = results.failures(["key", "failure_kind", "traceback", "finished"]).to_dict("records")
    for row in sorted(failures, key=lambda row: row["finished"]):
        if row["key"] in names:
            tried.setdefault(row["key"], []).append(row)
    rows, listings = [], []
    for key, attempts in tried.items():
        last, text = attempts[-1], _without_folders(str(attempts[-1]["traceback"] or "nothing was said"))
        message = text.strip().splitlines()[-1]
        rows.append(
            [names[key], last["failure_kind"], message, str(len(attempts)), f"{last['finished']:%Y-%m-%d %H:%M}"]
        )
        listings.append(Listing(f"{names[key]}: traceback", text, folded=True))
    if not rows:
        return Section("Failures", lines=["None."])
    header = ["trial", "kind", "what was said", "attempts", "last (UTC)"]
    return Section("Failures", grids=[Grid(header, rows, words=(0, 1, 2))], listings=listings)


def study_section(study: "LoadedStudy", settings: Sequence[str]) -> Section:
    """The study file as it stands, with what was set beside it, and notes on how its variants came about."""
    lines = [f"Profile: {study.profile}."] if study.profile else []
    lines += [f"Set on the command line: {_without_folders(', '.join(settings))}."] if settings else []
    lines += [f"Note: {note}." for note in study.notes]
    text = study.path.read_text(encoding="utf-8")
    return Section("The study file", lines=lines, listings=[Listing(study.path.name, text)])


def provenance_section(results: Results, keys: Collection[str]) -> Section:
    """Where the numbers come from, as the records of the trials tell; every value with the trials that have it."""
    columns = ["provenance", "numerics", "started", "finished", "train_seconds"]
    rows = results.rows(columns, keys) if keys else []
    if not rows:
        return Section("Provenance", lines=["No finished trial."])
    origins = [json.loads(row["provenance"]) for row in rows]
    skipped = {clip for origin in origins for clip in origin.get("skipped", [])}
    hours = sum(row["train_seconds"] for row in rows) / 3600
    first, last = min(row["started"] for row in rows), max(row["finished"] for row in rows)
    lines = [f"{len(rows)} trials, {_time(first)} to {_time(last)} (UTC), {hours:.2f} hours of training in all."]
    if skipped:
        lines.append(f"{len(skipped)} clips could not be read and were skipped: {', '.join(sorted(skipped))}.")
    told = {
        "commit": [_commit(origin) for origin in origins],
        "numerics": [str(row["numerics"]) for row in rows],
        "Python": [origin.get("python") for origin in origins],
        **{
            name: [(origin.get("packages") or {}).get(name) for origin in origins]
            for name in dict.fromkeys(name for origin in origins for name in origin.get("packages") or {})
        },
        "platform": [origin.get("platform") for origin in origins],
        "processor": [origin.get("cpu") for origin in origins],
        "initial weights": [_weights(origin) for origin in origins],
        "trained on": [origin.get("train_sets") for origin in origins],
        "checkpoint": [origin.get("checkpoint") for origin in origins],
        "command": [" ".join(origin.get("command") or []) for origin in origins],
    }
    grid = Grid(["what", "value (trials)"], [[what, _counted(values)] for what, values in told.items()], words=(0, 1))
    return Section("Provenance", lines=lines, grids=[grid])


def _without_folders(text: str) -> str:
    """With the names of files alone: a report is passed on, the folders of a machine are not."""
    return re.sub(r"(?<![\w./])/(?:[^\s/'\":,]+/)+(?=[^\s/'\":,]+)", "", text)


def _on(what: str, where: str) -> str:
    return f"{what} on {where}" if where else what


def _commit(origin: dict[str, Any]) -> str | None:
    commit = origin.get("commit")
    return f"{commit[:12]}, with changes that are not committed" if commit and origin.get("dirty") else commit


def _weights(origin: dict[str, Any]) -> str:
    """What a training started from, with its licence."""
    given = origin.get("pretrained")
    return f"{given['weights']} (licence: {given['licence']})" if given else "random"


def _counted(values: Iterable[str | None]) -> str:
    counts = Counter(value or "not known" for value in values)
    return "; ".join(f"{value} ({count})" if len(counts) > 1 else value for value, count in counts.most_common())


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"
