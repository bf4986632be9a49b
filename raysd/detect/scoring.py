"""All scorers by name, and their fusion: several scores of a clip, made comparable on normal clips alone.

Shapes: N training clips, M test clips, P parts.
"""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from raysd.detect.scores import ClassLogit, Embedded, Gaussian, GaussianMixture, NearestNeighbours, spread
from raysd.errors import BadInput
from raysd.settings import Settings

Part = Annotated[NearestNeighbours | Gaussian | GaussianMixture, Field(discriminator="name")]


class Fusion(Settings):
    """Several embeddings of a clip, each with a scorer of its own: the trained one, and the untrained ones of `beside`.

    A trained network and a classical density hear different faults. Each part's scores are standardised, within a
    machine's section, by the mean and standard deviation that the part gives to training clips which it was not fitted
    to (cross-validation); then their mean or their maximum is a clip's score. No test clip has a part in that.
    """

    name: Literal["fusion"] = "fusion"
    trained: Part | None = NearestNeighbours()
    """The scorer of the trained embedding; null: the part is left out."""
    mean: Part | None = Gaussian()
    """The scorer of the log-mel's mean over time."""
    loudest: Part | None = GaussianMixture()
    """The scorer of the log-mel's loudest frames."""
    combine: Literal["mean", "max"] = "mean"
    """How the standardised scores of the parts become one."""
    folds: Annotated[int, Field(ge=2)] = 10
    """Parts of the training clips that are left out in turn; where a section has fewer clips, as many as clips."""

    @model_validator(mode="after")
    def _has_parts(self) -> "Fusion":
        if not self.parts:
            raise ValueError("scoring.name fusion needs at least one of its parts trained, mean and loudest")
        return self

    @property
    def parts(self) -> dict[str, Part]:
        """The scorers by the embedding that they read."""
        named = {"trained": self.trained, "mean": self.mean, "loudest": self.loudest}
        return {name: part for name, part in named.items() if part is not None}

    @classmethod
    def tiny(cls) -> "Fusion":
        return cls(mean=None, loudest=None)

    def score(self, train: Embedded, test: Embedded, seed: int) -> tuple[np.ndarray, np.ndarray]:
        train_NP, test_MP = np.empty((len(train), len(self.parts))), np.empty((len(test), len(self.parts)))
        for p, (name, scorer) in enumerate(self.parts.items()):
            train_NP[:, p], test_MP[:, p] = self._standardised(scorer, _read(train, name), _read(test, name), seed)
        join = np.mean if self.combine == "mean" else np.max
        return join(train_NP, axis=1), join(test_MP, axis=1)

    def _standardised(self, scorer: Part, train: Embedded, test: Embedded, seed: int) -> tuple[np.ndarray, np.ndarray]:
        test_M = scorer.score(train, test, seed)[1]
        train_N, section_N, section_M = np.empty(len(train)), _sections(train), _sections(test)
        fold_N = _folds(train, self.folds)
        for fold in range(self.folds):
            left_out = fold_N == fold
            train_N[left_out] = scorer.score(train.of(~left_out), train.of(left_out), seed)[1]
        for section in np.unique(section_N):
            own_N, own_M = section_N == section, section_M == section
            mean, deviation = spread(train_N[own_N])
            train_N[own_N] = (train_N[own_N] - mean) / deviation
            test_M[own_M] = (test_M[own_M] - mean) / deviation
        return train_N, test_M


def _read(clips: Embedded, part: str) -> Embedded:
    """The clips with the embedding that a part reads."""
    return clips if part == "trained" else replace(clips, z_ND=clips.beside[part])


def _folds(train: Embedded, folds: int) -> np.ndarray:
    """(N,) the fold of each clip, evenly over each section's clips; it depends on the clips, not on their order.

    Raises BadInput for a section of one clip, which cannot be left out.
    """
    fold_N, section_N = np.empty(len(train), dtype=int), _sections(train)
    for section in np.unique(section_N):
        own_N = np.flatnonzero(section_N == section)
        if len(own_N) < 2:
            machine, name = train.machine_N[own_N[0]], train.section_N[own_N[0]]
            raise BadInput(
                f"{machine} section {name}: one training clip is too few for scoring.name fusion, which needs two; "
                "choose another scoring.name"
            )
        fold_N[own_N[np.lexsort(train.z_ND[own_N].T[::-1])]] = np.arange(len(own_N)) % folds
    return fold_N


def _sections(clips: Embedded) -> np.ndarray:
    """(N,) machine and section of each clip as one word."""
    return np.array([f"{machine}/{section}" for machine, section in zip(clips.machine_N, clips.section_N, strict=True)])


SCORERS: dict[str, type[NearestNeighbours | Gaussian | GaussianMixture | ClassLogit | Fusion]] = {
    "knn": NearestNeighbours,
    "gaussian": Gaussian,
    "gaussian_mixture": GaussianMixture,
    "class_logit": ClassLogit,
    "fusion": Fusion,
}
"""Every scorer by its name."""

Scoring = Annotated[NearestNeighbours | Gaussian | GaussianMixture | ClassLogit | Fusion, Field(discriminator="name")]


def score_clips(scoring: Scoring, train: Embedded, test: Embedded, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the training clips (N,) and of the test clips (M,), float64.

    The training scores set a decision threshold; the nearest-neighbour search leaves the clip itself out, a fusion the
    clip's fold, the densities do not. `seed` starts the mixtures. Raises BadInput for a section (or machine) without
    training clips.
    """
    return scoring.score(train, test, seed)
