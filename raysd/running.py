"""Runs what a study lacks and tells a console of it: what `raysd run` and a notebook share."""

import importlib.util
from typing import TYPE_CHECKING

from rich.console import Console

from raysd.errors import BadInput
from raysd.overview import note_launch
from raysd.parallel import Scale
from raysd.progress import StudyProgress, bar
from raysd.session import Session
from raysd.study.print_plan import summary

if TYPE_CHECKING:
    from raysd.scale.tune import Outcome


PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}
"""Settings of the scale -> the package that each needs; the extra of that name brings it."""


def require_loggers(scale: Scale) -> None:
    """Raises BadInput where the scale asks for a logger whose package is not installed here."""
    for name, package in PACKAGES.items():
        if getattr(scale, name) is not None and importlib.util.find_spec(package) is None:
            raise BadInput(
                f"scale.{name}: the package {package} is not installed; pip install 'raysd[{name}]', or leave "
                f"scale.{name} out"
            )


def run_missing(session: Session, console: Console, command: tuple[str, ...]) -> "Outcome | None":
    """Decodes the clips, says what there is to do, and does it; None where nothing is missing.

    `command` is what the trials' provenance says of how they were run. Raises BadInput where the first trial fails.
    """
    require_loggers(session.study.study.scale)
    with bar(console, "decoding clips") as progress:
        session.decode(progress)
    planned = session.plan()
    for line in summary(planned):
        console.print(line, highlight=False, soft_wrap=True)
    missing = session.missing()
    wanted = len(missing) + (session.search().left if session.is_search else 0)
    if not wanted:
        return None
    session.results.writable()
    from raysd.scale.budget import budget_of
    from raysd.scale.tune import run_trials  # ray takes seconds to import

    with bar(console, "fetching weights") as fetched:
        session.bring_weights(lambda line: console.print(line, highlight=False, soft_wrap=True), fetched)
    note_launch(session)
    with session.searching() as search, StudyProgress(console, wanted) as watch:
        budget = budget_of(session.study.study, planned)
        outcome = run_trials(missing, session.place(command), session.study.study.scale, watch, search, budget)
    if outcome.canary_failed:
        raise BadInput(
            f"the first trial failed, so the study was stopped; its traceback is in {session.results}/failures"
        )
    if outcome.interrupted:
        console.print(f"interrupted: {outcome.done} of {wanted} trials finished; the same command goes on")
    elif outcome.failed:
        console.print(
            f"{len(outcome.failed)} of {wanted} trials failed; their tracebacks are in {session.results}/failures"
        )
    if outcome.left:
        line = f"budget reached: {outcome.left} trials left; the same command goes on"
        if not outcome.done + len(outcome.failed):
            line += ", with more budget: it is not enough for the next seed of all variants"
        console.print(line, highlight=False, soft_wrap=True)
    return outcome
