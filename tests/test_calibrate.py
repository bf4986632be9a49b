"""How fast trials are that are unlike any finished one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raysd import calibrate as module
from raysd.errors import BadInput
from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.session import Session
from raysd.settings import with_changes
from raysd.study.design import load_study
from raysd.train import train
from raysd.trial import run_trial

STUDY: dict[str, Any] = {
    "question": "How long?",
    "baseline": "tiny.yaml",
    "design": "list",
    "variants": {"another rate": {"train.learning_rate": 1e-4}, "wider": {"encoder.width": 0.25}},
    "seeds": [0, 1],
}


@pytest.fixture
def session(
    tmp_path: Path, tiny_recipe: Recipe, corpus: Callable[[int], Path], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Session]:
    """A session of the study, with half a second for a calibration."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    monkeypatch.setattr(module, "SECONDS", 0.5)

    def make(changes: dict[str, Any] | None = None) -> Session:
        loaded = load_study(tmp_path / "study.yaml", changes)
        made = Session(loaded, Results(tmp_path / "results"), corpus(2020), cache_dir)
        made.decode()
        return made

    return make


def test_every_shape_is_measured_once_in_the_time_and_nothing_is_written(session: Callable[..., Session]) -> None:
    here, heard = session(), list[tuple[int, int]]()
    began = time.monotonic()
    rates = here.calibrate(lambda done, of: heard.append((done, of)))
    assert time.monotonic() - began < 60
    # the baseline with "another rate", "wider", and the classical reference, which is not trained
    widths = [getattr(rate.recipe.encoder, "width", None) for rate in rates]
    assert widths == [0.125, 0.25, None]
    assert [rate.items_per_second is None for rate in rates] == [False, False, True]
    assert all(rate.clips_per_second > 0 for rate in rates)
    assert heard
    assert not Path(here.results.root).exists()
    plan = here.plan(rates)
    assert plan.unknown_trials == 0
    assert "calibration" in plan.measured


def test_what_was_measured_before_is_not_measured_again(session: Callable[..., Session]) -> None:
    here = session()
    for trial in here.missing()[:4]:  # the first seed
        run_trial(trial, here.place())
    assert here.plan().unknown_trials == 0
    assert here.calibrate(lambda done, of: None) == []


def test_it_measures_what_training_takes(
    session: Callable[..., Session], spectra: Any, training_set: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a factor of two: other processes share the cores."""
    here = session()
    monkeypatch.setattr(module, "SECONDS", 2.0)
    measured = here.calibrate(lambda done, of: None)[0]
    torch.set_num_threads(1)
    recipe = with_changes(measured.recipe, {"train.epochs": 8}, "test")
    _, history = train(recipe, spectra, training_set, seed=0)
    rate = sorted(epoch.clips_per_second for epoch in history[1:])[len(history) // 2]
    assert measured.items_per_second is not None
    assert 0.4 < measured.items_per_second / rate < 2.5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_scale_with_gpus_is_not_measured_without_one(session: Callable[..., Session]) -> None:
    with pytest.raises(BadInput, match="torch finds no GPU"):
        session({"scale.gpus_per_worker": 1}).calibrate(lambda done, of: None)


def test_interrupted_it_ends_with_one_line(
    session: Callable[..., Session],
    raysd: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    cache_dir: Path,
) -> None:
    here = session()
    words = ["plan", here.study.path, "--results", here.results.root, "--calibrate"]
    status, _, err = raysd(*words)
    assert status == 2
    assert "give --data-root" in err

    words += ["--data-root", here.data_root, "--cache", cache_dir]
    status, out, err = raysd(*words, "--json")
    assert status == 0, err
    assert '"unknown_trials": 0' in out

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_rate", stop)
    status, out, err = raysd(*words)
    assert (status, out) == (130, "")
    assert err.strip() == "interrupted: nothing was measured, and nothing written"
