"""The command `pretrain`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from raysd.cli_options import DEFAULT_CACHE, DEFAULT_RESULTS, Cache, ResultsRoot, Set, SkipBad, Workers, err

CorpusRoot = Annotated[
    Path,
    typer.Option("--data-root", envvar="RAYSD_CORPUS_ROOT", help="Folder with the recordings, and AudioSet's lists."),
]


def pretrain(
    pretraining: Annotated[str, typer.Argument(help="A pretraining's file, or the name of a predefined one.")],
    data_root: CorpusRoot,
    results: ResultsRoot = DEFAULT_RESULTS,
    set_: Set = None,
    profile: Annotated[str | None, typer.Option(help="A profile of the file or of its recipe.")] = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
    workers: Workers = None,
) -> None:
    """Train an encoder on recordings of anything, without labels, and print the key by which a recipe names it.

    Interrupt it when you like: the same command goes on from the last epoch. What is finished is not trained again.
    """
    from raysd.errors import BadInput
    from raysd.machine import num_gpus
    from raysd.pretrain import Preparation, is_done, run
    from raysd.progress import EpochProgress, bar
    from raysd.results.storage import absolute
    from raysd.results.store import Results
    from raysd.study.pretrainings import load_pretraining
    from raysd.trial import Place
    from raysd.yaml_values import parse_assignments

    set_ = [*(set_ or []), *([] if workers is None else [f"scale.workers={workers}"])]
    loaded = load_pretraining(pretraining, parse_assignments(set_), profile)
    scale = loaded.settings.scale
    place = Place(
        data_root.resolve(),
        cache.resolve(),
        absolute(results),
        skip_bad=skip_bad,
        scale=scale,
        device="cuda" if scale.gpus_per_worker else "cpu",
        command=tuple(sys.argv),
    )
    on_cluster = bool(os.environ.get("RAY_ADDRESS"))
    if scale.gpus_per_worker and not on_cluster and not num_gpus():
        fix = "raysd doctor says why; without one, --set scale.gpus_per_worker=0 trains on the CPU"
        raise BadInput(
            f"{loaded.name}: scale.gpus_per_worker is {scale.gpus_per_worker:g}, but no GPU works here; {fix}"
        )
    prepared, root = Preparation(loaded, place), Results(place.results_root)
    root.writable()
    for line in (*map(str, prepared.survey.lists), *prepared.cost()):
        _say(line)
    with bar(err, "decoding clips") as progress:
        job = prepared.job(progress, decode=not on_cluster)
    if job.fingerprint and is_done(root, loaded.key(job.fingerprint)):
        _say(f"these weights are there already: {loaded.key(job.fingerprint)}")
        return
    try:
        with EpochProgress(err, loaded.recipe.train.epochs) as watch:
            if scale.workers > 1 or on_cluster:
                from raysd.scale.pretrain import on_workers  # ray takes seconds to import

                key = run(job, lambda: on_workers(job, watch.epoch, _say))
            else:
                key = run(job, lambda: job(place.device, watch.epoch))
    except KeyboardInterrupt:
        _say("interrupted: the same command goes on from the last epoch")
        raise typer.Exit(130) from None
    _say(f"weights {key} are in {root}/pretrained; in a recipe: pretrained: checkpoint:{key}")


def _say(line: str) -> None:
    err.print(line, highlight=False, soft_wrap=True, markup=False)
