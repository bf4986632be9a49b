"""What training minimises: the weighted sum of a contrastive and a classification part, and all that it trains itself.

B items of this worker, G items of the whole batch (all workers), M = 2B rows (all first views, then all second views),
V = 2 views, F bands, T frames, D embedding.
Every part is computed in float32 and on gathered rows, so that each worker holds the loss of the whole batch. With a
gather whose backward sums over workers, the mean over workers of any parameter's gradient is the single-process one.
"""

from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from raysd.model.classification import CLASSIFICATION, ArcFace, Classification, ClassificationLoss
from raysd.model.contrastive import CONTRASTIVE, Contrastive, ContrastiveLoss, Gather, SupCon, by_item, float32
from raysd.model.draws import Draws
from raysd.model.encoding import EncoderModule, seeded
from raysd.settings import Settings

__all__ = ["CLASSIFICATION", "CONTRASTIVE", "Gather", "Loss", "Objective", "build_objective"]


class Loss(Settings):
    """What training minimises: weighted, a contrastive part plus a classification part."""

    contrastive: Contrastive | None = SupCon()
    """nt_xent, supcon or byol. null: none."""
    classification: Classification | None = ArcFace()
    """arcface or subcluster_adacos. null: none; the class_logit scorer then has nothing to read."""
    classes: Literal["section", "section_attributes"] = "section"
    """What a class is, for supcon and for classification: a machine's section, or each of its attribute settings."""

    @model_validator(mode="after")
    def _something_to_minimise(self) -> "Loss":
        if not any(part is not None and part.weight > 0 for part in (self.contrastive, self.classification)):
            raise ValueError("nothing to train on; give contrastive or classification a weight above 0")
        return self


def _identity(x: Tensor) -> Tensor:
    return x


class Objective(nn.Module):
    """All that a loss trains beside the encoder: projector, predictor, target network, class centres."""

    def __init__(self, loss: Loss, contrastive: ContrastiveLoss | None, classification: ClassificationLoss | None):
        super().__init__()
        self.loss = loss
        self.contrastive = contrastive
        self.classification = classification

    def forward(
        self,
        encoder: EncoderModule,
        views: tuple[Tensor, Tensor],
        label_B: Tensor,
        draws: tuple[Draws, Draws],
        gather: Gather = _identity,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the whole batch, a float32 scalar, and its parts, unweighted and detached.

        `views` are two (B, F, T) spectrograms of the same items, `label_B` int64 classes, `draws` those of the views.
        Both views go through the encoder at once, so that batch norm sees them together.
        """
        spec_MFT = torch.cat(views)
        # one Draws has one view; an item's two rows draw as two items
        item_M = torch.cat([view.item_B * 2 + number for number, view in enumerate(draws)])
        draws_M = Draws(draws[0].seed, draws[0].epoch, item_M)
        z_MD = encoder(spec_MFT, draws_M)
        total = torch.zeros((), device=z_MD.device)
        parts: dict[str, Tensor] = {}
        if self.contrastive is not None and self.loss.contrastive is not None:
            part = self.contrastive(z_MD, label_B, spec_MFT, draws_M, gather)
            total = total + self.loss.contrastive.weight * part
            parts["contrastive"] = part.detach()
        if self.classification is not None and self.loss.classification is not None:
            with float32(z_MD):
                z_GVD = gather(by_item(z_MD.float()))
                part = self.classification(z_GVD.flatten(0, 1), gather(label_B).repeat_interleave(2))
            total = total + self.loss.classification.weight * part
            parts["classification"] = part.detach()
        return total, parts

    def after_step(self, encoder: EncoderModule) -> None:
        """To be called after each step of the optimiser: moves BYOL's target network."""
        if self.contrastive is not None:
            self.contrastive.after_step(encoder)

    def log_probabilities(self, z_BD: Tensor) -> Tensor:
        """(B, num_classes) float32: log of the probability of each class, without any margin."""
        if self.classification is None:
            raise ValueError("there is no classification to ask for probabilities")
        with torch.no_grad(), float32(z_BD):
            return self.classification.log_probabilities(z_BD.float())


def build_objective(loss: Loss, encoder: EncoderModule, num_classes: int, seed: int) -> Objective:
    """The objective on the CPU. Each part's initial weights depend on the seed alone, not on the other part."""
    contrastive = classification = None
    if loss.contrastive is not None and loss.contrastive.weight > 0:
        with seeded("contrastive", seed):
            contrastive = loss.contrastive.build(encoder)
    if loss.classification is not None and loss.classification.weight > 0:
        with seeded("classification", seed):
            classification = loss.classification.build(encoder.embedding_dim, num_classes)
    return Objective(loss, contrastive, classification)
