"""The command `figures`."""

from enum import StrEnum
from pathlib import Path
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


class FigureFormat(StrEnum):
    """The formats of files."""

    pdf = "pdf"
    svg = "svg"
    png = "png"


class EmbeddingMap(StrEnum):
    """How embeddings are brought into two dimensions."""

    pca = "pca"
    umap = "umap"


def figures(
    study: StudyName,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the files go; made if need be.")] = Path("figures"),
    format_: Annotated[list[FigureFormat] | None, typer.Option("--format", help="pdf without it; repeatable.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE",
            help="forest, curve, seeds, learning, scores, roc or embeddings, of a search history, ranking or "
            "importances; repeatable. All without it.",
        ),
    ] = None,
    map_: Annotated[
        EmbeddingMap, typer.Option("--map", help="How embeddings are mapped; umap needs the package umap-learn.")
    ] = EmbeddingMap.pca,
    results: ResultsRoot = DEFAULT_RESULTS,
    data_root: SomeDataRoot = None,
    set_: Set = None,
    profile: Profile = None,
    seeds: Seeds = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Write a study's figures as files for a paper, one column wide, and print their paths.

    Files of the same names are replaced. Exit status 1 where there is nothing to draw.
    """
    from raysd.drawing import save_figures

    session = open_session(study, data_root, results, set_, profile, seeds, skip_bad, cache)
    written = False
    for path in save_figures(session, to, format_ or [FigureFormat.pdf], only or [], map_.value):
        print(path)
        written = True
    if not written:
        err.print(
            f"{session.study.name}: the results hold nothing to draw of {', '.join(only or ['it'])}", markup=False
        )
        raise typer.Exit(1)
