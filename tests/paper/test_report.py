"""The report of a study: one page that needs nothing else, and says what the numbers say."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from made_search import ORIGIN, STUDY, failed, record, run_search, study_at
from scipy.stats import spearmanr

from raysd.paper.ranking import rank_agreement
from raysd.paper.tables import ORACLE
from raysd.results.store import Results
from raysd.study.design import load_study, trials_of
from raysd.study.importance import importances
from raysd.study.search import build_optuna
from raysd.study.searched import searched

Run = Callable[..., tuple[int, str, str]]
ALONE = {"meta", "br", "hr", "img", "link", "input"}
"""Elements that are never closed."""


class Page(HTMLParser):
    """A page as it is nested; raises where it is not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, tag: str, name: str) -> list[str]:
        return [value for where, key, value in self.attributes if (where, key) == (tag, name)]

    def assert_self_contained(self, text: str) -> None:
        """No element takes anything from elsewhere, and no name is given twice."""
        assert "://" not in text
        assert not [one for one in self.attributes if one[1] in ("src", "srcset", "data", "action", "poster")]
        assert all(value.startswith("#") for _, name, value in self.attributes if name.endswith("href"))
        assert "@import" not in text
        assert text.count("<script") == text.count("<script>") == 1  # its own, which sorts tables
        (policy,) = [value for value in self.values("meta", "content") if value.startswith("default-src")]
        assert policy.startswith("default-src 'none'; ")
        assert "http" not in policy
        ids = [value for _, name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        assert set(re.findall(r"url\(([^)]*)\)", text)) <= {f"#{name}" for name in ids}


def test_the_report_of_a_search(raysd: Run, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    run_search(study_at(tmp_path), results)
    file = tmp_path / "out" / "found.html"
    status, _, err = raysd("report", tmp_path / "find.yaml", "--results", results.root, "--to", file)
    assert (status, err.split()) == (0, ["written:", str(file)])
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    page.assert_self_contained(text)
    assert {"viewport"} <= set(page.values("meta", "name"))

    titles = [len(page.values("svg", name)) for name in ("role", "aria-label")]
    assert titles == [4, 4]  # history, two proxies, importance
    assert any("11 finished and 1 pruned" in alt for alt in page.values("svg", "aria-label"))
    assert STUDY["question"] in page.text
    assert "14 suggestions: 11 done, 1 pruned, 1 asked, 1 failed" in page.text
    assert "the perturbed-copies proxy ranks the 11 finished suggestions closely" in page.text.lower()
    assert "it is number 1 of 11" in page.text
    assert "ValueError: <broken> & gone" in page.text
    assert "log: true" in page.text  # the study file
    assert f"{ORIGIN['commit'][:12]}, with changes that are not committed" in page.text
    assert "2.13.0" in page.text
    assert ORACLE not in text


def test_an_oracle_is_stamped_above_the_report(raysd: Run, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    run_search(study_at(tmp_path, search=STUDY["search"] | {"oracle": True, "suggestions": 4}), results)
    raysd("report", tmp_path / "find.yaml", "--results", results.root, "--to", tmp_path / "o.html")
    words = Page((tmp_path / "o.html").read_text(encoding="utf-8")).text
    assert words.index(ORACLE) < words.index(STUDY["question"])
    assert "3 finished: too few, or too much alike, to say which factor mattered" in words
    assert "3 finished suggestions are too few to say whether the perturbed-copies proxy" in words


def test_the_report_of_a_comparison_at_any_time(
    raysd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: Callable[[int], Path], cache_dir: Path
) -> None:
    study_at(tmp_path)
    study = {"question": "which?", "baseline": "recipes/base.yaml", "design": "list", "seeds": [0, 1]}
    study |= {"variants": {"none": {"augment.log_mixup_exp": None}}, "references": ["recipes/floor.yaml"]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    results = Results(tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    assert raysd("report", "s.yaml")[0] == 0
    assert "No trial is finished yet." in Page(Path("s.html").read_text(encoding="utf-8")).text

    lost, *done = trials_of(load_study(tmp_path / "s.yaml"), "d0")[::-1]
    said = 'Traceback (most recent call last):\n  File "/home/me/raysd/train.py", line 3\nValueError: <broken> & gone'
    results.write_failure(replace(failed(lost), traceback=said))
    for trial in done:
        results.write(record(trial, {}, 0.5 + 0.1 * trial.seed + 0.05 * (trial.variant == "none")))
    assert raysd("report", "s.yaml")[0] == 0
    text = Path("s.html").read_text(encoding="utf-8")
    page = Page(text)
    page.assert_self_contained(text)
    assert "With one seed there is no test; seen: 'none', +5.0 points." in page.text  # paired by seed
    assert "Not all trials are finished: 'none' 1/2." in page.text
    assert "none 1/2 55.00 55.00 55.00" in page.text  # fan, pump, all
    titles = ["Answer", "Results", "More tables", "More figures", "State, plan and cost", "Failures", "Provenance"]
    assert re.findall("<h2>(.*?)</h2>", text) == [*titles, "The study file"]
    assert "/home" not in text  # a traceback tells the file, not the folder
    assert 'File "train.py"' in page.text
    assert str(tmp_path) not in text
    assert "references, not compared" in page.text
    assert "4 of 5 trials done, 0 begun, 1 failed (1 code), 0 missing" in page.text
    assert "none, seed 1 code ValueError: <broken> & gone 1 2024-01-01 00:02" in page.text

    assert raysd("report", "s.yaml", "--data-root", corpus(2020), "--cache", cache_dir)[0] == 0
    assert "trials to do" in Page(Path("s.html").read_text(encoding="utf-8")).text  # the plan, on that data


def test_each_corpus_has_its_answer(raysd: Run, tmp_path: Path) -> None:
    study_at(tmp_path)
    study = {"question": "which?", "baseline": "recipes/base.yaml", "design": "list", "seeds": [0, 1, 2, 3, 4, 5]}
    study |= {"variants": {"none": {"augment.log_mixup_exp": None}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    results = Results(tmp_path / "results")
    origin = json.dumps(ORIGIN | {"packages": {"torch": "2.13.0", "ray": "2.60.0"}})
    for corpus, gain in {"d0": 0.05, "d1": -0.02}.items():
        for trial in trials_of(load_study(tmp_path / "s.yaml"), corpus):
            official = 0.5 + 0.1 * trial.seed + gain * (trial.variant == "none")
            results.write(record(trial, {}, official, provenance=origin))
    assert raysd("report", tmp_path / "s.yaml", "--results", results.root, "--to", tmp_path / "s.html")[0] == 0
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    page = Page(text)
    page.assert_self_contained(text)
    first, second = re.findall('<p class="lead">(.*?)</p>', text.replace("\u00a0", " "))
    assert first.startswith("&#39;none&#39; raises the official score by 5.0 points [5.0, 5.0], p = 0.031, 6 seeds.")
    assert second.startswith("&#39;none&#39; lowers the official score by 2.0 points [2.0, 2.0], p = 0.031, 6 seeds.")
    assert "Answer on DCASE 2020, fan, pump (d0)" in page.text
    assert "torch 2.13.0 ray 2.60.0" in page.text


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_file_that_is_no_report_is_not_replaced(raysd: Run, tmp_path: Path, place: str) -> None:
    study_at(tmp_path)
    mine = tmp_path / "mine.html"
    if place == "file":
        mine.write_text("<html>mine</html>", encoding="utf-8")
    else:
        mine.mkdir()
    status, _, err = raysd("report", tmp_path / "find.yaml", "--results", tmp_path / "results", "--to", mine)
    assert (status, err.count("\n")) == (2, 1)
    assert "is no report of raysd; give another file with --to" in err
    assert place == "folder" or mine.read_text(encoding="utf-8") == "<html>mine</html>"


def test_rank_correlation_and_its_interval() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=30).round(1)  # with ties
    second = first + rng.normal(size=30)
    found = rank_agreement(first, second)
    expected: Any = spearmanr(first, second)
    assert found.rho == pytest.approx(expected.statistic)
    assert -1 < found.low < found.rho < found.high < 1
    assert found == rank_agreement(first, second)
    assert rank_agreement(first, second, draws=1000, seed=7).low == pytest.approx(found.low, abs=0.1)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], "a ranks the 8 trials closely as b does (Spearman +1.00"),
        ([8, 7, 6, 5, 4, 3, 2, 1], "a ranks the 8 trials against b (Spearman -1.00"),
        ([5, 2, 7, 4, 3, 8, 1, 6], "it is not shown that a ranks the 8 trials as b does (Spearman +0.0"),
        ([4, 7, 2, 8, 6, 1, 5, 3], "what there is, points the wrong way"),
        ([1, 1, 1, 1, 1, 1, 1, 1], "a or b is the same for all 8 trials"),
        ([1, 2, 3, 4], "4 trials are too few to say whether a ranks as b does"),
    ],
)
def test_the_sentence_is_made_from_the_numbers(second: list[int], said: str) -> None:
    first = np.arange(len(second), dtype=float)
    assert said in rank_agreement(first, np.array(second, dtype=float)).sentence("a", "b", "trials")


def test_importance_of_each_factor(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    study = study_at(tmp_path, search=STUDY["search"] | {"suggestions": 24, "random_first": 24})
    run_search(study, results)
    (found,) = searched(study, results)
    by_factor = {one.factor: one for one in importances(build_optuna(study, found.suggestions))}
    assert next(iter(by_factor)) == "rate"  # the objective was made from it
    assert sum(one.ped_anova for one in by_factor.values()) == pytest.approx(1)
    assert sum(one.fanova or 0 for one in by_factor.values()) == pytest.approx(1)
    alpha = by_factor["alpha"]  # means nothing where mixup is off: not in all of them
    assert alpha.fanova is None
    assert 0 < alpha.had == sum("alpha" in one.choices for one in found.finished) < alpha.of == 21
    again = importances(build_optuna(study, found.suggestions))
    assert again == list(by_factor.values())

    few = [one for one in found.suggestions if one.number < 11]
    assert sum(one.state == "done" for one in few) == 9
    assert importances(build_optuna(study, few)) == []
