"""A fusion of scores: what is standardised by what, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from raysd.detect.scores import Embedded, Gaussian
from raysd.detect.scores import NearestNeighbours as KNN
from raysd.detect.scoring import Fusion, score_clips
from raysd.errors import BadInput
from raysd.recipe import Recipe
from raysd.settings import with_changes


def clips(z_ND: np.ndarray, mean_NF: np.ndarray, section: str = "00") -> Embedded:
    def column(value: object) -> np.ndarray:
        return np.array([value] * len(z_ND), dtype=object)

    beside = {"mean": mean_NF, "loudest": mean_NF}
    return Embedded(z_ND, column("fan"), column(section), column(None), beside=beside)


@pytest.fixture
def corpus() -> tuple[Embedded, Embedded]:
    """40 training clips; test clips that are normal, odd in the trained embedding, odd in the mean; ten of each."""
    draws = np.random.default_rng(5)
    z_MD, mean_MF = draws.normal(size=(30, 4)), 100 * draws.normal(size=(30, 3))
    z_MD[10:20] += 12
    mean_MF[20:] += 1200
    return clips(draws.normal(size=(40, 4)), 100 * draws.normal(size=(40, 3))), clips(z_MD, mean_MF)


BOTH = Fusion(trained=KNN(distance="euclidean"), mean=Gaussian(), loudest=None)


@pytest.mark.parametrize("combine", ["mean", "max"])
def test_a_fusion_hears_what_either_part_hears(combine: str, corpus: tuple[Embedded, Embedded]) -> None:
    scoring = BOTH.model_copy(update={"combine": combine})
    test_M = score_clips(scoring, corpus[0], corpus[1], 0)[1]
    assert test_M[10:].min() > test_M[:10].max()
    for part in ({"mean": None}, {"trained": None}):
        alone_M = score_clips(scoring.model_copy(update=part), corpus[0], corpus[1], 0)[1]
        assert alone_M[10:].min() < alone_M[:10].max()


def test_a_part_counts_the_same_in_whatever_unit_it_is(corpus: tuple[Embedded, Embedded]) -> None:
    train, test = corpus
    louder, loud = (replace(both, z_ND=both.z_ND * 1e3) for both in (train, test))
    np.testing.assert_allclose(score_clips(BOTH, louder, loud, 0)[1], score_clips(BOTH, train, test, 0)[1], rtol=1e-6)


def test_training_clips_are_scored_by_parts_that_were_not_fitted_to_them() -> None:
    """So they read as other normal clips do; a Gaussian of 40 clips in 20 dimensions would know its own at once."""
    draws = np.random.default_rng(6)
    train, fresh = (clips(draws.normal(size=(40, 4)), draws.normal(size=(40, 20))) for _ in range(2))
    train_N, fresh_M = score_clips(Fusion(trained=None, loudest=None), train, fresh, 0)
    assert train_N.mean() == pytest.approx(0)
    assert train_N.std() == pytest.approx(1)
    assert abs(fresh_M.mean()) < 0.5
    alone = [replace(both, z_ND=both.beside["mean"]) for both in (train, fresh)]
    in_sample_N, fresh_M = score_clips(Gaussian(), alone[0], alone[1], 0)
    assert fresh_M.mean() > in_sample_N.mean() + 3 * in_sample_N.std()


def test_scores_do_not_depend_on_the_order_or_on_other_test_clips(corpus: tuple[Embedded, Embedded]) -> None:
    train, test = corpus
    train_N, test_M = score_clips(Fusion(), train, test, 0)
    by_N, by_M = np.random.default_rng(0).permutation(40), np.random.default_rng(1).permutation(30)
    other_N, other_M = score_clips(Fusion(), train.of(by_N), test.of(by_M[:7]), 0)
    np.testing.assert_allclose(other_N, train_N[by_N], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(other_M, test_M[by_M[:7]], rtol=1e-9, atol=1e-9)


def test_each_section_is_standardised_by_its_own_clips() -> None:
    draws = np.random.default_rng(8)
    both = clips(np.repeat([1.0, 9.0], 40)[:, None] * draws.normal(size=(80, 4)), np.zeros((80, 3)))
    both = replace(both, section_N=np.repeat(np.array(["00", "01"], dtype=object), 40))
    train_N, _ = score_clips(Fusion(mean=None, loudest=None), both, both, 0)
    for own_N in (train_N[:40], train_N[40:]):
        assert own_N.mean() == pytest.approx(0)
        assert own_N.std() == pytest.approx(1)


def test_a_section_of_one_clip_cannot_be_calibrated(corpus: tuple[Embedded, Embedded]) -> None:
    train, test = corpus
    with pytest.raises(BadInput, match="fan section 00: one training clip is too few"):
        score_clips(Fusion(), train.of(np.arange(1)), test, 0)


def test_what_a_fusion_reads_has_to_be_kept() -> None:
    with pytest.raises(BadInput, match=r"write 'beside: \{\}'"):
        with_changes(Recipe(), {"scoring.name": "fusion"}, "a")
    with pytest.raises(BadInput, match="at least one"):
        with_changes(Recipe(), {"scoring": {"name": "fusion", "trained": None, "mean": None, "loudest": None}}, "a")
    assert with_changes(Recipe(), {"scoring.name": "fusion", "beside": {}}, "a").beside is not None
