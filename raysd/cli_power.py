"""The command `power`."""

from typing import Annotated

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


def power(
    study: StudyName,
    results: ResultsRoot = DEFAULT_RESULTS,
    data_root: SomeDataRoot = None,
    set_: Set = None,
    profile: Profile = None,
    seeds: Seeds = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
    difference: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Say how many seeds such a difference takes, for instance 1.0."),
    ] = None,
) -> None:
    """Show what difference a number of seeds can detect, given how much the study's results scatter over seeds.

    Of the study's metric, over all machines and for each; for one comparison, and for the first of all in Holm's order.
    """
    from raysd.power import study_power

    if difference is not None and not 0 < difference <= 100:
        raise BadInput(f"--difference {difference:g}: expected points above 0 and at most 100, for instance 1.0")
    session = open_session(study, data_root, results, set_, profile, seeds, skip_bad, cache)
    for found in study_power(session, None if difference is None else difference / 100):
        out.print(found.to_rich(), highlight=False)
