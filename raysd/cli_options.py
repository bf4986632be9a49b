"""What the commands share: their options, the two consoles, and a study opened with them."""

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from raysd.completion import profiles, settings, studies, trials
from raysd.errors import BadInput

if TYPE_CHECKING:
    from raysd.session import Session

out = Console(width=None if sys.stdout.isatty() else 160)  # a table in a file or a log need not fold
err = Console(stderr=True, width=None if sys.stderr.isatty() else 160)

StudyName = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="A study file, or the name of a predefined study.", autocompletion=studies),
]
TrialKey = Annotated[
    str,
    typer.Argument(metavar="TRIAL", help="The key of a trial, or its first characters.", autocompletion=trials),
]
DataRoot = Annotated[
    Path,
    typer.Option(
        "--data-root", envvar="RAYSD_DATA_ROOT", help="Folder with dev_data/ (and eval_data/), as DCASE ships it."
    ),
]
SomeDataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root", envvar="RAYSD_DATA_ROOT", help="The study's data; without it, all that the results hold."
    ),
]
ResultsRoot = Annotated[
    str,
    typer.Option(
        "--results",
        envvar="RAYSD_RESULTS",
        help="Results root, for trials, embeddings, checkpoints: a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SETTING=VALUE",
        help="Change a setting of the baseline, or of the study; repeatable.",
        autocompletion=settings,
    ),
]
Profile = Annotated[
    str | None, typer.Option(help="A profile of the baseline recipe, for instance cpu.", autocompletion=profiles)
]
Seeds = Annotated[str | None, typer.Option(help="Seeds instead of the study's own, for instance 0,1,2.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out clips that cannot be decoded; the results say so.")
]
Cache = Annotated[
    Path,
    typer.Option("--cache", envvar="RAYSD_CACHE", help="Where decoded clips are kept.", show_default="~/.cache/raysd"),
]
Workers = Annotated[int | None, typer.Option(help="Processes that train one trial together: scale.workers.")]
DEFAULT_RESULTS = "results"


def _default_cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raysd"
    except RuntimeError:  # a user of whom the machine knows nothing, as in a container: no home directory
        return Path(tempfile.gettempdir()) / f"raysd-cache-{os.getuid()}"


DEFAULT_CACHE = _default_cache()


def open_session(
    study: str,
    data_root: Path | None,
    results: str,
    set_: list[str] | None,
    profile: str | None,
    seeds: str | None,
    skip_bad: bool,
    cache: Path,
) -> "Session":
    """The study with its data and its results; raises BadInput for what cannot be used."""
    from raysd.results.storage import absolute
    from raysd.results.store import Results
    from raysd.session import open_study
    from raysd.yaml_values import parse_assignments

    changes, root = parse_assignments(set_ or []), Results(absolute(results))
    return open_study(study, changes, profile, seed_numbers(seeds), data_root, root, cache, skip_bad)


def seed_numbers(seeds: str | None) -> tuple[int, ...] | None:
    """The numbers of `--seeds 0,1,2`."""
    if seeds is None:
        return None
    try:
        return tuple(int(seed) for seed in seeds.split(","))
    except ValueError:
        raise BadInput(f"--seeds {seeds}: expected whole numbers, for instance 0,1,2") from None
