"""Clips a second of the training loop, against the same encoder and loss on a batch that is resident in memory.

The loop draws its batches, cuts segments and mixing partners, and augments two views; the reference does forward,
backward and optimiser only. Runs alternate, so that a busy machine slows both.
"""

import time

import torch
from corpus import corpus, report

from raysd.data.store import open_store
from raysd.items import batches
from raysd.model.draws import Draws
from raysd.model.spectra import Spectra
from raysd.recipe import Recipe
from raysd.settings import with_changes
from raysd.study.design import load_study
from raysd.train import Detector, TrainingSet, augmented_view, autocast, parameter_groups, train
from raysd.trial import clip_classes

RUNS, EPOCHS = 5, 2


def resident(recipe: Recipe, spectra: Spectra, data: TrainingSet) -> float:
    """Clips a second of forward, backward and optimiser on one batch."""
    detector = Detector(recipe, spectra, data, seed=0).train()
    if recipe.train.channels_last:
        detector.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW([group for _, group in parameter_groups(detector, recipe)], lr=1e-4)
    item_B = next(batches(0, 0, len(data.row_N), recipe.train.batch_size))
    draws = Draws(0, 0, item_B, 0), Draws(0, 0, item_B, 1)
    views = tuple(augmented_view(recipe, detector, spectra, data, view) for view in draws)
    steps = EPOCHS * -(-len(data.row_N) // recipe.train.batch_size)
    began = time.perf_counter()
    for _ in range(steps):
        with autocast(recipe.train, spectra.device):
            loss, _ = detector.objective(detector.encoder, (views[0], views[1]), data.label_N[item_B], draws)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return steps * len(item_B) / (time.perf_counter() - began)


def main() -> None:
    torch.set_num_threads(2)
    recipe = load_study("augmentation", {"train.epochs": EPOCHS}, profile="cpu").baseline.recipe
    every = with_changes(
        recipe, {"augment.spec_mask": {}, "augment.linear_fader": {}, "augment.time_shift": {}}, "bench"
    )
    with corpus() as (folder, root):
        store = open_store(root, recipe.data, folder / "cache")
        spectra = Spectra(store, recipe.features, torch.device("cpu"))
        row_N = torch.tensor(store.clips.query("split == 'train'").index.to_numpy())
        class_N, own_NC = clip_classes(recipe, store.clips)
        data = TrainingSet(row_N, torch.from_numpy(class_N), own_NC.shape[1])
        ours, reference = [], []
        for run in range(RUNS + 1):
            _, history = train(every, spectra, data, seed=run)
            fast = resident(recipe, spectra, data)
            if run > 0:  # the first warms up
                ours.append(sum(epoch.clips_per_second for epoch in history) / EPOCHS)
                reference.append(fast)
    report("training step, all augmentations", "clips/s", ours, reference, ">= 0.97")


if __name__ == "__main__":
    main()
