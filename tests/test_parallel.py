"""Several workers compute what one does: losses, gradients and embeddings, for every loss."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysd.data.store import Store
from raysd.errors import BadInput
from raysd.model.contrastive import CONTRASTIVE
from raysd.model.losses import CLASSIFICATION
from raysd.model.spectra import Spectra
from raysd.parallel import Scale, average_gradients, from_first, gather, lost_worker, rank, share, world
from raysd.recipe import Recipe
from raysd.settings import parse, with_changes
from raysd.train import TrainingSet, embed, train

SCRIPT = Path(__file__).with_name("workers_script.py")
# 32 clips in batches of 11, 11 and 10 items: neither 2 nor 4 workers get equal shares. The small rate keeps Adam from
# blowing up rounding: where a gradient is zero but for its rounding, its step is of the full rate all the same.
UNEVEN = {"train.epochs": 3, "train.batch_size": 11, "train.learning_rate": 0.0001}
NO_CONTRASTIVE, NO_CLASSIFICATION = {"loss.contrastive": None}, {"loss.classification": None}
RECIPES: dict[str, dict[str, Any]] = {
    **{name: {"loss.contrastive": kind.tiny().model_dump(), **NO_CLASSIFICATION} for name, kind in CONTRASTIVE.items()},
    **{
        name: {"loss.classification": kind.tiny().model_dump(), **NO_CONTRASTIVE}
        for name, kind in CLASSIFICATION.items()
    },
    "both_and_average": {"train.ema": 0.9},
    "dropout": {"encoder": {"name": "audiontt2020", "width": 0.125, "embedding_dim": 16}},
    "mobilefacenet": {"encoder": {"name": "mobilefacenet", "width": 0.125, "embedding_dim": 16}},
    # 32 items in batches of three and two: with 4 workers one or two have nothing to do
    "more_workers_than_items": {"train.batch_size": 3, "train.epochs": 1},
}
MICRO_BATCH = {"both_in_pieces": {}, "byol_in_pieces": RECIPES["byol"]}


def recipe_of(tiny_recipe: Recipe, name: str) -> Recipe:
    return with_changes(tiny_recipe, {**UNEVEN, **{**RECIPES, **MICRO_BATCH}[name]}, "test")


@pytest.fixture(scope="module")
def workers(
    tiny_recipe: Recipe, corpus: Callable[[int], Path], cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Path]:
    """Number of workers -> folder with what they made of all recipes, trained once for all tests."""
    made: dict[int, Path] = {}

    def folder(number: int) -> Path:
        if number not in made:
            made[number] = tmp_path_factory.mktemp(f"workers{number}")
            wanted = {name: (recipe_of(tiny_recipe, name).model_dump(mode="json"), {}) for name in RECIPES}
            in_pieces = {
                name: (recipe_of(tiny_recipe, name).model_dump(mode="json"), {"micro_batch": 2}) for name in MICRO_BATCH
            }
            (made[number] / "recipes.json").write_text(json.dumps(wanted | in_pieces))
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number), str(SCRIPT)]
            told = [corpus(2020), cache_dir, made[number] / "recipes.json", made[number]]
            subprocess.run(
                [sys.executable, *launch, *map(str, told)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        return made[number]

    return folder


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("name", [*RECIPES, *MICRO_BATCH])
def test_several_workers_train_what_one_does(
    name: str,
    number: int,
    workers: Callable[[int], Path],
    tiny_recipe: Recipe,
    store: Store,
    spectra: Spectra,
    training_set: TrainingSet,
) -> None:
    recipe = recipe_of(tiny_recipe, name)
    detector, history = train(recipe, spectra, training_set, 0)
    rows = torch.arange(len(store.clips))
    z_MD, _ = embed(recipe, detector, spectra, rows, torch.ones(len(rows), 4, dtype=torch.bool))

    with np.load(workers(number) / f"{name}.npz") as made:
        theirs, their_z_MD = json.loads(str(made["history"])), made["z_MD"]
    assert len(theirs) == recipe.train.epochs
    for mine, epoch in zip(history, theirs, strict=True):
        for part in ("loss", "contrastive", "classification", "grad_norm"):
            if getattr(mine, part) is not None:
                # a norm stands for one step, the last, and not for the mean of an epoch
                tolerance = 1e-2 if part == "grad_norm" else 1e-4
                assert epoch[part] == pytest.approx(getattr(mine, part), rel=tolerance), part
    difference_MD = their_z_MD - z_MD.numpy()
    if "byol" in name:  # blind to a shift common to all embeddings, which rounding alone then sets
        difference_MD -= difference_MD.mean(axis=0)
    # these encoders have weights whose gradient is zero but for rounding, for a batch norm follows them
    tolerance = 1e-3 if name in ("dropout", "mobilefacenet") else 1e-4
    distance_M, length_M = (np.linalg.norm(x_MD, axis=1) for x_MD in (difference_MD, z_MD.numpy()))
    assert (distance_M / length_M).max() <= tolerance


def test_one_worker_gets_back_what_it_gave() -> None:
    x = torch.arange(6.0).reshape(3, 2)
    assert (world(), rank()) == (1, 0)
    assert share(x) is not None
    assert torch.equal(share(x), x)
    assert gather(3)(x) is x
    assert from_first(x) is x
    layer = torch.nn.Linear(2, 1)
    layer.weight.grad = x[:1].clone()
    average_gradients(layer)
    assert torch.equal(layer.weight.grad, x[:1])


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ({"workers": 2, "gpus_per_worker": 0.5}, "whole GPUs"),
        ({"workers": 0}, "scale: workers"),
        ({"compile": True, "micro_batch": 4}, "exclude each other"),
        ({"precision": "fp16"}, "scale: precision"),
        ({"worker": 2}, "workers"),
    ],
)
def test_an_impossible_scale_is_one_line(scale: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse(Scale, scale, "scale")


def test_what_only_says_that_another_worker_is_gone() -> None:
    assert lost_worker(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:17434"))
    assert not lost_worker(RuntimeError("size mismatch"))
    assert not lost_worker(ValueError("gloo"))
