"""What the tests of faults share; it also lets them import the helper modules by their bare name."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "scale")]
from workplace import Workplace

from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.session import Session
from raysd.study.design import load_study

STUDY = """
question: "Does it go well?"
baseline: tiny.yaml
design: list
variants: { gaussian: { scoring.name: gaussian } }
seeds: [0]
references: []
"""


@pytest.fixture
def workplace(tmp_path: Path, corpus: Callable[[int], Path]) -> Callable[[str], Workplace]:
    """Study file's text -> a place to run it in."""
    return lambda study: Workplace(tmp_path, corpus(2020), study)


@pytest.fixture
def opened(
    tmp_path: Path, tiny_recipe: Recipe, corpus: Callable[[int], Path], cache_dir: Path
) -> Callable[[str | Path], Session]:
    """Results root -> a study of two trials and one training, at `study.yaml`, whose clips are decoded."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")

    def session(root: str | Path) -> Session:
        made = Session(load_study(tmp_path / "study.yaml"), Results(root), corpus(2020), cache_dir)
        made.decode()
        return made

    return session
