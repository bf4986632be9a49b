"""A study whose metric is of normal clips alone, with which a recipe can be chosen."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raysd.errors import BadInput
from raysd.study.design import load_study

SELECT = {
    "question": "Which is best on normal clips?",
    "baseline": "recipes/classical.yaml",
    "metric": "proxy_perturbed",
    "changes": {"train": {"held_out": 0.25, "held_out_by": "seed"}, "beside": {}},
    "design": "list",
    "variants": {"fused": {"scoring": {"name": "fusion", "trained": None}}},
    "seeds": [0, 1],
    "references": [],
}


def test_it_needs_clips_to_hold_out(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(SELECT | {"changes": {"beside": {}}}))
    with pytest.raises(BadInput, match=r"s\.yaml: metric: proxy_perturbed needs held-out clips; set train\.held_out"):
        load_study(path)
    path.write_text(yaml.safe_dump(SELECT | {"metric": "proxy"}))
    with pytest.raises(BadInput, match="'proxy' is no metric of 2020"):
        load_study(path)


def test_its_table_shows_the_proxies_and_nothing_of_test_clips(
    corpus: Callable[[int], Path], cache_dir: Path, tmp_path: Path
) -> None:
    from raysd.paper.tables import study_tables
    from raysd.results.store import Results
    from raysd.session import Session
    from raysd.trial import run_trial

    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(SELECT | {"changes": SELECT["changes"] | {"features": {"num_bands": 32}}}))
    study = load_study(path)
    session = Session(study, Results(tmp_path / "results"), corpus(2020), cache_dir)
    session.decode()
    for trial in session.missing():
        run_trial(trial, session.place())
    (table,) = study_tables(study, session.results)
    assert table.metrics == ("proxy_perturbed", "proxy_other_sections")
    assert any("AUC of held-out normals against perturbed copies" in str(grid) for grid in table.grids())
    keys = table.rows[0].cell("dev", "all", "proxy_perturbed").keys
    records = [session.results.read(key) for key in keys.values()]
    held_out = [{clip["path"] for clip in one.scores if clip["split"] == "held_out"} for one in records]
    assert len(held_out) == 2
    assert held_out[0].isdisjoint(held_out[1])
