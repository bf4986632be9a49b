"""Pretrainings: from a folder of recordings to weights that a recipe can name, interrupted and told in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raysd.errors import BadInput
from raysd.initial import read
from raysd.model.encoding import build_encoder
from raysd.model.features import Features
from raysd.model.pretrained import compare
from raysd.progress import EpochProgress
from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.results.weights import own_weights, read_weights
from raysd.study.places import predefined_pretrainings
from raysd.study.pretrainings import load_pretraining

TINY = """
description: "a tiny one"
corpus: { name: folder, licence: CC0 }
features: { num_bands: 32 }
segments: { train_seconds: 1.0 }
augment: { log_mixup_exp: {} }
encoder: { name: cnn, width: 0.125, embedding_dim: 16 }
loss: { contrastive: { name: nt_xent, hidden_dim: 32, projection_dim: 16 }, classification: null }
train: { epochs: 3, batch_size: 16, precision: fp32 }
profiles: { short: { train.epochs: 1 } }
"""
Raysd = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pretrain(tmp_path: Path, corpus: Callable[[int], Path], cache_dir: Path, raysd: Raysd) -> Raysd:
    """Runs the tiny one on the recordings of the tiny corpus."""
    (tmp_path / "tiny.yaml").write_text(TINY)

    def run(*options: object, results: str = "results", data_root: Path | None = None) -> tuple[int, str, str]:
        root = data_root or corpus(2020)
        place = ("--data-root", root, "--results", tmp_path / results, "--cache", cache_dir)
        return raysd("pretrain", tmp_path / "tiny.yaml", *place, *options)

    return run


def only_one(results: Path) -> dict[str, Any]:
    (about,) = own_weights(Results(results))
    return about


@pytest.mark.parametrize("loss", ["nt_xent", "byol"])
def test_a_pretraining_gives_weights_under_a_key_that_is_known_before(
    loss: str, pretrain: Raysd, tmp_path: Path, cache_dir: Path
) -> None:
    contrastive = f"loss.contrastive={{name: {loss}, hidden_dim: 32, projection_dim: 16}}"
    status, _, err = pretrain("--set", contrastive)
    assert status == 0, err
    assert "56 clips, about 70 s of sound" in err
    assert "3 epochs of 56 items, 4 steps each, seed 0" in err
    about = only_one(tmp_path / "results")
    key = load_pretraining(tmp_path / "tiny.yaml", {"loss.contrastive.name": loss, **SIZES}).key(
        about["data_fingerprint"]
    )
    assert about["key"] == key
    assert f"pretrained: checkpoint:{key}" in err
    assert (about["name"], about["licence"], about["clips"], about["seed"]) == ("tiny", "CC0", 56, 0)
    assert [epoch["epoch"] for epoch in about["history"]] == [1, 2, 3]
    assert about["history"][2]["loss"] < about["history"][0]["loss"]
    assert Features.model_validate(about["features"]).num_bands == 32
    assert str(tmp_path) not in json.dumps(about)

    recipe = Recipe.model_validate_json(about["recipe"])
    weights = read(f"checkpoint:{key}", cache_dir, tmp_path / "results")
    assert weights is not None
    drawn = build_encoder(recipe.encoder, 32, 0)
    report = compare(drawn, weights, ())
    assert not report.problems
    assert set(report.loaded) == set(drawn.state_dict())
    first = next(iter(drawn.state_dict()))
    assert not torch.equal(weights.state[first], drawn.state_dict()[first])

    status, _, err = pretrain("--set", contrastive)
    assert status == 0
    assert f"these weights are there already: {key}" in err
    assert pretrain("--set", contrastive, "--set", "seed=1", "--profile", "short")[0] == 0
    assert len(own_weights(Results(tmp_path / "results"))) == 2
    assert not list((tmp_path / "results" / "work").rglob("*.pt"))


SIZES = {"loss.contrastive.hidden_dim": 32, "loss.contrastive.projection_dim": 16}


def test_an_interrupted_one_goes_on_to_the_same_bits(
    pretrain: Raysd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def interrupting(self: EpochProgress, epoch: Any) -> None:
        heard.append(epoch.epoch)
        if len(heard) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochProgress, "epoch", interrupting)
        status, _, err = pretrain()
        assert status == 130
        assert "the same command goes on from the last epoch" in err
        assert not own_weights(Results(tmp_path / "results"))
        assert pretrain()[0] == 0
    assert heard == [1, 2, 3]
    assert pretrain(results="undisturbed")[0] == 0
    keys = [only_one(tmp_path / folder)["key"] for folder in ("results", "undisturbed")]
    one, other = (
        read_weights(Results(tmp_path / folder), key)[0]
        for folder, key in zip(("results", "undisturbed"), keys, strict=True)
    )
    assert keys[0] == keys[1]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_bad_clips_are_listed_and_may_be_left_out(
    pretrain: Raysd, tmp_path: Path, corpus: Callable[[int], Path]
) -> None:
    root = tmp_path / "some"
    shutil.copytree(corpus(2020) / "dev_data" / "fan" / "train", root)
    (root / "broken.wav").write_bytes(b"no sound")
    status, _, err = pretrain(data_root=root)
    assert status == 2
    assert "broken.wav: not audio" in err
    assert pretrain("--skip-bad", "--profile", "short", data_root=root)[0] == 0
    about = only_one(tmp_path / "results")
    assert about["clips"] == 16
    assert about["provenance"]["skipped"] == ["broken.wav"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("loss.contrastive.name=supcon", "supcon needs classes; set it to nt_xent or byol"),
        ("loss.classification={name: arcface}", "loss.classification: a pretraining has no classes"),
        ("loss.contrastive=null", "nothing to train on"),
        ("encoder={name: spectral_mean}", "has nothing to train; choose another"),
        ("tuning.mode=frozen", "has nothing to train; choose another"),
        ("pretrained=audioset:mn04_as", "pretrained"),
        ("train.held_out=0.2", "train.held_out: a pretraining holds nothing out"),
        ("data.year=2022", "data.year: a pretraining scores nothing"),
        ("corpus.shards=3", "3 shards have no equal parts in a batch of 16 items"),
        ("scale.workers=3 corpus.shards=4", "4 shards cannot be dealt equally to 3 scale.workers"),
        ("corpus.lists=[x.csv]", "corpus: unknown setting 'lists'"),
        ("corpus.name=audioset", "no balanced_train_segments.csv below it"),
        ("trian.epochs=3", "did you mean 'train.epochs'"),
        ("train.learning_rate=1.0e+30", "try a smaller train.learning_rate"),
    ],
)
def test_what_cannot_be_is_one_line(change: str, said: str, pretrain: Raysd, tmp_path: Path) -> None:
    changes = change.split(" ") if "scale" in change else [change]
    status, _, err = pretrain(*(word for one in changes for word in ("--set", one)))
    assert status == 2
    assert said in err.strip().splitlines()[-1]
    assert not own_weights(Results(tmp_path / "results"))


@pytest.mark.parametrize("name", sorted(predefined_pretrainings()))
def test_the_predefined_ones_load(name: str) -> None:
    loaded = load_pretraining(name)
    assert loaded.settings.description
    assert loaded.settings.corpus.licence != "unknown"
    with pytest.raises(BadInput, match="no profile 'cpuu'; did you mean 'cpu'"):
        load_pretraining(name, profile="cpuu")


def test_real_clips_in_the_layout_of_audioset(shared_dir: Path, tmp_path: Path, raysd: Raysd, cache_dir: Path) -> None:
    """Some of ESC-10, linked under the names of AudioSet, with two that its list names and that are not there."""
    clips = sorted((shared_dir / "esc10").rglob("*.ogg"))[::25]
    root = tmp_path / "audioset"
    (root / "audio").mkdir(parents=True)
    lines = ["# made for a test", "# like AudioSet's", "# YTID, start_seconds, end_seconds, positive_labels"]
    for number, clip in enumerate(clips):
        lines.append(f'esc10-{number:05d}, 30.000, 40.000, "/m/esc10"')
        if number >= 2:
            (root / "audio" / f"Yesc10-{number:05d}.ogg").symlink_to(clip)
    (root / "balanced_train_segments.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "tiny.yaml").write_text(
        TINY.replace("name: folder", "name: audioset").replace("epochs: 3", "epochs: 2")
    )
    place = ("--data-root", root, "--results", tmp_path / "results", "--cache", cache_dir)
    status, _, err = raysd("pretrain", tmp_path / "tiny.yaml", *place)
    assert status == 0, err
    assert "14 of 16 clips of balanced_train_segments.csv are there; 2 missing" in err
    about = only_one(tmp_path / "results")
    assert about["lists"] == [{"name": "balanced_train_segments.csv", "wanted": 16, "there": 14, "missing": 2}]
    assert len(about["history"]) == 2
