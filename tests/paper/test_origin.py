"""From a cell of a table to its trials, on the trials that are kept as evidence, as a user asks for it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from raysd.results.store import Results

REAL = Path(__file__).resolve().parents[2] / "results" / "real"
Command = Callable[..., tuple[int, str, str]]


def explained(raysd: Command, study: str, cell: str, *more: object) -> str:
    status, out, err = raysd("table", study, "--profile", "cpu", "--results", REAL, "--explain", cell, *more)
    assert (status, err) == (0, "")
    return out


def test_a_cell_leads_to_its_trials(raysd: Command) -> None:
    out = explained(raysd, "cutoff", "gain, cutoff=2000,auc,toycar")
    assert out.startswith("cutoff: mode=gain, cutoff_hz=2000: AUC, dev, ToyCar\n")
    head = re.search(r"\n([\d.]+) ± [\d.]+, in percent, from 6 of 6 seeds\ndifference to the baseline (\S+) \[", out)
    assert head is not None
    lines = [line.split() for line in out.splitlines()]
    trials = [
        line for line in lines if len(line) == 6 and line[0] in "012345" and re.fullmatch(r"[0-9a-f]{20}", line[1])
    ]
    assert len(trials) == 6
    values, baseline, differences = ([float(line[i]) for line in trials] for i in (2, 4, 5))
    assert sum(values) / 6 == pytest.approx(float(head[1]), abs=0.011)
    assert sum(differences) / 6 == pytest.approx(float(head[2]), abs=0.011)
    for seed, line in enumerate(trials):
        record = Results(REAL).read(line[1])
        assert (record.seed, record.variant) == (seed, "mode=gain, cutoff_hz=2000")
        sections = [row for row in record.metrics if row["metric"] == "auc" and row["section"].isdecimal()]
        assert 100 * sum(row["value"] for row in sections) / len(sections) == pytest.approx(values[seed], abs=0.005)
        assert values[seed] - baseline[seed] == pytest.approx(differences[seed], abs=0.011)
        for row in sections:
            assert any(cells[:1] == [str(seed)] and f"{100 * row['value']:.2f}" in cells for cells in lines)
    status, shown, _ = raysd("show", trials[0][1], "--results", REAL)
    assert (status, trials[0][1] in shown) == (0, True)


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("without segments", "without segments: official score, dev, ToyCar"),
        ("only segments,pAUC", "only segments: pAUC, dev, ToyCar"),
        ("baseline", "baseline: official score, dev, ToyCar"),
        ("gwrp,dev", "classical_gwrp (reference): official score, dev, ToyCar"),
    ],
)
def test_a_cell_is_found_by_part_of_a_name(raysd: Command, cell: str, found: str) -> None:
    assert explained(raysd, "augmentation", cell).startswith(f"augmentation: {found}\n")


def test_levels_of_the_baseline_lead_to_it(raysd: Command) -> None:
    assert explained(raysd, "cutoff", "mode=noise,cutoff=2000").startswith("cutoff: baseline: ")


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("segments", "say which variant: 'without segments', 'only segments'"),
        ("auc", "say which variant: 'baseline', "),
        (
            "without segment s,fan",
            "'without segment s' is no variant, machine, metric or part of augmentation; did you",
        ),
        ("without segments,ToyCat", "did you mean 'ToyCar'?"),
    ],
)
def test_a_wrong_name_gets_one_line(raysd: Command, cell: str, said: str) -> None:
    status, out, err = raysd("table", "augmentation", "--profile", "cpu", "--results", REAL, "--explain", cell)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_it_has_the_forms_of_text(raysd: Command) -> None:
    assert "### trials" in explained(raysd, "augmentation", "none", "--format", "markdown")
    assert r"\begin{tabular}" in explained(raysd, "augmentation", "none", "--format", "latex")
    command = ("table", "augmentation", "--profile", "cpu", "--results", REAL, "--explain", "none", "--format", "csv")
    assert "--explain has no --format csv" in raysd(*command)[2]
