from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.spatial.distance import mahalanobis
from sklearn.neighbors import NearestNeighbors

from raysd.detect import scores
from raysd.detect.scores import ClassLogit, Embedded, Gaussian, GaussianMixture
from raysd.detect.scores import NearestNeighbours as KNN
from raysd.detect.scoring import SCORERS, Scoring, score_clips
from raysd.errors import BadInput

ENTRIES = [pytest.param(kind.tiny(), id=name) for name, kind in SCORERS.items()]
COMPARING = [
    pytest.param(
        kind.tiny().model_copy(update={"reference": reference, "domains": domains}), id=f"{name}-{reference}-{domains}"
    )
    for name, kind in SCORERS.items()
    if name not in ("class_logit", "fusion")
    for reference in ("section", "machine")
    for domains in ("pooled", "normalised")
]


def embedded(z_ND, machine="fan", section: object = "00", domain: object = None, class_score_N=None) -> Embedded:
    def column(value) -> np.ndarray:
        filled = np.empty(len(z_ND), dtype=object)
        filled[:] = value
        return filled

    return Embedded(np.asarray(z_ND, np.float32), column(machine), column(section), column(domain), class_score_N)


@pytest.fixture
def corpus() -> tuple[Embedded, Embedded]:
    """Two sections, two domains (the target rare), training clips; test clips: 20 near, then 20 far."""
    draws = np.random.default_rng(7)
    D = 6
    centre = {"00": np.r_[5.0, 0, 0, 0, 0, 0], "01": np.r_[0, 5.0, 0, 0, 0, 0]}
    sections = np.array(["00", "01"] * 40, dtype=object)
    domains = np.array(["source"] * 70 + ["target"] * 10, dtype=object)
    shift = np.where(domains[:, None] == "target", np.r_[0, 0, 2.0, 0, 0, 0], 0)
    z_ND = np.stack([centre[s] for s in sections]) + shift + 0.3 * draws.normal(size=(80, D))
    train = replace(embedded(z_ND, section=sections, domain=domains), class_score_N=-draws.uniform(0, 0.1, 80))
    sections = np.array(["00", "01"] * 20, dtype=object)
    near = np.stack([centre[s] for s in sections]) + 0.3 * draws.normal(size=(40, D))
    far = np.arange(40) >= 20
    z_MD = near + np.where(far[:, None], np.r_[0, 0, 0, 0, 9.0, -9.0], 0)
    test = replace(embedded(z_MD, section=sections), class_score_N=np.where(far, -5.0, -0.1))
    return train, test


@pytest.mark.parametrize("scoring", ENTRIES + COMPARING)
def test_scores_are_finite_and_far_clips_score_higher(scoring: Scoring, corpus: tuple[Embedded, Embedded]):
    train_N, test_M = score_clips(scoring, *corpus, seed=3)
    assert train_N.shape == (80,)
    assert test_M.shape == (40,)
    assert train_N.dtype == test_M.dtype == np.float64
    assert np.isfinite(train_N).all()
    assert np.isfinite(test_M).all()
    assert test_M[20:].min() > test_M[:20].max()
    assert test_M[20:].min() > train_N.max()


@pytest.mark.parametrize("scoring", ENTRIES + COMPARING)
def test_scores_are_a_function_of_the_clips_not_of_their_order(scoring: Scoring, corpus: tuple[Embedded, Embedded]):
    train, test = corpus
    train_N, test_M = score_clips(scoring, train, test, seed=3)
    again_N, again_M = score_clips(scoring, train, test, seed=3)
    np.testing.assert_array_equal(train_N, again_N)
    np.testing.assert_array_equal(test_M, again_M)
    by_N, by_M = np.random.default_rng(0).permutation(80), np.random.default_rng(1).permutation(40)
    other_N, other_M = score_clips(scoring, train.of(by_N), test.of(by_M), seed=3)
    np.testing.assert_allclose(other_N, train_N[by_N], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(other_M, test_M[by_M], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scoring", COMPARING)
def test_the_domain_of_a_test_clip_plays_no_part(scoring: Scoring, corpus: tuple[Embedded, Embedded]):
    train, test = corpus
    told = replace(test, domain_N=np.array(["source", "target"] * 20, dtype=object))
    np.testing.assert_array_equal(score_clips(scoring, train, test, 0)[1], score_clips(scoring, train, told, 0)[1])


@pytest.mark.parametrize("scoring", COMPARING)
@pytest.mark.parametrize("counts", [(1, 0), (1, 1), (2, 1), (3, 3)])
def test_few_training_clips_and_equal_ones_still_score(scoring: Scoring, counts: tuple[int, int]):
    domain = np.array(["source"] * counts[0] + ["target"] * counts[1], dtype=object)
    for z_ND in (np.ones((sum(counts), 4)), np.random.default_rng(0).normal(size=(sum(counts), 4))):
        train, test = embedded(z_ND, domain=domain), embedded(np.array([[1.0, 1, 1, 1], [9, -9, 9, -9]]))
        train_N, test_M = score_clips(scoring, train, test, 0)
        assert np.isfinite(train_N).all()
        assert np.isfinite(test_M).all()
        if (z_ND == 1).all():
            assert test_M[1] > test_M[0]


@pytest.mark.parametrize("scoring", COMPARING)
def test_no_test_clips_give_no_scores(scoring: Scoring, corpus: tuple[Embedded, Embedded]):
    train, test = corpus
    train_N, test_M = score_clips(scoring, train, test.of(np.arange(0)), 0)
    assert np.isfinite(train_N).all()
    assert test_M.shape == (0,)


def test_the_registry_is_the_union_of_the_recipe():
    assert set(SCORERS.values()) == set(get_args(get_args(Scoring)[0]))
    for name, kind in SCORERS.items():
        assert TypeAdapter(Scoring).validate_python({"name": name}) == kind()


@pytest.mark.parametrize("scoring", COMPARING)
def test_a_section_without_training_clips_is_named(scoring: Scoring):
    train, test = embedded(np.eye(4), section="00"), embedded(np.eye(4), machine="valve", section="02")
    with pytest.raises(BadInput, match="valve section 02: no training clip"):
        score_clips(scoring, train, test, 0)


def test_the_reference_is_the_section_or_the_machine():
    train = embedded(np.array([[0.0, 0], [1, 0], [9, 0], [10, 0]]), section=np.array(["00", "00", "01", "01"], object))
    test = embedded(np.array([[9.5, 0]]), section="00")
    assert score_clips(KNN(distance="euclidean"), train, test, 0)[1] == pytest.approx([8.5])
    assert score_clips(KNN(distance="euclidean", reference="machine"), train, test, 0)[1] == pytest.approx([0.5])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_neighbours_are_those_of_a_brute_force_search(distance, k: int, offset: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scores, "_CHUNK_VALUES", 500)  # several chunks
    draws = np.random.default_rng(0)
    train = embedded(draws.normal(size=(150, 8)) + offset)
    test = embedded(draws.normal(size=(70, 8)) + offset)
    train_N, test_M = score_clips(KNN(distance=distance, k=k), train, test, 0)
    pairs = train.z_ND.astype(np.float64), test.z_ND.astype(np.float64)
    if distance == "cosine" and offset:  # scikit-learn cancels here: the definition, in extended precision
        units = [z.astype(np.longdouble) / np.sqrt((z.astype(np.longdouble) ** 2).sum(1, keepdims=True)) for z in pairs]
        all_NN, all_MN = (1 - unit @ units[0].T for unit in units)
        np.fill_diagonal(all_NN, np.inf)
        expected_N, expected_M = np.sort(all_NN, 1)[:, :k].mean(1), np.sort(all_MN, 1)[:, :k].mean(1)
    else:
        search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=distance).fit(pairs[0])
        expected_N, expected_M = search.kneighbors()[0].mean(axis=1), search.kneighbors(pairs[1])[0].mean(axis=1)
    np.testing.assert_allclose(test_M, expected_M.astype(float), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(train_N, expected_N.astype(float), rtol=1e-6, atol=1e-12)


def test_a_training_clip_is_not_its_own_neighbour_but_its_twin_is():
    train = embedded(np.array([[0.0, 3], [0, 3], [4, 0]]))
    train_N, _ = score_clips(KNN(distance="euclidean"), train, train, 0)
    assert train_N.tolist() == [0, 0, 5]


def test_more_neighbours_than_clips_are_all_of_them():
    train, test = embedded(np.array([[0.0], [2]])), embedded(np.array([[5.0]]))
    train_N, test_M = score_clips(KNN(distance="euclidean", k=99), train, test, 0)
    assert train_N.tolist() == [2, 2]
    assert test_M.tolist() == [4]


def test_gaussian_is_the_mahalanobis_distance():
    draws = np.random.default_rng(0)
    train, test = embedded(draws.normal(size=(50, 3))), embedded(draws.normal(size=(5, 3)))
    _, test_M = score_clips(Gaussian(shrinkage=0), train, test, 0)
    z_ND = train.z_ND.astype(float)
    inverse = np.linalg.inv(np.cov(z_ND.T, bias=True))
    expected = [mahalanobis(z, z_ND.mean(axis=0), inverse) for z in test.z_ND.astype(float)]
    np.testing.assert_allclose(test_M, expected, rtol=1e-9)


def test_full_shrinkage_is_a_scaled_euclidean_distance():
    train = embedded(np.array([[1.0, 0], [-1, 0], [0, 3], [0, -3]]))  # mean variance (0.5 + 4.5) / 2
    _, test_M = score_clips(Gaussian(shrinkage=1), train, embedded(np.array([[3.0, 4]])), 0)
    assert test_M == pytest.approx([5 / np.sqrt(2.5)])


def test_more_dimensions_than_clips_need_shrinkage():
    train = embedded(np.random.default_rng(0).normal(size=(10, 200)))
    assert np.isfinite(score_clips(Gaussian(shrinkage=0.01), train, train, 0)[0]).all()
    with pytest.raises(BadInput, match=r"scoring\.shrinkage 0.*10 clips in 200 dimensions"):
        score_clips(Gaussian(shrinkage=0), train, train, 0)


def test_a_mixture_of_one_ranks_as_the_gaussian_and_two_hold_two_modes():
    draws = np.random.default_rng(0)
    train, test = embedded(draws.normal(size=(200, 4)) * [1, 2, 3, 4]), embedded(3 * draws.normal(size=(30, 4)))
    one = score_clips(GaussianMixture(components=1, regularisation=1e-9), train, test, 0)[1]
    np.testing.assert_array_equal(np.argsort(one), np.argsort(score_clips(Gaussian(shrinkage=0), train, test, 0)[1]))
    modes = embedded(np.r_[draws.normal(-10, 1, (100, 1)), draws.normal(10, 1, (100, 1))])
    between, inside = score_clips(GaussianMixture(components=2), modes, embedded(np.array([[0.0], [10.0]])), 0)[1]
    assert between > inside + 10


@pytest.mark.parametrize("scoring", [Gaussian(), GaussianMixture()])
def test_the_unit_of_the_embedding_does_not_change_the_ranking(scoring: Scoring, corpus: tuple[Embedded, Embedded]):
    train, test = corpus
    larger = [replace(clips, z_ND=1024 * clips.z_ND) for clips in (train, test)]
    before, after = score_clips(scoring, train, test, 0)[1], score_clips(scoring, larger[0], larger[1], 0)[1]
    np.testing.assert_array_equal(np.argsort(before), np.argsort(after))


def test_domains_are_standardised_by_their_own_training_scores():
    # neighbours of the source lie 1 apart, of the target 10 apart, but for one of each
    source, target = np.array([0.0, 1, 2, 4]), 1000 + np.array([0.0, 10, 20, 40])
    domain = np.array(["source"] * 4 + ["target"] * 4, dtype=object)
    train = embedded(np.r_[source, target][:, None], domain=domain)
    test = embedded(np.array([[-3.0], [970.0]]))
    scoring = KNN(distance="euclidean")
    assert score_clips(scoring, train, test, 0)[1].tolist() == [3, 30]
    train_N, test_M = score_clips(scoring.model_copy(update={"domains": "normalised"}), train, test, 0)
    deviation = np.std([1, 1, 1, 2])
    assert test_M == pytest.approx([(3 - 1.25) / deviation, (30 - 12.5) / (10 * deviation)])
    assert train_N == pytest.approx(([(1 - 1.25) / deviation] * 3 + [(2 - 1.25) / deviation]) * 2)


def test_a_rare_target_domain_is_normal_to_a_normalised_gaussian():
    draws = np.random.default_rng(0)
    z_ND = np.r_[draws.normal(size=(200, 20)), draws.normal(size=(10, 20)) + 8]
    train = embedded(z_ND, domain=np.array(["source"] * 200 + ["target"] * 10, dtype=object))
    test = embedded(np.r_[draws.normal(size=(20, 20)) + 8, draws.normal(size=(20, 20)) + 4])  # target; in between
    for scoring in (Gaussian(domains="normalised"), GaussianMixture(components=1, domains="normalised")):
        test_M = score_clips(scoring, train, test, 0)[1]
        assert test_M[:20].max() < test_M[20:].min()


def test_class_logit_is_the_negated_column():
    train, test = (
        embedded(np.eye(2), class_score_N=np.array([-0.5, 2])),
        embedded(np.eye(1), class_score_N=np.array([-3])),
    )
    train_N, test_M = score_clips(ClassLogit(), train, test, 0)
    assert train_N.tolist() == [0.5, -2]
    assert test_M.tolist() == [3]


def test_class_logit_without_classification_says_so():
    with pytest.raises(BadInput, match="without classification"):
        score_clips(ClassLogit(), embedded(np.eye(2)), embedded(np.eye(2)), 0)
    unknown = embedded(np.eye(2), machine="valve", section="02", class_score_N=np.array([0, np.nan]))
    with pytest.raises(BadInput, match="valve section 02"):
        score_clips(ClassLogit(), unknown, unknown, 0)


def test_an_embedding_that_is_not_finite_is_no_score():
    bad = embedded(np.array([[0.0, np.nan], [1, 1]]))
    with pytest.raises(ValueError, match="fan section 00: the embedding of a training clip is not finite"):
        score_clips(KNN(), bad, bad, 0)
