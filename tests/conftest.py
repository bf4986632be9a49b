"""Fixtures for all tests. What needs torch imports it inside, so that tests without it start at once."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile as sf

sys.path.append(str(Path(__file__).parent))  # lets tests import the helper modules here by their bare name
import fuzzing  # noqa: F401  # registers the profile of long campaigns before the command line names it
from served import Served, serving

FAULTS = Path(__file__).parents[1] / "docs" / "faults.md"

if TYPE_CHECKING:
    from raysd.data.store import Store
    from raysd.model.spectra import Spectra
    from raysd.recipe import Recipe
    from raysd.train import TrainingSet


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that the table of faults names carry the mark `fault`."""
    named = set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", FAULTS.read_text(encoding="utf-8")))
    for item in items:
        path = item.path.relative_to(FAULTS.parents[1]).as_posix()
        if (path, getattr(item, "originalname", item.name)) in named:
            item.add_marker("fault")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real recordings and official results beside the checkout; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no real recordings or official results here: {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Year -> data root of a synthetic corpus: 2 machines of 2 sections, each of 8 training and 6 test clips."""
    from raysd.data.synthetic import Synthetic, synthesise

    made: dict[int, Path] = {}

    def data_root(year: int) -> Path:
        if year not in made:
            root = tmp_path_factory.mktemp("corpus") / str(year)
            shape = {"machines": 2, "sections": 2, "train_clips": 8, "test_clips": 6, "clip_seconds": 1.25}
            synthesise(root, Synthetic.model_validate({"year": year, **shape}))
            made[year] = root
        return made[year]

    return data_root


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, so that each corpus is decoded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A web server, empty; what waits for a server waits a thousandth as long."""
    from raysd.data import transfer

    monkeypatch.setattr(transfer, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as served:
        yield served


@pytest.fixture
def raysd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line; gives its exit status and what it printed."""

    from raysd import cli

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raysd", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def tiny_recipe() -> "Recipe":
    """A recipe that trains on such a corpus in a fraction of a second, with every kind of random number in it."""
    from raysd.recipe import Recipe
    from raysd.settings import with_changes

    return with_changes(
        Recipe(),
        {
            "features.num_bands": 32,
            "segments.train_seconds": 1.0,
            "augment": {"time_shift": {}, "high_frequency": {"mode": "mix"}, "spec_mask": {}},
            "encoder": {"name": "cnn", "width": 0.125, "embedding_dim": 16},
            "loss.contrastive": {"hidden_dim": 32, "projection_dim": 16},
            "train": {"epochs": 2, "batch_size": 16, "precision": "fp32"},
        },
        "tiny",
    )


@pytest.fixture(scope="session")
def ragged_store(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> "Store":
    """Clips of noise of four lengths, of which no two that follow each other are equally long."""
    from raysd.data.store import Data, open_store

    root, rng = tmp_path_factory.mktemp("ragged"), np.random.default_rng(0)
    for split, names in {"train": ["normal"], "test": ["anomaly", "normal"]}.items():
        folder = root / "dev_data" / "fan" / split
        folder.mkdir(parents=True)
        for number in range(8):
            samples = (9000, 16000, 4000, 12345)[number % 4]
            for name in names:
                sf.write(folder / f"{name}_id_00_{number:08d}.wav", 0.1 * rng.standard_normal(samples), 16000)
    return open_store(root, Data(), cache_dir)


@pytest.fixture(scope="session")
def store(corpus: Callable[[int], Path], cache_dir: Path) -> "Store":
    """The decoded clips of the corpus of 2020."""
    from raysd.data.store import Data, open_store

    return open_store(corpus(2020), Data(), cache_dir)


@pytest.fixture(scope="session")
def spectra(store: "Store", tiny_recipe: "Recipe") -> "Spectra":
    """Their log-mels."""
    import torch

    from raysd.model.spectra import Spectra

    return Spectra(store, tiny_recipe.features, torch.device("cpu"))


@pytest.fixture(scope="session")
def training_set(store: "Store") -> "TrainingSet":
    """All their training clips, a class a section."""
    import torch

    from raysd.train import TrainingSet

    clips = store.clips.query("split == 'train'")
    sections = list(zip(clips["machine"], clips["section"], strict=True))
    label_N = torch.tensor([sorted(set(sections)).index(section) for section in sections])
    return TrainingSet(torch.tensor(clips.index.to_numpy()), label_N, 4)
