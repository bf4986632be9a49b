"""Which clips were ranked most wrong: counted by hand, and against the AUC."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from raysd.detect.wrong import most_wrong

SECTION = {"part": "dev", "machine": "fan", "section": "00", "split": "test"}


def clips(rows: Sequence[tuple[str, int | None, float, str | None]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            SECTION | {"path": path, "label": label, "score": score, "domain": domain}
            for path, label, score, domain in rows
        ]
    )


def test_the_most_wrong_are_those_with_most_of_the_other_class_on_the_wrong_side() -> None:
    rows = [("n1", 0, 0.1, None), ("n2", 0, 0.5, None), ("n3", 0, 0.9, None)]
    rows += [("a1", 1, 0.3, None), ("a2", 1, 0.5, None), ("a3", 1, 1.0, None), ("unknown", None, 2.0, None)]
    scores = pd.concat([clips(rows), clips([("t", 0, 3.0, None)]).assign(split="train")])
    (group,) = most_wrong(scores, num_clips=2)
    assert [(clip.path, clip.num_wrong, clip.rank) for clip in group.normals] == [("n3", 2.0, 2), ("n2", 1.5, 3)]
    assert [(clip.path, clip.num_wrong, clip.rank) for clip in group.anomalies] == [("a1", 2.0, 5), ("a2", 1.5, 3)]
    assert {(clip.num_clips, clip.num_others) for clip in (*group.normals, *group.anomalies)} == {(6, 3)}
    assert group.typical is not None
    assert (group.typical.path, group.domain) == ("n1", None)


def test_a_domain_is_shown_alone_and_ranked_in_its_whole_section() -> None:
    rows = [("n1", 0, 0.1, "source"), ("a1", 1, 0.2, "source"), ("n2", 0, 0.3, "target"), ("a2", 1, 0.4, "target")]
    source, target = most_wrong(clips(rows), num_clips=5)
    assert (source.domain, target.domain) == ("source", "target")
    assert not source.normals
    assert [clip.path for clip in source.anomalies] == ["a1"]
    assert [clip.path for clip in target.normals] == ["n2"]
    assert not target.anomalies


def test_a_section_of_one_class_is_passed_over() -> None:
    assert most_wrong(clips([("n1", 0, 0.1, None), ("n2", 0, 0.2, None)]), num_clips=5) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_the_wrong_pairs_of_all_clips_are_those_that_the_auc_lacks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label, score = rng.integers(0, 2, 60), rng.integers(0, 12, 60) / 10  # with ties
    table = clips([(f"{i}", int(label[i]), float(score[i]), None) for i in range(60)])
    (group,) = most_wrong(table, num_clips=60)
    pairs = int(label.sum() * (60 - label.sum()))
    for side in (group.normals, group.anomalies):
        assert sum(clip.num_wrong for clip in side) == pytest.approx((1 - roc_auc_score(label, score)) * pairs)
