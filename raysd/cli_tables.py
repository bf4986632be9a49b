"""The command `table`."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from raysd.cli_options import (
    DEFAULT_CACHE,
    DEFAULT_RESULTS,
    Cache,
    Profile,
    ResultsRoot,
    Seeds,
    Set,
    SkipBad,
    SomeDataRoot,
    StudyName,
    open_session,
    out,
)
from raysd.errors import BadInput

if TYPE_CHECKING:
    from raysd.paper.search_table import SearchTable
    from raysd.paper.tables import StudyTable
    from raysd.results.store import Results
    from raysd.session import Session


class TableFormat(StrEnum):
    """How a table is printed."""

    terminal = "terminal"
    markdown = "markdown"
    latex = "latex"
    html = "html"
    csv = "csv"
    macros = "macros"


def table(
    study: StudyName,
    results: ResultsRoot = DEFAULT_RESULTS,
    data_root: SomeDataRoot = None,
    set_: Set = None,
    profile: Profile = None,
    seeds: Seeds = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print it.")] = TableFormat.terminal,
    published: Annotated[
        bool, typer.Option("--published", help="Beside what others have published on the study's year (2020, 2022).")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="CELL",
            help="What one cell is made of, trial by trial: a variant, and if need be a machine, a metric, a part, for "
            'instance "cutoff=2000,fan".',
        ),
    ] = None,
) -> None:
    """Print a study's table: variants x machines, mean and sd over seeds, differences with interval and test.

    latex is for booktabs; csv has every cell in full precision, with the keys of the trials behind it; macros is a
    LaTeX file that gives each number a name, so that a text always says what the table says.
    """
    session = open_session(study, data_root, results, set_, profile, seeds, skip_bad, cache)
    if published:
        return _print_beside_published(session, explain, format_)
    for found in session.tables():
        if explain is not None:
            _print_origin(found, session.results, explain, format_)
        elif format_ is TableFormat.terminal:
            out.print(found.to_rich(), crop=False)
        else:
            print(getattr(found, f"to_{format_}")(), end="")


def _print_origin(found: "StudyTable | SearchTable", results: "Results", asked: str, format_: TableFormat) -> None:
    from raysd.paper import formats
    from raysd.paper.origin import origin
    from raysd.paper.tables import StudyTable
    from raysd.paper.terminal import terminal

    if not isinstance(found, StudyTable):
        raise BadInput("--explain: a search has one trial a suggestion; --format csv has its key, for raysd show KEY")
    sheet = origin(found, results, asked)
    match format_:
        case TableFormat.terminal:
            out.print(terminal(sheet))
        case TableFormat.markdown | TableFormat.latex | TableFormat.html:
            print(getattr(formats, format_)(sheet), end="")
        case _:
            raise BadInput(f"--explain has no --format {format_}; allowed: terminal, markdown, latex, html")


def _print_beside_published(session: "Session", explain: str | None, format_: TableFormat) -> None:
    from raysd.paper.comparison import compare_with_published

    if explain is not None:
        raise BadInput("--explain tells of a cell of the study's own table: leave out --published")
    if session.is_search:
        raise BadInput(f"--published: {session.study.name} is a search; it takes the study that raysd promote makes")
    fingerprint = session.fingerprint(session.study.baseline.recipe)
    for found in compare_with_published(session.study, session.results, fingerprint):
        if format_ is TableFormat.terminal:
            out.print(found.to_rich())
        else:
            print(getattr(found, f"to_{format_}")(), end="")
