"""A pretraining by several workers under Ray Train: what one process would make, whoever dies on the way."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from workplace import RAYSD, epochs_kept, until, workers_of

from raysd.results.store import Results
from raysd.results.weights import own_weights, read_weights

# the small rate keeps rounding, which differs with the number of workers, from growing into other weights
TINY = """
corpus: { name: folder, licence: CC0 }
features: { num_bands: 32 }
segments: { train_seconds: 1.0 }
augment: { log_mixup_exp: {} }
encoder: { name: cnn, width: 0.125 }
loss: { contrastive: { name: byol, hidden_dim: 32, projection_dim: 16 }, classification: null }
train: { epochs: 60, batch_size: 16, precision: fp32, learning_rate: 1.0e-5 }
scale: { cpus_per_worker: 0.5 }
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_make_what_one_makes_though_one_dies(tmp_path: Path, corpus, cache_dir: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")

    def start(results: str, *options: str) -> subprocess.Popen[str]:
        place = ["--data-root", str(corpus(2020)), "--results", str(tmp_path / results), "--cache", str(cache_dir)]
        words = [RAYSD, "pretrain", str(tmp_path / "tiny.yaml"), *place, *options]
        return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)

    run = start("two", "--workers", "2")
    until(lambda: len(epochs_kept(tmp_path / "two", "encoder")) > 2, "the first epochs", 240)
    victims = workers_of(cache_dir, "ray::RayTrainWorker")
    assert len(victims) == 2
    os.kill(victims[1], signal.SIGKILL)
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert "a worker died; it goes on from the last epoch (attempts left: 2)" in err
    until(lambda: not workers_of(cache_dir, "ray::RayTrainWorker"), "the workers to end", 60)

    alone = start("one")
    _, err = alone.communicate(timeout=300)
    assert alone.returncode == 0, err
    made = [own_weights(Results(tmp_path / results))[0] for results in ("one", "two")]
    assert made[0]["key"] == made[1]["key"]
    for mine, theirs in zip(made[0]["history"], made[1]["history"], strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-3)
    one, two = (read_weights(Results(tmp_path / name), made[0]["key"])[0] for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_more_workers_than_fit_are_refused(tmp_path: Path, corpus, cache_dir: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    place = ["--data-root", str(corpus(2020)), "--results", str(tmp_path / "results"), "--cache", str(cache_dir)]
    words = [RAYSD, "pretrain", str(tmp_path / "tiny.yaml"), *place, "--workers", "1000"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 2
    assert "scale.workers is 1000" in ended.stderr.strip().splitlines()[-1]
