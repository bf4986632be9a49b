"""The commands `report` and `promote`."""

import shlex
import sys
from pathlib import Path
from textwrap import indent
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
    err,
    open_session,
)
from raysd.completion import trials
from raysd.errors import BadInput


def report(
    study: StudyName,
    to: Annotated[Path | None, typer.Option(help="The file to write; STUDY.html in this folder without it.")] = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    data_root: SomeDataRoot = None,
    set_: Set = None,
    profile: Profile = None,
    seeds: Seeds = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
    listen: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Instead write a folder to listen to the clips that a trial ranked most wrong."
        ),
    ] = None,
    trial: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="The trial to listen to; without it the baseline's first finished seed.",
            autocompletion=trials,
        ),
    ] = None,
) -> None:
    """Write what the results hold of a study as one HTML file that needs nothing else, finished or not.

    An earlier report is replaced, any other file is not. The same holds for the folder of --listen.
    """
    from raysd.paper.report import write_page
    from raysd.reporting import study_report

    if trial is not None and listen is None:
        raise BadInput(f"--trial {trial}: says to which trial --listen DIR is; give both, or neither")
    if to is not None and listen is not None:
        raise BadInput(f"--to {to}: --listen writes no report; give one of them")
    session = open_session(study, data_root, results, set_, profile, seeds, skip_bad, cache)
    if listen is not None:
        from raysd.listening import write_listening
        from raysd.progress import bar

        with bar(err, "drawing spectrograms") as progress:
            record = write_listening(listen, session, trial, _command(), progress)
        _tell(f"written: {listen / 'index.html'}, of trial {record.key} ({record.variant}, seed {record.seed})")
        return
    path = to or Path(f"{session.study.name}.html")
    write_page(path, study_report(session, set_ or [], _command()))
    err.print(f"written: {path}", highlight=False, soft_wrap=True, markup=False)


def promote(
    study: StudyName,
    as_: Annotated[Path, typer.Option("--as", metavar="FILE", help="The recipe file to write: a new one.")],
    suggestion: Annotated[int | None, typer.Option(help="Its number; without it the best by the objective.")] = None,
    study_file: Annotated[
        Path | None,
        typer.Option("--study", metavar="FILE", help="Write a study too, with fresh seeds, of it and its baseline."),
    ] = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    data_root: SomeDataRoot = None,
    set_: Set = None,
    profile: Profile = None,
    seeds: Seeds = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Write the winner of a search as a recipe, to be run with seeds that the search did not use.

    Exit status 1 where the baseline itself is the winner: then nothing is written.
    """
    from raysd.study.promote import promotion, write_promotion
    from raysd.study.searched import searched

    session = open_session(study, data_root, results, set_, profile, seeds, skip_bad, cache)
    loaded = session.study
    if not session.is_search:
        raise BadInput(f"{study}: its design is {', '.join(loaded.study.design)}; only a search has a winner")
    found = searched(loaded, session.results, session.fingerprint(loaded.baseline.recipe))
    if len(found) != 1:
        which = "on several corpora; give --data-root" if found else "nothing is there yet; first: raysd run " + study
        raise BadInput(f"{session.results}: search {loaded.name}: {which}")
    promoted = promotion(found[0], suggestion)
    if promoted.is_baseline:
        best = f"the baseline itself is the best of {len(found[0].finished)} finished"
        why = f"suggestion {suggestion} is the baseline's own recipe" if suggestion is not None else best
        _tell(f"search {loaded.name}: {why}: nothing to promote, nothing written")
        raise typer.Exit(1)
    write_promotion(promoted, as_, study_file, _command())
    reached = f"{promoted.chosen.objective} {promoted.chosen.value:.4f}"
    _tell(f"{as_}: {promoted.suggestion.name} of {loaded.name}, {reached}")
    folder = as_.parent.parent if as_.parent.name == "recipes" else as_.parent
    follows = study_file or folder / f"{as_.stem}_against_baseline.yaml"
    if study_file is None:
        _tell(f"to compare it with its baseline, write a study, for instance {follows} (--study FILE writes it):")
        _tell(indent(promoted.study_text(follows, as_), "  ").rstrip())
    options = "".join(f" {word}" for word in _given(results, data_root, cache))
    _tell(f"go on:\n  raysd plan {follows}{options}\n  raysd run {follows}{options}\n  raysd report {follows}{options}")


def _given(results: str, data_root: Path | None, cache: Path) -> list[str]:
    """The options that the commands to follow need too."""
    words = [] if results == DEFAULT_RESULTS else ["--results", results]
    words += [] if data_root is None else ["--data-root", str(data_root)]
    words += [] if cache == DEFAULT_CACHE else ["--cache", str(cache)]
    return [shlex.quote(word) for word in words]


def _command() -> str:
    """The command line as records keep it: without folders and credentials."""
    from raysd.results.provenance import words_of

    return shlex.join(words_of(sys.argv))


def _tell(text: str) -> None:
    err.print(text, highlight=False, soft_wrap=True, markup=False)
