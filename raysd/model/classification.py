"""Classification losses with class centres on the sphere: settings, pure functions, modules.

M rows (both views of all gathered items), D embedding, K class centres. All in float32.
"""

import math
from abc import abstractmethod
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raysd.settings import Settings


class ClassificationSettings(Settings):
    """What every classification loss's settings offer."""

    weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor of this part in the sum; 0 leaves the part out."""

    @abstractmethod
    def build(self, embedding_dim: int, num_classes: int) -> "ClassificationLoss": ...

    @classmethod
    @abstractmethod
    def tiny(cls) -> "ClassificationSettings": ...


class ArcFace(ClassificationSettings):
    """Additive angular margin (Deng et al. 2019): a clip must be nearer to its class's centre by a margin."""

    name: Literal["arcface"] = "arcface"
    scale: Annotated[float, Field(gt=0)] = 30.0
    """Multiplies the cosines (30: STgram-MFN, OS-SCL)."""
    margin: Annotated[float, Field(ge=0, lt=math.pi)] = 0.4
    """Added to the angle to the own class's centre, in radians (0.4: OS-SCL; sources of the field go up to 1.0)."""

    def build(self, embedding_dim: int, num_classes: int) -> "ClassificationLoss":
        return _ArcFaceLoss(self, embedding_dim, num_classes)

    @classmethod
    def tiny(cls) -> "ArcFace":
        return cls()


class SubclusterAdaCos(ClassificationSettings):
    """Sub-cluster AdaCos (Wilkinghoff 2021): several centres a class, no margin, a scale that adapts to the batch."""

    name: Literal["subcluster_adacos"] = "subcluster_adacos"
    subclusters: Annotated[int, Field(ge=1)] = 16
    """Centres of a class. 1: AdaCos (Zhang et al. 2019)."""
    trainable_centres: bool = True
    """false: the centres stay where they were drawn."""

    def build(self, embedding_dim: int, num_classes: int) -> "ClassificationLoss":
        return _SubclusterAdaCosLoss(self, embedding_dim, num_classes)

    @classmethod
    def tiny(cls) -> "SubclusterAdaCos":
        return cls(subclusters=2)


Classification = Annotated[ArcFace | SubclusterAdaCos, Field(discriminator="name")]
CLASSIFICATION: dict[str, type[ClassificationSettings]] = {"arcface": ArcFace, "subcluster_adacos": SubclusterAdaCos}


def arcface_logits(cosine_MK: Tensor, label_M: Tensor, scale: float, margin: float) -> Tensor:
    """scale * cosine, and scale * cos(angle + margin) at the own class.

    Where angle + margin passes pi, cos would rise again; there the source's straight line goes on falling.
    """
    own_M = cosine_MK.gather(1, label_M[:, None])[:, 0]
    # the slope of a square root at zero is infinite; the clamp makes it zero for a row on its centre or opposite to it
    sine_M = (1 - own_M.square()).clamp(min=1e-7).sqrt()
    with_margin_M = torch.where(
        own_M > -math.cos(margin),
        own_M * math.cos(margin) - sine_M * math.sin(margin),
        own_M - margin * math.sin(margin),
    )
    return scale * cosine_MK.scatter(1, label_M[:, None], with_margin_M[:, None])


class ClassificationLoss(nn.Module):
    """A built classification part: class centres in the embedding space."""

    def __init__(self, embedding_dim: int, num_centres: int) -> None:
        super().__init__()
        self.centres_KD = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_centres, embedding_dim)))

    def cosine(self, z_MD: Tensor) -> Tensor:
        """(M, K) cosines of embeddings with class centres."""
        return F.normalize(z_MD, dim=1, eps=1e-6) @ F.normalize(self.centres_KD, dim=1, eps=1e-6).T

    @abstractmethod
    def forward(self, z_MD: Tensor, label_M: Tensor) -> Tensor:
        """The loss of the whole batch, a scalar; exactly zero where there is one class only."""

    @abstractmethod
    def log_probabilities(self, z_MD: Tensor) -> Tensor:
        """(M, num_classes) log of the probability of each class, without any margin."""


class _ArcFaceLoss(ClassificationLoss):
    def __init__(self, settings: ArcFace, embedding_dim: int, num_classes: int) -> None:
        super().__init__(embedding_dim, num_classes)
        self.settings = settings

    def forward(self, z_MD: Tensor, label_M: Tensor) -> Tensor:
        logits_MK = arcface_logits(self.cosine(z_MD), label_M, self.settings.scale, self.settings.margin)
        return F.cross_entropy(logits_MK, label_M)

    def log_probabilities(self, z_MD: Tensor) -> Tensor:
        return F.log_softmax(self.settings.scale * self.cosine(z_MD), dim=1)


class _SubclusterAdaCosLoss(ClassificationLoss):
    """The probability of a class is the sum over its sub-clusters of a softmax over all sub-clusters of all classes."""

    scale: Tensor

    def __init__(self, settings: SubclusterAdaCos, embedding_dim: int, num_classes: int) -> None:
        num_centres = num_classes * settings.subclusters
        super().__init__(embedding_dim, num_centres)
        self.subclusters = settings.subclusters
        self.centres_KD.requires_grad_(settings.trainable_centres)
        # two centres would give a scale of zero, which no gradient gets through
        self.register_buffer("scale", torch.tensor(math.sqrt(2) * math.log(max(num_centres - 1, 2))))

    def forward(self, z_MD: Tensor, label_M: Tensor) -> Tensor:
        cosine_MK = self.cosine(z_MD)
        if self.training:
            self._adapt_scale(cosine_MK.detach(), label_M)
        return self._negative_log_probability(cosine_MK, label_M).mean()

    def log_probabilities(self, z_MD: Tensor) -> Tensor:
        logits_MK = self.scale * self.cosine(z_MD)
        return F.log_softmax(logits_MK, dim=1).unflatten(1, (-1, self.subclusters)).logsumexp(dim=2)

    def _own(self, label_M: Tensor) -> Tensor:
        """(M, K) bool: the sub-clusters of the own class."""
        class_K = torch.arange(len(self.centres_KD), device=label_M.device) // self.subclusters
        return class_K[None, :] == label_M[:, None]

    def _negative_log_probability(self, cosine_MK: Tensor, label_M: Tensor) -> Tensor:
        logits_MK = self.scale.clone() * cosine_MK  # a clone: the next batch changes the buffer in place
        own_MK = logits_MK.masked_fill(~self._own(label_M), -torch.inf)
        return logits_MK.logsumexp(dim=1) - own_MK.logsumexp(dim=1)

    def _adapt_scale(self, cosine_MK: Tensor, label_M: Tensor) -> None:
        """AdaCos' rule: log of the mean row's sum of exp(scale * cosine), by cos(min(pi/4, median own angle)).

        The rows are the gathered ones, so the scale is the same on every worker. A sub-cluster of the own class counts
        as exp(0), as in the author's later code: left out, two classes could make the scale negative; counted fully, a
        well-fitted batch makes it grow without end. The median is over the angles to all own sub-clusters.
        """
        own_MK = self._own(label_M)
        log_sum = (self.scale * cosine_MK).masked_fill(own_MK, 0.0).logsumexp(dim=(0, 1)) - math.log(len(cosine_MK))
        angle = torch.acos(cosine_MK[own_MK].clamp(-1, 1)).median().clamp(max=math.pi / 4)
        self.scale.copy_(log_sum / angle.cos())
