"""A study at hand -> its report: collects what the sections show."""

from collections.abc import Sequence
from datetime import UTC, datetime

from raysd.paper.report import (
    Section,
    failure_section,
    page,
    provenance_section,
    search_sections,
    state_section,
    study_section,
    table_section,
)
from raysd.paper.tables import ORACLE, study_tables
from raysd.session import Session
from raysd.status import study_status
from raysd.study.importance import importances
from raysd.study.print_plan import summary
from raysd.study.search import build_optuna
from raysd.study.searched import searched


def study_report(session: Session, settings: Sequence[str] = (), command: str = "raysd report") -> str:
    """The report of a study as HTML, of all that the results hold of it: nothing need be finished.

    `settings` are those that were set on the command line beside the study file.
    """
    study = session.study
    sections, names, keys = _search(session) if session.is_search else _comparison(session)
    sections += [
        failure_section(session.results, names),
        study_section(study, settings),
        provenance_section(session.results, keys),
    ]
    stamps = [ORACLE] if study.oracle else []
    now = datetime.now(UTC)
    made = f"Made by '{command}' on {now:%Y-%m-%d %H:%M} UTC."
    return page(study.name, study.study.question, stamps, sections, made)


def _comparison(session: Session) -> tuple[list[Section], dict[str, str], set[str]]:
    """Sections, the failed trials by key, the keys of the finished ones."""
    statuses = study_status(session.study, session.results, session.fingerprint)
    finished = any(row.done for status in statuses for row in status.rows)
    fingerprint = session.fingerprint(session.study.baseline.recipe)
    tables = study_tables(session.study, session.results, fingerprint) if finished else []
    sections = [table_section(table) for table in tables] or [Section("Results", ["No trial is finished yet."])]
    names = {
        failure.key: f"{failure.variant}, seed {failure.seed}" for status in statuses for failure in status.failures
    }
    rows = [row for table in tables for row in table.rows]
    keys = {key for row in rows for cell in row.cells.values() for key in cell.keys.values()}
    return [*sections, state_section(statuses, _plan(session))], names, keys


def _search(session: Session) -> tuple[list[Section], dict[str, str], set[str]]:
    """The same of a search."""
    study = session.study
    found = searched(study, session.results, session.fingerprint(study.baseline.recipe))
    sections = [
        section for one in found for section in search_sections(one, importances(build_optuna(study, one.suggestions)))
    ]
    names = {one.key: one.name for search in found for one in search.suggestions if one.state == "failed"}
    names |= {key: name for search in found for name, key in search.references.items() if key not in search.trials}
    keys = {key for search in found for key in search.trials}
    sections = sections or [Section("The search", ["Nothing is suggested yet."])]
    return [*sections, state_section([], _plan(session))], names, keys


def _plan(session: Session) -> list[str]:
    return summary(session.plan()) if session.data_root else ["Nothing is planned without the data: give --data-root."]
