"""A corpus in shards: each clip is in one, wherever it is held, and reads as in the store of the whole."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from raysd.data.shards import Shard, open_shards, shard_of, whole_fingerprint
from raysd.data.store import Data, open_store
from raysd.errors import BadInput

SHARDS = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty training clips and three test clips of different lengths."""
    root = tmp_path_factory.mktemp("sharded")
    for number in range(33):
        folder = root / "dev_data/fan" / ("test" if number < 3 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        wave = np.random.default_rng(number).uniform(-0.5, 0.5, 300 + 7 * number)
        sf.write(folder / f"normal_id_00_{number:02d}.wav", wave, 16000)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded_cache")


def test_each_clip_reads_as_in_the_store_of_the_whole(root: Path, cache: Path) -> None:
    whole = open_store(root, Data(), cache)
    seen: list[tuple[int, int]] = []
    every = open_shards(root, Data(), cache, SHARDS, range(SHARDS), progress=lambda *told: seen.append(told))
    assert seen == [(done, 33) for done in range(1, 34)]
    assert sorted(every.clips["path"]) == list(whole.clips["path"])
    row_of = {path: row for row, path in enumerate(whole.clips["path"])}
    rows_M = np.array([row_of[path] for path in every.clips["path"]])
    starts_M = np.arange(33) % 5
    own = np.random.default_rng(0).permutation(33)
    read = every.waveforms(own, starts_M[own], 400)
    np.testing.assert_array_equal(read, whole.waveforms(rows_M[own], starts_M[own], 400))
    raw_MS = np.empty((33, 400), dtype=np.int16)
    every.read(own, starts_M[own], raw_MS)
    np.testing.assert_array_equal(raw_MS * np.float32(2.0**-15), read)
    assert list(every.clips["length"]) == list(whole.clips["length"].to_numpy()[rows_M])
    every.verify()
    assert not every.skipped


def test_who_holds_a_part_calls_its_clips_as_who_holds_all(root: Path, cache: Path) -> None:
    every = open_shards(root, Data(), cache, SHARDS, range(SHARDS))
    called = dict(zip(every.number_M.tolist(), every.clips["path"], strict=True))
    assert len(called) == 33
    parts = [open_shards(root, Data(), cache, SHARDS, held) for held in ([3, 1], [0], [2])]
    for part in parts:
        assert [called[number] for number in part.number_M.tolist()] == list(part.clips["path"])
        np.testing.assert_array_equal(part.rows(part.number_M[::-1]), np.arange(len(part.clips))[::-1])
        assert {shard_of(path, SHARDS) for path in part.clips["path"]} == set(part.stores)
        assert set(part.shard_M.tolist()) == set(part.stores)
    gathered = {number: name for part in parts for number, name in part.fingerprints.items()}
    assert whole_fingerprint(gathered, SHARDS) == every.fingerprint
    assert len({*gathered.values(), every.fingerprint}) == SHARDS + 1


def test_clips_of_shards_that_are_elsewhere_are_named(root: Path, cache: Path) -> None:
    part = open_shards(root, Data(), cache, SHARDS, [1, 3])
    with pytest.raises(BadInput, match="clip 6 lies in shard 2 of 4, but this process holds 1, 3 only"):
        part.rows(np.array([1, 3, 6]))
    with pytest.raises(BadInput, match="shard 1 has no clip 4001"):
        part.rows(np.array([1, 4001]))
    with pytest.raises(BadInput, match=r"needs all 4 shards; \[0, 2\] are not held here"):
        _ = part.fingerprint


def test_a_clip_s_shard_is_made_from_its_path_alone() -> None:
    paths = [f"clips/Y{number:011d}.wav" for number in range(2000)]
    sizes = np.bincount([shard_of(path, 8) for path in paths])
    assert sizes.min() > 180
    assert sizes.max() < 320
    # for good: nodes that are not updated at once must split a corpus alike
    assert [shard_of(path, 1000) for path in ("a.wav", "b/c.flac", "dev_data/fan/train/normal_id_00_0.wav")] == [
        689,
        513,
        217,
    ]


def test_what_no_shard_can_be(root: Path, cache: Path) -> None:
    for held in ([], [4], [-1, 0]):
        with pytest.raises(BadInput, match="give numbers from 0 to 3"):
            open_shards(root, Data(), cache, SHARDS, held)
    with pytest.raises(BadInput, match=r"33 clips are too few for 5000 shards: none falls into shard 0; set fewer"):
        open_shards(root, Data(), cache, 5000, [0])


def test_a_shard_is_found_again_without_listing_the_corpus(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysd.data.listed._SETTLED_NS", -(10**18))
    before = open_shards(root, Data(), tmp_path, SHARDS, [0, 2])
    monkeypatch.setattr("raysd.data.store.scan", None)
    assert open_shards(root, Data(), tmp_path, SHARDS, [0, 2]).fingerprints == before.fingerprints
    store = open_store(root, Shard(Data(), 2, SHARDS), tmp_path)
    assert store.fingerprint == before.fingerprints[2]
