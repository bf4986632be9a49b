"""What the tests of this folder share; it also lets them import its helper modules by their bare name."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from workplace import Workplace


@pytest.fixture
def workplace(tmp_path: Path, corpus: Callable[[int], Path]) -> Callable[[str], Workplace]:
    """Study file's text -> a place to run it in."""
    return lambda study: Workplace(tmp_path, corpus(2020), study)
