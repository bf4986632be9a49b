"""On a GPU: the whole loop against the encoder alone, in bf16; and eight seeds at once against one after another.

The loop draws its batches, cuts segments and mixing partners, and augments two views; the encoder alone does forward,
backward and optimiser on one batch that stays in memory. The eight seeds run as a study runs them, each in an actor of
its own with an eighth of the GPU, against the same study with one whole GPU a trial. Without a GPU it says so and ends.
"""

import time
from pathlib import Path
from typing import Any

import torch
from corpus import corpus, report
from rich.console import Console

from raysd.data.store import open_store
from raysd.items import batches
from raysd.model.draws import Draws
from raysd.model.spectra import Spectra
from raysd.parallel import Scale
from raysd.progress import StudyProgress
from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.scale.tune import run_trials
from raysd.session import Session
from raysd.study.design import Trial, load_study
from raysd.train import Detector, TrainingSet, augmented_view, autocast, parameter_groups, train
from raysd.trial import clip_classes

RUNS, SEEDS = 5, 8


def loop_against_encoder(folder: Path, root: Path, device: torch.device, recipe: Recipe) -> None:
    """Clips a second of both, in pairs."""
    store = open_store(root, recipe.data, folder / "cache")
    spectra = Spectra(store, recipe.features, device)
    row_N = torch.tensor(store.clips.query("split == 'train'").index.to_numpy())
    class_N, own_NC = clip_classes(recipe, store.clips)
    data = TrainingSet(row_N, torch.from_numpy(class_N), own_NC.shape[1])
    ours, reference = [], []
    for run in range(RUNS + 1):
        _, history = train(recipe, spectra, data, seed=run)
        alone = encoder_only(recipe, spectra, data)
        if run > 0:  # the first warms up
            ours.append(sum(epoch.clips_per_second for epoch in history[1:]) / len(history[1:]))
            reference.append(alone)
    report(f"the whole loop on {_name(device)}", "clips/s", ours, reference, ">= 0.95 of the encoder alone")


def encoder_only(recipe: Recipe, spectra: Spectra, data: TrainingSet) -> float:
    """Clips a second of forward, backward and optimiser on one batch that stays in memory."""
    data = data.to(spectra.device)
    detector = Detector(recipe, spectra, data, seed=0).to(spectra.device).train()
    if recipe.train.channels_last:
        detector.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW([group for _, group in parameter_groups(detector, recipe)], lr=1e-4)
    item_B = next(batches(0, 0, len(data.row_N), recipe.train.batch_size)).to(spectra.device)
    draws = Draws(0, 0, item_B, 0), Draws(0, 0, item_B, 1)
    views = tuple(augmented_view(recipe, detector, spectra, data, view) for view in draws)

    def steps(count: int) -> float:
        _wait(spectra.device)
        began = time.perf_counter()
        for _ in range(count):
            with autocast(recipe.train, spectra.device):
                loss, _ = detector.objective(detector.encoder, (views[0], views[1]), data.label_N[item_B], draws)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        _wait(spectra.device)
        return time.perf_counter() - began

    num_steps = -(-len(data.row_N) * recipe.segments.train_count // recipe.train.batch_size)
    steps(3)
    return num_steps * len(item_B) / steps(num_steps)


def seeds_at_once(folder: Path, root: Path, gpus: float, changes: dict[str, Any]) -> None:
    """Seconds of the eight seeds of one variant, all at once and one after another."""
    seconds = [
        _study(folder, root, name, scale, changes)
        for name, scale in (
            ("alone", Scale(gpus_per_worker=gpus)),
            ("at_once", Scale(gpus_per_worker=gpus / SEEDS, cpus_per_worker=1 / SEEDS)),
        )
    ]
    one_by_one, together = ([60 * SEEDS / one] for one in seconds)
    report(f"{SEEDS} seeds of a variant at once", "trials/min", together, one_by_one, ">= 3 x of one after another")


def _study(folder: Path, root: Path, name: str, scale: Scale, changes: dict[str, Any]) -> float:
    """From the end of the first trial, a canary that runs alone and pays for what is made once, to that of the last."""
    study = load_study("augmentation", changes, seeds=tuple(range(SEEDS + 1)))
    session = Session(study, Results(folder / name), root, folder / "cache")
    session.decode()
    trials = [trial for trial in session.missing() if trial.role == "baseline"]
    ends = _Ends(len(trials))
    with ends:
        run_trials(trials, session.place(), scale, ends)
    assert len(ends.at) == len(trials), f"{len(ends.at)} of {len(trials)} trials ended"
    return ends.at[-1] - ends.at[0]


class _Ends(StudyProgress):
    """When each trial ended."""

    def __init__(self, trials: int) -> None:
        super().__init__(Console(stderr=True), trials)
        self.at: list[float] = []

    def finished(self, trial: Trial, summary: dict[str, Any]) -> None:
        super().finished(trial, summary)
        self.at.append(time.perf_counter())


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    if not torch.cuda.is_available():
        print("bench_gpu: torch sees no GPU here; nothing was measured")
        return
    with corpus() as (folder, root):
        recipe = load_study("augmentation", {"train.epochs": 5}).baseline.recipe
        loop_against_encoder(folder, root, torch.device("cuda"), recipe)
        seeds_at_once(folder, root, 1.0, {"train.epochs": 20})


if __name__ == "__main__":
    main()
