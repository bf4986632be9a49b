"""The `raysd` command: parses, calls, prints."""

import errno
import gc
import json
import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from raysd.cli_data import data_app
from raysd.cli_doctor import doctor
from raysd.cli_explain import explain
from raysd.cli_figures import figures
from raysd.cli_jobs import jobs_app
from raysd.cli_options import (
    DEFAULT_CACHE,
    DEFAULT_RESULTS,
    Cache,
    DataRoot,
    Profile,
    ResultsRoot,
    Seeds,
    Set,
    SkipBad,
    SomeDataRoot,
    StudyName,
    TrialKey,
    Workers,
    err,
    open_session,
    out,
)
from raysd.cli_power import power
from raysd.cli_pretrain import pretrain
from raysd.cli_results import results_app
from raysd.cli_search import promote, report
from raysd.cli_tables import table
from raysd.cli_weights import weights_app
from raysd.completion import mend_bash_words
from raysd.errors import BadInput

PLACE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
)
"""A full or read-only disk, a missing right, a storage that has gone: nothing that raysd did wrong."""

# Heavy imports (torch, ray, pandas) stand inside the commands, so that --help and a wrong option answer at once.

app = typer.Typer(
    help="Which ingredient of an anomalous-sound detector helps, by how much, on which machines, and how sure are we?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(jobs_app)  # submit, status, logs, stop
app.add_typer(results_app)  # studies, show, compare, gc, compact
app.add_typer(weights_app, name="weights")
app.command()(doctor)
app.command()(explain)
app.command()(power)
app.command()(figures)
app.command()(pretrain)
app.command()(promote)
app.command()(report)
app.command()(table)


class FileKind(StrEnum):
    """The files that have a schema."""

    study = "study"
    recipe = "recipe"
    pretraining = "pretraining"


@app.command()
def quickstart(
    folder: Annotated[Path, typer.Option(help="Where the data and the results of the demonstration go.")] = Path(
        "quickstart"
    ),
) -> None:
    """Make a small synthetic corpus, run a study on it and print its table: all of raysd in a minute or two."""
    from raysd.data.synthetic import QUICKSTART, synthesise

    data_root = folder / "data"
    if not data_root.exists():
        synthesise(data_root, QUICKSTART)
    run("quickstart", data_root, str(folder / "results"), cache=folder / "cache")
    err.print(f"the table again: raysd table quickstart --results {folder / 'results'}", highlight=False)


@app.command()
def plan(
    study: StudyName,
    data_root: SomeDataRoot = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    set_: Set = None,
    profile: Profile = None,
    seeds: Seeds = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Train what was never timed for two minutes, to tell the time.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for scripts.")] = False,
) -> None:
    """Show what a study would run, what is in the results already, and what it would cost; launches nothing.

    With a data root its clips are decoded, if they were not yet: what the results hold of them is known only then.
    """
    from raysd.progress import bar
    from raysd.running import require_loggers
    from raysd.study.print_plan import render

    session = open_session(study, data_root, results, set_, profile, seeds, skip_bad, cache)
    require_loggers(session.study.study.scale)
    with bar(err, "decoding clips") as progress:
        session.decode(progress)
    rates = []
    if calibrate:
        if data_root is None:
            raise BadInput("--calibrate trains on the study's clips: give --data-root")
        try:
            with bar(err, "calibrating") as progress:
                rates = session.calibrate(progress)
        except KeyboardInterrupt:
            err.print("interrupted: nothing was measured, and nothing written")
            raise typer.Exit(130) from None
    found = session.plan(rates)
    if as_json:
        print(found.to_json())
    else:
        out.print(render(found))


@app.command()
def run(
    study: StudyName,
    data_root: DataRoot,
    results: ResultsRoot = DEFAULT_RESULTS,
    set_: Set = None,
    profile: Profile = None,
    seeds: Seeds = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
    workers: Workers = None,
) -> None:
    """Run the trials of a study that are missing in the results, then print its table.

    Interrupt it when you like: the same command keeps what is finished and goes on where it was.
    """
    from raysd.running import run_missing

    _refuse_results_in_a_jobs_folder(results)
    set_ = [*(set_ or []), *([] if workers is None else [f"scale.workers={workers}"])]
    session = open_session(study, data_root, results, set_, profile, seeds, skip_bad, cache)
    outcome = run_missing(session, err, tuple(sys.argv))
    if outcome and outcome.interrupted:
        raise typer.Exit(130)
    if outcome and outcome.left and not outcome.done + session.plan().done:
        return  # there is no table of nothing
    for found in session.tables():
        out.print(found.to_rich())
    if outcome and outcome.failed:
        raise typer.Exit(1)


@app.command()
def rescore(
    study: StudyName,
    results: ResultsRoot = DEFAULT_RESULTS,
    data_root: SomeDataRoot = None,
    set_: Set = None,
    profile: Profile = None,
    seeds: Seeds = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Score a study's trials anew from their kept embeddings, with another scorer; no training, no audio.

    For instance: raysd rescore augmentation --set scoring.name=gaussian
    """
    session = open_session(study, data_root, results, set_, profile, seeds, skip_bad, cache)
    written, untrained = session.rescore()
    err.print(f"{written} trials scored; {len(untrained)} have no embeddings yet (raysd run trains them)")
    for found in session.tables():
        out.print(found.to_rich())


@app.command()
def evaluate(
    scores_dir: Annotated[
        Path, typer.Argument(help="Folder with anomaly_score_*.csv, and decision_result_*.csv if any.")
    ],
    year: Annotated[int, typer.Option(help="The DCASE year, which sets the metrics.")],
    truth: Annotated[
        Path | None,
        typer.Option(help="Folder of the official truth lists; without it, labels are read from the names."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Every figure in full precision.")] = False,
) -> None:
    """Print the official metrics of anyone's score files, as the year's official evaluator computes them."""
    from raysd.detect.submission import evaluate_submission

    evaluation = evaluate_submission(scores_dir, truth, year)
    print(json.dumps(evaluation.as_dict(), indent=2) if as_json else evaluation.as_markdown())


@app.command("export-dcase")
def export_dcase(
    trial: TrialKey,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files go; a new or empty folder.")],
    results: ResultsRoot = DEFAULT_RESULTS,
    part: Annotated[str | None, typer.Option(help="dev or eval; needed where the trial scored both.")] = None,
) -> None:
    """Write a trial's scores as the challenge's files: anomaly_score_*.csv and decision_result_*.csv.

    A clip is decided anomalous above the 0.9 quantile of a gamma distribution fitted to its section's training scores.
    """
    import pandas as pd

    from raysd.detect.submission import write_submission
    from raysd.results.store import Results

    record = Results(results).find(trial)
    scores = pd.DataFrame(record.scores)
    parts = sorted(scores.query("split == 'test'")["part"].unique())
    if part not in (parts if len(parts) > 1 else [None, *parts]):
        raise BadInput(f"trial {record.key} has scored test clips of {' and '.join(parts)}: give --part {parts[-1]}")
    chosen = scores.query("part == @part") if part else scores
    write_submission(folder, chosen.query("split == 'train'"), chosen.query("split == 'test'"), record.year)
    err.print(f"{folder}: scores and decisions of trial {record.key} ({record.variant}, seed {record.seed})")


@app.command()
def schema(
    kind: Annotated[FileKind, typer.Argument(help="Of which kind of files.")] = FileKind.study,
) -> None:
    """Print the JSON Schema with which an editor completes and checks studies, recipes or pretrainings."""
    from raysd.study.schema import SCHEMAS, as_text

    print(as_text(SCHEMAS[kind]()))


def _refuse_results_in_a_jobs_folder(results: str) -> None:
    """In a Ray job a relative path is in a folder that each node has for itself, and that Ray deletes."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not re.match(r"/|\w+:/", results):
        raise BadInput(
            f"results root {results}: in a Ray job it would be lost with the job's folder; give --results, or set "
            "RAYSD_RESULTS on the nodes, to an absolute path that all nodes share, or a URI such as s3://..."
        )


def main() -> None:
    """Runs the command line; a user's mistake is one line on standard error and exit status 2."""
    gc.set_threshold(
        100_000
    )  # modules, and a large plan, are objects that stay: to walk them often takes a fifth of it
    if os.environ.get("_RAYSD_COMPLETE") == "complete_bash":
        mend_bash_words(os.environ)
    try:
        app(prog_name="raysd")  # also where it is called as python -m raysd
    except BadInput as error:
        for path, reason in getattr(error, "clips", ()):  # all of them; the one line names the first few
            err.print(f"{path}: {reason}", highlight=False, soft_wrap=True, markup=False)
        err.print(f"raysd: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
        sys.exit(2)
    except OSError as error:  # a place of the user's that cannot be written or read; of others the traceback is wanted
        if error.errno not in PLACE_ERRORS:
            raise
        place = error.filename or "standard output, or a file"
        err.print(f"raysd: {place}: {error.strerror}", style="red", highlight=False, soft_wrap=True, markup=False)
        sys.exit(2)
    finally:
        gc.freeze()  # nor is there a reason to walk them at the end
