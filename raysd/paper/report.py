"""The report of a study: one HTML file that needs nothing else, made of sections; a new kind of section is a function.

What is shown is given as values: raysd/reporting.py collects them.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from raysd.errors import BadInput
from raysd.paper.figures import Drawing, factor_importances, objective_history, two_rankings
from raysd.paper.ranking import rank_agreement
from raysd.paper.search_table import title
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
PROXIES = ("proxy_perturbed", "proxy_other_sections")


@dataclass(frozen=True)
class Grid:
    """A table of text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    words: Collection[int] = (0,)
    """The columns that hold words, not numbers."""
    references_at: int = -1
    """The row from which on rows are references; -1: none are."""


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
    lines: Sequence[str] = ()
    notes: Sequence[str] = ()
    """Smaller: what holds for the tables below."""
    grids: Sequence[Grid] = ()
    drawings: Sequence[Drawing] = ()
    listings: Sequence[Listing] = ()


def page(name: str, question: str, stamps: Sequence[str], sections: Sequence[Section], made: str) -> str:
    """The whole file. `stamps` stand at the top of the page; `made` tells how it was made."""
    templates = Environment(
        loader=PackageLoader("raysd.paper", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = templates.get_template("report.html").render(
        mark=MARK, name=name, question=question, stamps=stamps, sections=sections, made=made
    )
    return text + "\n"


def write_page(path: Path, text: str) -> None:
    """Writes a report whole. Raises BadInput where something else is there, or the place cannot be written."""
    try:
        if path.is_dir() or (path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")):
            raise BadInput(f"{path}: is there, and is no report of raysd; give another file with --to")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); give another file with --to") from None
    open_storage(path.absolute().parent).replace(path.name, text.encode())


# --- studies that compare variants ------------------------------------------------------------------------------------


def table_section(table: StudyTable) -> Section:
    """The table of a study on one corpus."""
    grids = [Grid(header, rows, title, (0,), at) for title, header, rows, at in table.grids()]
    return Section(f"Results on DCASE {table.year}", notes=table.caption(), grids=grids)


def state_section(statuses: "Sequence[StudyStatus]", plan: Sequence[str]) -> Section:
    """How far the study is, by variant, and what its plan says where the data is at hand."""
    grids = []
    for status in statuses:
        rows = [
            [
                row.name,
                f"{len(row.done)}/{row.seeds}",
                *(str(len(part)) for part in (row.begun, row.failed, row.missing)),
            ]
            for row in status.rows
        ]
        on = f"data {status.fingerprint}: " if status.fingerprint else ""
        grids.append(Grid(["variant", "done", "begun", "failed", "missing"], rows, on + status.summary()))
    return Section("State and plan", lines=plan, grids=grids)


# --- searches ---------------------------------------------------------------------------------------------------------


def search_sections(found: "Searched", importances: "Sequence[Importance]") -> list[Section]:
    """What a search has found on one corpus."""
    table = found.table()
    header, rows = table.grid()
    factors_at = len(header) - len(table.factors)
    words = {0, 1, *range(factors_at, len(header))}
    grid = Grid(header, rows, "", words, table.references_at)
    return [
        Section(f"The search on DCASE {table.year}", _in_short(found)),
        Section(
            "Suggestions, the best first",
            notes=table.caption(),
            grids=[grid],
        ),
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
        return Section(heading, [*lines, "No finished suggestion has both a proxy and the official metric."])
    notes = [
        "Spearman's rank correlation over finished suggestions of different recipes; 95 % percentile bootstrap over "
        "them. Pruned ones have no official metric. The sampler looks where the objective is high, so that over the "
        "whole space the correlation may be another.",
    ]
    header = ["proxy", "role", "n", "Spearman", "from", "to"]
    return Section(heading, lines, notes, [Grid(header, rows, words=(0, 1))], drawings)


def _importance_section(found: "Searched", importances: "Sequence[Importance]") -> Section:
    heading, finished = "What mattered for the objective", len(found.finished)
    if not importances:
        return Section(heading, [f"{finished} finished: too few, or too much alike, to say which factor mattered."])
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
        last, text = attempts[-1], str(attempts[-1]["traceback"] or "nothing was said")
        message = text.strip().splitlines()[-1]
        rows.append(
            [names[key], last["failure_kind"], message, str(len(attempts)), f"{last['finished']:%Y-%m-%d %H:%M}"]
        )
        listings.append(Listing(f"{names[key]}: traceback", text, folded=True))
    if not rows:
        return Section("Failures", ["None."])
    header = ["trial", "kind", "what was said", "attempts", "last (UTC)"]
    return Section("Failures", grids=[Grid(header, rows, words=(0, 1, 2))], listings=listings)


def study_section(study: "LoadedStudy", settings: Sequence[str]) -> Section:
    """The study file as it stands, with what was set beside it, and notes on how its variants came about."""
    lines = [f"Profile: {study.profile}."] if study.profile else []
    lines += [f"Set on the command line: {', '.join(settings)}."] if settings else []
    lines += [f"Note: {note}." for note in study.notes]
    return Section("The study file", lines, listings=[Listing(study.path.name, study.path.read_text(encoding="utf-8"))])


def provenance_section(results: Results, keys: Collection[str]) -> Section:
    """Where the numbers come from, as the records of the trials tell; every value with the trials that have it."""
    columns = ["provenance", "numerics", "started", "finished", "train_seconds"]
    rows = results.rows(columns, keys) if keys else []
    if not rows:
        return Section("Provenance", ["No finished trial."])
    origins = [json.loads(row["provenance"]) for row in rows]
    skipped = {clip for origin in origins for clip in origin.get("skipped", [])}
    hours = sum(row["train_seconds"] for row in rows) / 3600
    first, last = min(row["started"] for row in rows), max(row["finished"] for row in rows)
    lines = [f"{len(rows)} trials, {_time(first)} to {_time(last)} (UTC), {hours:.2f} hours of training in all."]
    if skipped:
        lines.append(f"{len(skipped)} clips could not be read and were skipped: {', '.join(sorted(skipped))}.")
    told = {
        "commit": (_commit(origin) for origin in origins),
        "numerics": (str(row["numerics"]) for row in rows),
        "Python": (origin.get("python") for origin in origins),
        **{
            name: ((origin.get("packages") or {}).get(name) for origin in origins)
            for name in dict.fromkeys(name for origin in origins for name in origin.get("packages") or {})
        },
        "platform": (origin.get("platform") for origin in origins),
        "processor": (origin.get("cpu") for origin in origins),
        "initial weights": (_weights(origin) for origin in origins),
        "trained on": (origin.get("train_sets") for origin in origins),
        "checkpoint": (origin.get("checkpoint") for origin in origins),
        "command": (" ".join(origin.get("command") or []) for origin in origins),
    }
    grid = Grid(["what", "value (trials)"], [[what, _counted(values)] for what, values in told.items()], words=(0, 1))
    return Section("Provenance", lines, grids=[grid])


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
