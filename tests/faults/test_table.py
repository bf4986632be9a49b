"""docs/faults.md: every row names tests that are there, and quotes lines that the code says."""

import ast
import os
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split(" | ")]
    for line in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| (?!what happens|---)", line)
]


@cache
def in_file(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@cache
def said() -> list[tuple[int, re.Pattern[str]]]:
    """What the code can say: its texts, with anything in the place of what is filled in; and how long they are."""
    patterns = []
    for path in sorted((ROOT / "raysd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            length = sum(len(text) for text in texts if isinstance(text, str))
            if length >= 15:
                whole = (re.escape(text) if isinstance(text, str) else ".*" for text in texts)
                patterns.append((length, re.compile("".join(whole))))
    return patterns


def test_every_row_names_tests_that_are_there() -> None:
    for row in ROWS:
        assert len(row) == 4, row
        named = re.findall(r"(\S+)::(\S+)", row[3])
        assert named, row
        assert row[3].split() == [f"{path}::{name}" for path, name in named]
        for path, name in named:
            assert name in in_file(path), f"{path}::{name}"


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_lines_that_it_quotes_are_what_the_code_says(row: list[str]) -> None:
    for line in re.findall(r"`([^`]*)`", row[1]):
        enough = len(line.replace("...", "")) / 2  # or a short text that stands in many lines would do
        if "..." in line or ": " in line:
            assert any(length >= enough and pattern.search(line) for length, pattern in said()), line


def test_every_test_of_a_fault_stands_in_a_row() -> None:
    named = {test for row in ROWS for test in row[3].split()}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path != Path(__file__):
            relative = path.relative_to(ROOT).as_posix()
            assert {f"{relative}::{name}" for name in in_file(relative)} <= named, relative
    assert len(ROWS) >= 25
    assert os.strerror(28) == "No space left on device"  # as quoted
