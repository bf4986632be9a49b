"""Clips a second of two gloo workers under Ray Train, against torchrun with the same loop.

Ray gives its workers a lower priority than torchrun has, which a machine that does something else would tell apart:
here both have the same.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from corpus import corpus, report

from raysd.data.store import open_store
from raysd.parallel import Scale
from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.scale.connect import connected
from raysd.scale.train import Workers
from raysd.study.design import Trial, load_study, trials_of
from raysd.trial import Place, train_and_embed

PAIRS = 3
SCALE = Scale(workers=2)
CHANGES = {"train.epochs": 3}


def by_torchrun(place: Place) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    folders = [str(path) for path in (place.data_root, place.cache, place.results_root)]
    subprocess.run([sys.executable, *launch, *folders], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def in_torchrun(data_root: str, cache: str, results: str) -> None:
    """What each process that torchrun starts does."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    place = Place(Path(data_root), Path(cache), Path(results), scale=SCALE)
    trial = baseline(place, 0)
    embeddings = train_and_embed(trial, place, lambda epoch: None)
    if dist.get_rank() == 0:
        Results(place.results_root).write_embeddings(trial.training_key, embeddings)
    dist.destroy_process_group()


def baseline(place: Place, seed: int) -> Trial:
    study = load_study("augmentation", CHANGES, profile="cpu", seeds=(seed,))
    recipe: Recipe = study.baseline.recipe
    return trials_of(study, open_store(place.data_root, recipe.data, place.cache).fingerprint)[0]


def clips_per_second(place: Place, trial: Trial) -> float:
    """Of the median epoch after the first, in which memory is still being found."""
    table = Results(place.results_root).read_embeddings(trial.training_key)
    assert table is not None
    history = json.loads(table.schema.metadata[b"training"])["history"]
    return median(epoch["clips_per_second"] for epoch in history[1:])


def main() -> None:
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (as Ray spells it; read when Ray is started)
    ours, theirs = [], []
    with corpus() as (folder, root), connected():
        workers = Workers(SCALE)
        for pair in range(PAIRS):
            places = [Place(root, folder / "cache", folder / f"{name}{pair}", scale=SCALE) for name in ("ray", "torch")]
            trial = baseline(places[0], 0)
            workers.train_and_embed(trial, places[0], lambda epoch: None)
            by_torchrun(places[1])
            ours.append(clips_per_second(places[0], trial))
            theirs.append(clips_per_second(places[1], trial))
        workers.end()
    report("two gloo workers under Ray Train", "clips/s", ours, theirs, ">= 0.97 of torchrun, the same loop")


if __name__ == "__main__":
    in_torchrun(*sys.argv[1:]) if len(sys.argv) > 1 else main()
