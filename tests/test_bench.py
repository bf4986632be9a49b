"""The benchmarks: what their lines say, and that the README's table is made of them."""

import importlib.util
import runpy
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """They import each other by their names, as scripts of one folder do."""
    monkeypatch.syspath_prepend(str(BENCH))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_shows_what_was_measured() -> None:
    table = script("table")
    begin, end = table.MARKS
    made = table.markdown((ROOT / "results" / "bench.jsonl").read_text(encoding="utf-8"))
    assert made.count("| yes |") + made.count("| **no** |") > 0
    assert begin + made + end in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(BENCH.glob("bench_*.py")), ids=lambda path: path.stem)
def test_all_can_be_imported(path: Path) -> None:
    assert callable(runpy.run_path(str(path), run_name=path.stem)["main"])


@pytest.mark.parametrize(
    ("goal", "unit", "ours", "ratio", "met"),
    [
        (">= 0.97", "clips/s", 5.0, 0.97, True),
        (">= 0.97 of torchrun, the same loop", "clips/s", 5.0, 0.96, False),
        ("<= 0.3 s beyond", "s", 0.31, 0.01, False),
        ("<= 3 s; the reference is the imports alone", "s", 2.9, 9.0, True),
        ("<= 3,000 bytes", "bytes", 2999.0, None, True),
        ("<= 5 s and <= 0.5 of it", "s", 4.0, 0.6, False),
        ("<= 1 GB", "s", 4.0, 0.6, None),
        (">= 0.97", "s", 4.0, None, None),
        ("told only", "s", 4.0, 0.6, None),
    ],
)
def test_whether_a_goal_is_met(goal: str, unit: str, ours: float, ratio: float | None, met: bool | None) -> None:
    assert script("corpus").met(goal, unit, ours, ratio) is met
