"""Clips a second of the training loop, against the same encoder and loss on a batch that is resident in memory.

The loop draws its batches, cuts segments and mixing partners, augments two views and measures its gradients; the
reference does forward, backward and optimiser only. Runs alternate, so that a busy machine slows both. The profile cpu
is the worst case: a network so small that the augmentations show beside it. Without a profile MobileFaceNet is trained.
"""

import time

import torch
from corpus import corpus, report

from raysd.data.store import open_store
from raysd.model.spectra import Spectra
from raysd.recipe import Recipe
from raysd.settings import with_changes
from raysd.study.design import load_study
from raysd.train import Detector, TrainingSet, batch_loss, make_batch, parameter_groups, train
from raysd.trial import clip_classes

RUNS = {"cpu": 15, None: 3}
CLIPS = {"cpu": 400, None: 64}
"""Of each profile: pairs of runs, and clips of an epoch. Each run is one epoch after one that warms up."""
EVERY = {"augment.spec_mask": {}, "augment.linear_fader": {}, "augment.time_shift": {}}


def loop(recipe: Recipe, spectra: Spectra, data: TrainingSet, seed: int) -> float:
    """Clips a second of an epoch of the training loop."""
    return train(recipe, spectra, data, seed)[1][-1].clips_per_second


def resident(recipe: Recipe, spectra: Spectra, data: TrainingSet, seed: int) -> float:
    """Clips a second of forward, backward and optimiser on one batch."""
    detector = Detector(recipe, spectra, data, seed).to(spectra.device).train()
    if recipe.train.channels_last:
        detector.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW([group for _, group in parameter_groups(detector, recipe)], lr=1e-4)
    items = list(data.batches(seed, 0, recipe.segments.train_count, recipe.train.batch_size))
    batch = make_batch(recipe, detector, spectra, data, seed, 0, items[0].to(spectra.device))
    began = 0.0
    for step in range(2 * len(items)):
        if step == len(items):
            began = time.perf_counter()
        loss, _ = batch_loss(recipe, detector, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    if spectra.device.type == "cuda":
        torch.cuda.synchronize()
    return len(items) * batch.num_items / (time.perf_counter() - began)


def measure(profile: str | None, device: torch.device) -> None:
    recipe = load_study("augmentation", {"train.epochs": 2}, profile=profile).baseline.recipe
    recipe = with_changes(recipe, EVERY, "bench")
    with corpus() as (folder, root):
        store = open_store(root, recipe.data, folder / "cache")
        spectra = Spectra(store, recipe.features, device)
        row_N = torch.tensor(store.clips.query("split == 'train'").index.to_numpy())
        class_N, own_NC = clip_classes(recipe, store.clips)
        some = slice(None, None, max(1, len(row_N) // CLIPS[profile]) if device.type == "cpu" else 1)
        data = TrainingSet(row_N[some], torch.from_numpy(class_N)[some], own_NC.shape[1]).to(device)
        ours, reference = [], []
        for run in range(RUNS[profile] + 1):
            pair = loop(recipe, spectra, data, run), resident(recipe, spectra, data, run)
            if run > 0:  # the first warms up
                ours.append(pair[0])
                reference.append(pair[1])
    what = f"{recipe.encoder.name}, profile {profile}" if profile else recipe.encoder.name
    where, goal = ("GPU", ">= 0.95") if device.type == "cuda" else ("2 CPU threads", ">= 0.97")
    report(f"training loop, all augmentations: {what}, {where}", "clips/s", ours, reference, goal)


def main() -> None:
    torch.set_num_threads(2)
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for profile in RUNS:
            measure(profile, torch.device(device))


if __name__ == "__main__":
    main()
