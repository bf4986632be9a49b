"""What a number of seeds can detect, from results whose spread is known."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from scipy import stats

from raysd.paper.statistics import detectable_by_sign_flips
from raysd.power import seeds_for
from raysd.results.store import Results
from raysd.study.design import load_study, trials_of
from raysd.trial import Place, Run

Command = Callable[..., tuple[int, str, str]]
STUDY = {
    "question": "does it help?",
    "baseline": "base.yaml",
    "factors": {"mixup": {"setting": "augment.log_mixup_exp"}, "crop": {"setting": "augment.random_resize_crop"}},
    "design": "leave_one_out",
    "seeds": [0, 1, 2],
}
BASE = {"augment": {"log_mixup_exp": {}, "random_resize_crop": {}}}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(STUDY))
    return tmp_path / "s.yaml"


def fill(study: Path, results: Path, most_seed: int = 2) -> None:
    """Paired differences of 1, 2 and 3 points on fan and 2, 4 and 6 on valve: sd 1 and 2, and 1.5 over both."""
    for trial in trials_of(load_study(study), "d0"):
        if trial.seed > most_seed:
            continue
        more = 0.0 if trial.role == "baseline" else 0.01 * (1 + trial.seed)
        about = {"part": "dev", "section": "arithmetic_mean", "metric": "official", "num_normal": 1, "num_anomaly": 1}
        values = {"fan": 0.5 + more, "valve": 0.5 + 2 * more, "all": 0.5 + 1.5 * more}
        clip = {"path": "a.wav", "machine": "fan", "section": "00", "part": "dev", "split": "test", "label": 1}
        run = Run(trial, Place(Path(), Path(), results, study="s"), datetime.now(UTC))
        metrics = pd.DataFrame([about | {"machine": machine, "value": value} for machine, value in values.items()])
        clips = pd.DataFrame([clip | {"domain": None, "score": 1.5}])
        training: dict[str, Any] = {"history": [], "skipped": [], "trained_on": {"device": "cpu"}}
        Results(results).write(run.done(training, clips, metrics))


def rows(text: str) -> dict[str, list[str]]:
    """Lines of tables by their first cell."""
    lines = [line.split("  ") for line in text.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return {line[0]: line[1:] for line in cells if len(line) > 1}


def test_from_the_spread_to_what_seeds_detect(raysd: Command, study: Path, tmp_path: Path) -> None:
    fill(study, tmp_path / "r")
    status, out, _ = raysd("power", study, "--results", tmp_path / "r", "--difference", 1.5)
    assert status == 0
    assert "sd of differences: 1.5 points, from the differences of 2 variants over 3 seeds" in " ".join(out.split())
    found = rows(out)
    assert found["the study's 3"] == ["0.25", "none", "none"]
    assert found["5"] == ["0.0625", "none", "none"]
    least_p, one, first = found["6"]
    assert (least_p, first) == ("0.0312", "none")
    assert float(one) == pytest.approx(1.5 * stats.norm.ppf(0.8 ** (1 / 6)), rel=0.02)
    assert [float(cell) for cell in found["20"][1:]] == pytest.approx(
        [100 * detectable_by_sign_flips(0.015, 20, 0.8, alpha) for alpha in (0.05, 0.025)], abs=0.005
    )
    lines = " ".join(out.split())
    assert "one comparison: needs p <= 0.05, which takes 6 seeds or more; a difference of 1.5 points takes 10" in lines
    assert "first of 2 (Holm): needs p <= 0.025, which takes 7 seeds or more" in lines
    assert found["fan"][:3] == ["1.00", "none", "7"]
    assert found["valve"][0] == "2.00"
    assert found["all"][:3] == ["1.50", "none", "10"]


def test_without_enough_results_it_tells_in_standard_deviations(raysd: Command, study: Path, tmp_path: Path) -> None:
    expected = f"{detectable_by_sign_flips(1.0, 10):.2f} sd"
    nothing = raysd("power", study, "--results", tmp_path / "r", "--difference", 1)
    assert nothing[0] == 0
    assert rows(nothing[1])["10"][1] == expected
    assert "unknown until two seeds of the baseline are there" in nothing[1]
    fill(study, tmp_path / "r", most_seed=0)
    one_seed = raysd("power", study, "--results", tmp_path / "r", "--seeds", "0,1,2,3,4,5,6")
    assert rows(one_seed[1])["the study's 7"][1].endswith(" sd")
    assert "dev, DCASE 2020" in one_seed[1]


def test_what_cannot_be_asked_is_one_line(raysd: Command, study: Path, tmp_path: Path) -> None:
    for words, said in (
        (("power", study, "--difference", "0"), "--difference 0: expected points above 0"),
        (("power", study, "--difference", "nan"), "--difference nan: expected points above 0"),
        (("power", "search"), "search: a search has one seed a recipe"),
    ):
        status, out, err = raysd(*words, "--results", tmp_path / "r")
        assert (status, out) == (2, "")
        assert said in err


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_seeds_that_a_difference_takes_are_the_fewest_that_detect_it(alpha: float) -> None:
    number = seeds_for(0.01, 0.02, alpha)
    assert number is not None
    assert detectable_by_sign_flips(0.02, number, 0.8, alpha) <= 0.01
    assert detectable_by_sign_flips(0.02, number - 1, 0.8, alpha) > 0.01
    textbook = (stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(0.8)) ** 2 * 4
    assert number == pytest.approx(math.ceil(textbook), abs=4)
    assert seeds_for(1e-6, 0.02) is None
    assert seeds_for(100.0, 0.02) == 6
