"""Embeddings of training normals and test clips -> one anomaly score per clip, higher is more anomalous.

Shapes: N training clips, M test clips, D embedding, K domains, C rows of one chunk.

The domain of a test clip is never used, because the task hides it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from raysd.errors import BadInput
from raysd.settings import Settings

_CHUNK_VALUES = 1 << 21  # distances held at once by the nearest-neighbour search: 16 MiB


@dataclass(frozen=True)
class Embedded:
    """The embeddings of some clips with what is known of each."""

    z_ND: np.ndarray
    """Embeddings, float."""
    machine_N: np.ndarray
    section_N: np.ndarray
    domain_N: np.ndarray
    """`source`, `target` or None."""
    class_score_N: np.ndarray | None = None
    """Log-probability (or logit) that a clip belongs to its own machine and section; higher is more normal."""
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Embeddings (N, F) without training, by name, where the recipe keeps some."""

    def __len__(self) -> int:
        return len(self.z_ND)

    def of(self, chosen_N: np.ndarray) -> "Embedded":
        """Some of the clips, by a mask or by their places."""
        return Embedded(
            self.z_ND[chosen_N],
            self.machine_N[chosen_N],
            self.section_N[chosen_N],
            self.domain_N[chosen_N],
            None if self.class_score_N is None else self.class_score_N[chosen_N],
            {name: z_NF[chosen_N] for name, z_NF in self.beside.items()},
        )


class _Reference(Settings):
    """What every scorer shares that compares a clip with the training clips of its own section or machine."""

    reference: Literal["section", "machine"] = "section"
    """The training clips that a clip is compared with: those of its own section, or of all sections of its machine."""
    domains: Literal["pooled", "normalised"] = "pooled"
    """pooled: one reference, whatever the domain. normalised: a score against each domain's reference, standardised by
    the scores of that domain's own training clips; the least of them counts."""

    def score(self, train: Embedded, test: Embedded, seed: int) -> tuple[np.ndarray, np.ndarray]:
        for clips, what in ((train, "training"), (test, "test")):
            bad = np.logical_not(np.isfinite(clips.z_ND).all(axis=1))
            if bad.any():
                raise ValueError(f"{_first(clips, bad)}: the embedding of a {what} clip is not finite")
        train_N, test_M = np.full(len(train), np.nan), np.full(len(test), np.nan)
        for in_train, in_test in self._groups(train, test):
            z_ND, z_MD = train.z_ND[in_train].astype(np.float64), test.z_ND[in_test].astype(np.float64)
            if self.domains == "pooled":
                train_NK, test_MK = self.against_domains(z_ND, np.zeros(len(z_ND), dtype=int), z_MD, seed)
                train_N[in_train], test_M[in_test] = train_NK[:, 0], test_MK[:, 0]
            else:
                names = [str(domain) for domain in train.domain_N[in_train]]  # clips without a domain form one more
                domain_N = np.unique(names, return_inverse=True)[1]
                train_NK, test_MK = self.against_domains(z_ND, domain_N, z_MD, seed)
                train_N[in_train], test_M[in_test] = _least_standardised(train_NK, domain_N, test_MK)
        return train_N, test_M

    def against_domains(
        self, z_ND: np.ndarray, domain_N: np.ndarray, z_MD: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores of training and test clips against the reference of each domain 0 to K-1: (N, K) and (M, K)."""
        raise NotImplementedError

    def _groups(self, train: Embedded, test: Embedded) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Masks of the training and test clips that are scored together."""
        for machine in np.unique([*train.machine_N, *test.machine_N]):
            train_N, test_M = train.machine_N == machine, test.machine_N == machine
            if self.reference == "machine":
                yield self._checked(train_N, test_M, test)
                continue
            for section in np.unique([*train.section_N[train_N], *test.section_N[test_M]]):
                yield self._checked(train_N & (train.section_N == section), test_M & (test.section_N == section), test)

    def _checked(self, train_N: np.ndarray, test_M: np.ndarray, test: Embedded) -> tuple[np.ndarray, np.ndarray]:
        if not train_N.any():
            raise BadInput(f"{_first(test, test_M)}: no training clip to compare its test clips with")
        return train_N, test_M


class NearestNeighbours(_Reference):
    """Mean distance to the k nearest training clips; a training clip is not its own neighbour."""

    name: Literal["knn"] = "knn"
    distance: Literal["cosine", "euclidean"] = "cosine"
    """Distance between embeddings. cosine: one minus the cosine of their angle."""
    k: Annotated[int, Field(ge=1)] = 1
    """Neighbours averaged over; where the reference is smaller, all of it."""

    @classmethod
    def tiny(cls) -> "NearestNeighbours":
        return cls(k=2)

    def against_domains(
        self, z_ND: np.ndarray, domain_N: np.ndarray, z_MD: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.distance == "cosine":
            z_ND, z_MD = _unit(z_ND), _unit(z_MD)
        K = domain_N.max() + 1
        train_NK, test_MK = np.empty((len(z_ND), K)), np.empty((len(z_MD), K))
        for k in range(K):
            own = domain_N == k
            train_NK[own, k] = self._mean_distance(z_ND[own], z_ND[own], leave_one_out=True)
            train_NK[~own, k] = self._mean_distance(z_ND[~own], z_ND[own])
            test_MK[:, k] = self._mean_distance(z_MD, z_ND[own])
        return train_NK, test_MK

    def _mean_distance(self, z_MD: np.ndarray, reference_ND: np.ndarray, leave_one_out: bool = False) -> np.ndarray:
        """Mean distance to the k nearest; 0 for a lone reference clip left out of itself."""
        k = min(self.k, len(reference_ND) - leave_one_out)
        mean_M = np.zeros(len(z_MD))
        if k == 0:
            return mean_M
        centre_D = reference_ND.mean(axis=0)  # keeps the products below from cancelling far from the origin
        z_MD, reference_ND = z_MD - centre_D, reference_ND - centre_D
        squared_N = (reference_ND**2).sum(axis=1)
        rows = max(1, _CHUNK_VALUES // len(reference_ND))
        for start in range(0, len(z_MD), rows):
            z_CD = z_MD[start : start + rows]
            rank_CN = 2 * z_CD @ reference_ND.T
            np.subtract(squared_N, rank_CN, out=rank_CN)  # the squared distance, less a constant of the row
            if leave_one_out:
                index_C = np.arange(len(z_CD))
                rank_CN[index_C, start + index_C] = np.inf
            if k == 1:  # many times faster than a partition
                nearest_CK = rank_CN.argmin(axis=1, keepdims=True)
            else:
                nearest_CK = np.argpartition(rank_CN, k - 1, axis=1)[:, :k]
            distance_CK = np.empty(nearest_CK.shape)
            for column in range(k):  # from the differences: exact for near twins too
                squared_C = ((z_CD - reference_ND[nearest_CK[:, column]]) ** 2).sum(axis=1)
                distance_CK[:, column] = squared_C / 2 if self.distance == "cosine" else np.sqrt(squared_C)
            mean_M[start : start + rows] = np.sort(distance_CK, axis=1).mean(axis=1)
        return mean_M


class _Density(_Reference):
    """One distribution of the residuals from the mean; with domains, from the mean of the clip's own domain.

    A domain may hold ten clips: too few for a covariance of its own, enough for a mean. So the domains share the shape
    (as in linear discriminant analysis) and differ in place. Training scores are in-sample.
    """

    def against_domains(
        self, z_ND: np.ndarray, domain_N: np.ndarray, z_MD: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        mean_KD = np.stack([z_ND[domain_N == k].mean(axis=0) for k in range(domain_N.max() + 1)])
        surprise = self.fit(z_ND - mean_KD[domain_N], seed)
        both = np.concatenate([z_ND, z_MD])
        scores = np.stack([surprise(both - mean_D) for mean_D in mean_KD], axis=1)
        return scores[: len(z_ND)], scores[len(z_ND) :]

    def fit(self, residual_ND: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        """What gives residuals (M, D) their scores (M,)."""
        raise NotImplementedError


class Gaussian(_Density):
    """Mahalanobis distance, with the covariance shrunk towards a multiple of the identity.

    The target of the shrinkage is Ledoit and Wolf's (2004, "A well-conditioned estimator for large-dimensional
    covariance matrices"); its weight is a setting here, so that it means the same for every machine.
    """

    name: Literal["gaussian"] = "gaussian"
    shrinkage: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Weight of the identity times the mean variance; 0 is the sample covariance, 1 a scaled Euclidean distance. It has
    to be above 0 where there are fewer clips than dimensions. The likelihood of held-out normal clips chooses one
    without labels: for time-mean log-mel in 128 bands 0.01 from 160 clips, 0.3 from 28."""

    @classmethod
    def tiny(cls) -> "Gaussian":
        return cls()

    def fit(self, residual_ND: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        from scipy.linalg import (
            cho_factor,
            solve_triangular,
        )  # late: it takes long to import, and most commands need none of it

        N, D = residual_ND.shape
        covariance_DD = residual_ND.T @ residual_ND / N
        variance = np.trace(covariance_DD) / D
        if variance == 0:  # a single clip, or equal ones
            return lambda residual_MD: np.linalg.norm(residual_MD, axis=1)
        shrunk_DD = (1 - self.shrinkage) * covariance_DD + self.shrinkage * variance * np.eye(D)
        try:
            if self.shrinkage == 0 and N <= D:
                raise np.linalg.LinAlgError  # rounding can hide that it is singular
            factor_DD = cho_factor(shrunk_DD, lower=True)[0]
        except np.linalg.LinAlgError:
            raise BadInput(
                f"scoring.shrinkage {self.shrinkage}: the covariance of {N} clips in {D} dimensions is singular; "
                "set scoring.shrinkage above 0, for instance to 0.01"
            ) from None

        def distance(residual_MD: np.ndarray) -> np.ndarray:
            return np.linalg.norm(solve_triangular(factor_DD, residual_MD.T, lower=True), axis=0)

        return distance


class GaussianMixture(_Density):
    """Minus the log-likelihood under a Gaussian mixture with full covariances (scikit-learn).

    With pooled log-mel as the embedding this is the detector of TWFR-GMM.
    """

    name: Literal["gaussian_mixture"] = "gaussian_mixture"
    components: Annotated[int, Field(ge=1)] = 2
    """Gaussians of a mixture; where there are fewer training clips, as many as clips."""
    regularisation: Annotated[float, Field(gt=0)] = 1e-3
    """Added to the diagonal of each covariance, as a fraction of the mean variance of the training clips."""

    @classmethod
    def tiny(cls) -> "GaussianMixture":
        return cls()

    def fit(self, residual_ND: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        from sklearn import mixture  # late: it takes long to import, and most commands need none of it

        # In an order of its own, because the start of the fit draws clips by their place.
        residual_ND = residual_ND[np.lexsort(residual_ND.T[::-1])]
        different = len(np.unique(residual_ND, axis=0))
        scale = float(np.sqrt(residual_ND.var(axis=0).mean())) or 1.0
        model = mixture.GaussianMixture(
            n_components=min(self.components, different),
            reg_covar=self.regularisation,
            max_iter=500,
            random_state=seed,
        )
        if len(residual_ND) == 1:  # scikit-learn fits two clips or more
            residual_ND = np.repeat(residual_ND, 2, axis=0)
        model.fit(residual_ND / scale)
        return lambda residual_MD: -model.score_samples(residual_MD / scale)


class ClassLogit(Settings):
    """Minus the log-probability (or logit) that the trained classifier gives to a clip's own machine and section."""

    name: Literal["class_logit"] = "class_logit"

    @classmethod
    def tiny(cls) -> "ClassLogit":
        return cls()

    def score(self, train: Embedded, test: Embedded, seed: int) -> tuple[np.ndarray, np.ndarray]:
        scores: list[np.ndarray] = []
        for clips in (train, test):
            if clips.class_score_N is None:
                raise BadInput(
                    "scoring.name class_logit: the model was trained without classification; "
                    "give the loss a classification part, or choose another scorer"
                )
            bad = ~np.isfinite(clips.class_score_N)
            if bad.any():
                raise BadInput(f"{_first(clips, bad)}: no class of the classifier; choose another scoring.name")
            scores.append(-clips.class_score_N.astype(np.float64))
        return scores[0], scores[1]


def _least_standardised(
    train_NK: np.ndarray, domain_N: np.ndarray, test_MK: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each domain's scores less the mean, over the standard deviation, of its own training clips; then the least.

    A domain of one clip has no spread: it takes that of all domains. No test clip has a part in the standardisation.
    """
    own_N = train_NK[np.arange(len(train_NK)), domain_N]
    mean_K, scale_K = np.empty(train_NK.shape[1]), np.empty(train_NK.shape[1])
    for k in range(train_NK.shape[1]):
        scores = own_N[domain_N == k]
        if len(scores) < 2:
            scores = own_N
        mean_K[k], scale_K[k] = spread(scores)
    return ((train_NK - mean_K) / scale_K).min(axis=1), ((test_MK - mean_K) / scale_K).min(axis=1)


def spread(score_N: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of scores; of scores that are all equal, something above zero to divide by."""
    mean, deviation = score_N.mean(), score_N.std()
    flat = deviation <= 1e-9 * abs(mean)  # equal but for rounding
    return mean, (abs(mean) or 1.0) if flat else deviation


def _unit(z_ND: np.ndarray) -> np.ndarray:
    length_N1 = np.linalg.norm(z_ND, axis=1, keepdims=True)
    return np.divide(z_ND, length_N1, out=np.zeros_like(z_ND), where=length_N1 > 0)


def _first(clips: Embedded, chosen: np.ndarray) -> str:
    index = int(np.argmax(chosen))
    return f"{clips.machine_N[index]} section {clips.section_N[index]}"
