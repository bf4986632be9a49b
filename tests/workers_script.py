"""Trains recipes in one of several gloo workers, as `torchrun` starts them: python -m torch.distributed.run this ..."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from raysd.data.store import Data, open_store
from raysd.model.spectra import Spectra
from raysd.parallel import Scale, gather, rank, share
from raysd.recipe import Recipe
from raysd.train import TrainingSet, embed, train


def training_set(store) -> TrainingSet:
    clips = store.clips.query("split == 'train'")
    sections = list(zip(clips["machine"], clips["section"], strict=True))
    label_N = torch.tensor([sorted(set(sections)).index(section) for section in sections])
    return TrainingSet(torch.tensor(clips.index.to_numpy()), label_N, len(set(sections)))


def trained(recipe: Recipe, store, scale: Scale) -> tuple[list[dict], np.ndarray]:
    """The history and the embeddings of all clips, as every worker gets them."""
    spectra, data = Spectra(store, recipe.features, torch.device("cpu")), training_set(store)
    detector, history = train(recipe, spectra, data, 0, scale=scale)
    rows = torch.arange(len(store.clips))
    own_MC = torch.ones(len(rows), data.num_classes, dtype=torch.bool)
    z_MD, _ = embed(recipe, detector, spectra, share(rows), share(own_MC))
    return [asdict(epoch) for epoch in history], gather(len(rows))(z_MD).numpy()


def main(root: str, cache: str, recipes: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    store = open_store(Path(root), Data(), Path(cache))
    for name, (recipe, scale) in json.loads(Path(recipes).read_text()).items():
        history, z_MD = trained(Recipe.model_validate(recipe), store, Scale.model_validate(scale))
        if rank() == dist.get_world_size() - 1:  # not the first one: all must hold the same
            np.savez(Path(out) / f"{name}.npz", history=json.dumps(history), z_MD=z_MD)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
