"""The command `raysd explain`: what a trial's key covers, why nothing was reused, and in what two trials differ."""

from typing import TYPE_CHECKING, Annotated

import typer

from raysd.cli_options import (
    DEFAULT_CACHE,
    DEFAULT_RESULTS,
    Cache,
    Profile,
    ResultsRoot,
    Set,
    SkipBad,
    SomeDataRoot,
    err,
    open_session,
    out,
)
from raysd.completion import studies_or_trials
from raysd.errors import BadInput

if TYPE_CHECKING:
    from raysd.explain import Subject


def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TRIAL|STUDY:VARIANT",
            help="The key of a trial in the results, or its first characters; or a study's variant, and with "
            "STUDY:VARIANT:SEED one of its seeds.",
            autocompletion=studies_or_trials,
        ),
    ],
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="[OTHER]", help="Another one: then their difference is shown.", autocompletion=studies_or_trials
        ),
    ] = None,
    data_root: SomeDataRoot = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    set_: Set = None,
    profile: Profile = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Show what names a trial, whether the results hold it, and if not, what they hold that is most like it and why
    that was not reused. Of two trials, show the difference: settings, seed, data, numerics.

    For instance: raysd explain "augmentation:without segments" --profile cpu --data-root DATA
    """
    from raysd.explain import explain, of_record, of_variant
    from raysd.print_explain import render, render_difference
    from raysd.progress import bar
    from raysd.results.storage import absolute
    from raysd.results.store import Results

    held = Results(absolute(results))

    def subject(words: str) -> "Subject":
        study, colon, variant = words.partition(":")
        if not colon:
            _refuse_study(words)
            return of_record(held, held.find(words))
        session = open_session(study, data_root, results, set_, profile, None, skip_bad, cache)
        with bar(err, "decoding clips") as progress:
            session.decode(progress)
        return of_variant(session, variant)

    if other is None:
        out.print(render(explain(subject(what), held)))
    else:
        out.print(render_difference(subject(what), subject(other)))


def _refuse_study(words: str) -> None:
    """Raises BadInput for a study without a variant, which would be taken for the key of a trial."""
    from raysd.study.places import predefined_studies

    if words.endswith((".yaml", ".yml")) or words in predefined_studies():
        raise BadInput(f"{words}: name one of the study's variants as well, for instance '{words}:baseline'")
