"""Pretrainings by several workers, and of corpora in shards: each worker reads its own, and the numbers stay."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from raysd.items import ShardedSet
from raysd.model.draws import Draws
from raysd.model.encoding import build_encoder
from raysd.pretrain import Job
from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.results.weights import own_weights, read_weights
from raysd.study.pretrainings import load_pretraining
from raysd.trial import Place
from raysd.yaml_values import parse_assignments

SCRIPT = Path(__file__).with_name("pretrain_script.py")
# the small rate keeps rounding, which differs with the number of workers, from growing into other weights
TINY = """
corpus: { name: folder, licence: CC0 }
features: { num_bands: 32 }
segments: { train_seconds: 1.0, train_count: 2 }
augment: { log_mixup_exp: {}, high_frequency: { mode: mix } }
encoder: { name: cnn, width: 0.125 }
loss: { contrastive: { name: nt_xent, hidden_dim: 32, projection_dim: 16 }, classification: null }
train: { epochs: 3, batch_size: 16, precision: fp32, learning_rate: 1.0e-4, ema: 0.9 }
"""
CORPORA = ["seed=0 loss.contrastive.name=byol", "corpus.shards=4", "corpus.shards=2"]


@pytest.mark.slow
def test_two_workers_make_what_one_makes_each_from_its_own_shards(
    tmp_path: Path, corpus: Callable[[int], Path], cache_dir: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    told = [str(tmp_path / "tiny.yaml"), str(corpus(2020)), str(tmp_path / "two"), *CORPORA]
    subprocess.run([sys.executable, *launch, *told], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    alone = Place(corpus(2020), cache_dir, tmp_path / "one")
    keys = []
    for change in CORPORA:
        loaded = load_pretraining(tmp_path / "tiny.yaml", parse_assignments(change.split()))
        keys.append(Job(loaded, alone, None)("cpu", lambda epoch: None))
    assert len(set(keys)) == 3  # how a corpus is cut changes the numbers
    one, two = Results(tmp_path / "one"), Results(tmp_path / "two" / "results")
    made = [{about["key"]: about for about in own_weights(results)} for results in (one, two)]
    assert sorted(made[0]) == sorted(made[1]) == sorted(keys)
    for key in keys:
        assert made[1][key]["clips"] == made[0][key]["clips"] == 56
        losses = [[epoch["loss"] for epoch in about[key]["history"]] for about in made]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
        mine, theirs = (flat(read_weights(results, key)[0]) for results in (one, two))
        encoder = Recipe.model_validate_json(made[0][key]["recipe"]).encoder
        moved = mine - flat(build_encoder(encoder, 32, 0).state_dict())
        assert (theirs - mine).norm() < 0.1 * moved.norm()  # Adam takes full steps where a gradient is but rounding

    # two of four shards each, and one of two
    sizes = [sorted(file.stat().st_size for file in (tmp_path / "two").glob(f"cache{n}/*/samples.bin")) for n in (0, 1)]
    assert [len(of_one) for of_one in sizes] == [4, 4]
    assert sizes[0][-1] == sizes[1][-1]  # the whole, of the corpus in one piece
    assert sum(sizes[0][:-1]) + sum(sizes[1][:-1]) == 2 * sizes[0][-1]


@pytest.mark.parametrize(("sizes", "segments", "batch_size"), [((5, 9, 6, 7), 1, 8), ((30, 28), 3, 16), ((4,), 2, 4)])
def test_a_batch_has_equal_parts_of_all_shards(sizes: tuple[int, ...], segments: int, batch_size: int) -> None:
    data = sharded(sizes)
    shards, seen = len(sizes), []
    for item_G in data.batches(3, 1, segments, batch_size):
        assert len(item_G) <= batch_size
        part_SB = item_G.reshape(shards, -1)
        assert (part_SB // segments % shards == torch.arange(shards)[:, None]).all()
        seen += item_G.tolist()
    assert len(set(seen)) == len(seen) == data.num_items(segments) == min(sizes) * shards * segments
    rows = data.rows(torch.tensor(seen) // segments)
    assert len(set(rows.tolist())) <= sum(sizes)
    again = torch.cat(list(data.batches(3, 1, segments, batch_size))).tolist()
    other = torch.cat(list(data.batches(3, 2, segments, batch_size))).tolist()
    assert again == seen != other


def test_a_clip_is_mixed_with_others_of_its_shard_alone() -> None:
    data = sharded((40, 60))
    clip_B = torch.arange(80)  # of both shards in turn
    row_B = data.partners(Draws(0, 0, clip_B), "mix", clip_B)
    assert (row_B[::2] < 40).all()
    assert (row_B[1::2] >= 40).all()
    assert len(set(row_B.tolist())) > 40


def flat(state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """All weights, without what batch norm counts and averages."""
    return torch.cat([tensor.flatten() for name, tensor in state.items() if name.endswith(("weight", "bias"))])


def sharded(sizes: tuple[int, ...]) -> ShardedSet:
    """As one worker has it that holds all shards."""
    size_S = torch.tensor(sizes)
    row_N = torch.arange(sum(sizes))
    return ShardedSet(row_N, torch.zeros_like(row_N), 1, size_S, size_S.cumsum(0) - size_S)
