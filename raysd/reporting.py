"""A study at hand -> its report: collects what the sections show."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raysd.drawing import study_drawings
from raysd.paper.grids import Grid
from raysd.paper.report import (
    Section,
    answer_section,
    failure_section,
    page,
    provenance_section,
    result_sections,
    search_sections,
    state_section,
    study_section,
)
from raysd.paper.sentences import answers, names_of, p_number
from raysd.paper.statistics import ALPHA, detectable_by_sign_flips, smallest_p
from raysd.paper.tables import ORACLE, StudyTable, study_tables
from raysd.paper.values import Row
from raysd.power import SHOWN, power_of
from raysd.session import Session
from raysd.status import StudyStatus, study_status
from raysd.study.cost import COLUMNS, paid_seconds
from raysd.study.design import LoadedStudy
from raysd.study.importance import importances
from raysd.study.plan import POWER, duration
from raysd.study.print_plan import summary
from raysd.study.search import build_optuna
from raysd.study.searched import searched


@dataclass(frozen=True)
class _Found:
    """What the results hold of a study, and what is said of it."""

    sections: list[Section]
    corpora: list[str]
    failed: dict[str, str]
    """Key of a trial -> what it is."""
    keys: set[str]
    """Of the finished trials."""


def study_report(session: Session, settings: Sequence[str] = (), command: str = "raysd report") -> str:
    """The report of a study as HTML, of all that the results hold of it: nothing need be finished.

    `settings` are those that were set on the command line beside the study file.
    """
    study, results = session.study, session.results
    found = _search(session) if session.is_search else _comparison(session)
    sections = [
        *found.sections,
        failure_section(results, found.failed),
        provenance_section(results, found.keys),
        study_section(study, settings),
    ]
    stamps = [ORACLE] if study.oracle else []
    data = f"On {'; on '.join(found.corpora)}. " if found.corpora else ""
    made = f"{data}Made by '{command}' on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    return page(study.name, study.study.question, stamps, sections, made)


def _comparison(session: Session) -> _Found:
    study, results = session.study, session.results
    statuses = study_status(study, results, session.fingerprint)
    finished = any(row.done for status in statuses for row in status.rows)
    fingerprint = session.fingerprint(study.baseline.recipe)
    tables = study_tables(study, results, fingerprint) if finished else []
    named = list(zip(names_of(tables), tables, strict=True))

    sections = []
    for name, table in named:
        said = answers(table, study)
        for part, answer in said.items():
            where = [name] * (len(tables) > 1) + [part] * (len(said) > 1)
            sections.append(answer_section(answer, ", ".join(where)))
    for name, table in named:
        drawings = study_drawings(table, results, study)
        sections += result_sections(table, drawings, name if len(tables) > 1 else "")
    sections = sections or [Section("Answer", "No trial is finished yet.")]

    keys = set[str]().union(*(_keys(row) for table in tables for row in table.rows))
    trials = {row["key"]: row for row in results.rows(COLUMNS, keys)} if keys else {}
    seconds = {
        (table.fingerprint, row.variant): [trials[key]["train_seconds"] for key in _keys(row)]
        for table in tables
        for row in table.rows
    }
    lines = [*_plan(session, statuses), *_cost(trials.values())]
    sections.append(state_section(statuses, lines, seconds, _seeds_to_come(study, tables)))
    failed = {one.key: f"{one.variant}, seed {one.seed}" for status in statuses for one in status.failures}
    return _Found(sections, [f"{name}, {', '.join(table.parts)}" for name, table in named], failed, keys)


def _search(session: Session) -> _Found:
    study, results = session.study, session.results
    found = searched(study, results, session.fingerprint(study.baseline.recipe))
    data = [f"DCASE {table.year}, {', '.join(table.machines)}" for table in (search.table() for search in found)]
    sections = list[Section]()
    for one, name in zip(found, data, strict=True):
        what_mattered = importances(build_optuna(study, one.suggestions))
        sections += search_sections(one, what_mattered, name if len(found) > 1 else "")
    sections = sections or [Section("Answer", "Nothing is suggested yet.")]
    keys = {key for search in found for key in search.trials}
    trials = results.rows(COLUMNS, keys) if keys else []
    sections.append(state_section([], [*_plan(session, []), *_cost(trials)], {}, []))
    failed = {one.key: one.name for search in found for one in search.suggestions if one.state == "failed"}
    failed |= {key: name for search in found for name, key in search.references.items() if key not in search.trials}
    return _Found(sections, data, failed, keys)


def _keys(row: Row) -> set[str]:
    """Of the trials behind a row."""
    return {key for cell in row.cells.values() for key in cell.keys.values()}


def _plan(session: Session, statuses: Sequence[StudyStatus]) -> list[str]:
    """What the plan says, line by line; it needs the data, unless there is nothing left to do."""
    if session.data_root:
        return summary(session.plan())
    if statuses and all(len(row.done) == row.seeds for status in statuses for row in status.rows):
        return ["All trials are done: nothing is left to be planned."]
    return ["What is left to do, and what it will cost, is planned with the data at hand: give --data-root."]


def _cost(trials: Collection[Mapping[str, Any]]) -> list[str]:
    """What the finished trials took."""
    if not trials:
        return []
    training, all_of_it = duration(sum(row["train_seconds"] for row in trials)), duration(paid_seconds(trials))
    return [f"The {len(trials)} finished trials took {all_of_it} one after another, {training} of it training."]


def _seeds_to_come(study: LoadedStudy, tables: Sequence[StudyTable]) -> list[Grid]:
    """What more seeds could show, or fewer, going by the spread that was seen; of each corpus and part."""
    grids = []
    for power in power_of(study, tables):
        if power.spread is None or not power.family:
            continue
        rows = []
        for num_seeds in sorted({*SHOWN, power.num_seeds}):
            least = [detectable_by_sign_flips(power.spread.sd, num_seeds, POWER, alpha) for alpha in power.alphas]
            sizes = ("none" if math.isinf(one) else f"{100 * one:.2f}" for one in least)
            rows.append([str(num_seeds), p_number(smallest_p(num_seeds)), *sizes])
        seen = f"sd of differences {100 * power.spread.sd:.2g}, alpha {ALPHA}, power {POWER}"
        title = f"Smallest detectable difference in points, {power.metric}, {power.place}: {seen}"
        grids.append(Grid(["seeds", "least p", *power.titles], rows, title, words=()))
    return grids
