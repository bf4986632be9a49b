"""Contrastive losses on two views of every item: settings, pure functions, modules with their projection heads.

B items of this worker, G items of the whole batch (all workers), M = 2B rows (all first views, then all second views),
V = 2 views, F bands, T frames, D embedding, P projection. Losses are computed in float32 and on gathered rows.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raysd.model.draws import Draws
from raysd.model.encoding import EncoderModule
from raysd.settings import Settings

Gather = Callable[[Tensor], Tensor]
"""Joins a worker's rows (axis 0) with those of all other workers, in one order for every tensor."""
Weight = Annotated[float, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]


class ContrastiveSettings(Settings):
    """What every contrastive loss's settings offer."""

    weight: Weight = 1.0
    """Factor of this part in the sum; 0 leaves the part out."""

    @abstractmethod
    def build(self, encoder: EncoderModule) -> "ContrastiveLoss": ...

    @classmethod
    @abstractmethod
    def tiny(cls) -> "ContrastiveSettings": ...


class _Pairs(ContrastiveSettings):
    """What the losses share that compare each row with all others."""

    by_class: ClassVar[bool]
    """Whether the positives are all rows of the class, or the other view alone."""
    temperature: Annotated[float, Field(gt=0)]
    hidden_dim: Size = 256
    """Width of the projection head's hidden layer."""
    projection_dim: Size = 128
    """Length of the projection that the loss sees; scoring uses the embedding before it."""

    def build(self, encoder: EncoderModule) -> "ContrastiveLoss":
        projector = _mlp(encoder.embedding_dim, self.hidden_dim, self.projection_dim, norm=False)
        return _PairLoss(projector, self.temperature, self.by_class)

    @classmethod
    def tiny(cls) -> Self:
        return cls.model_validate({"hidden_dim": 8, "projection_dim": 4})


class NTXent(_Pairs):
    """Normalised temperature-scaled cross entropy (SimCLR, Chen et al. 2020): the positive is the other view."""

    by_class: ClassVar[bool] = False

    name: Literal["nt_xent"] = "nt_xent"
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Divides the cosines; small values look at the nearest negatives (0.1: STgram-MFN-Contrastive)."""


class SupCon(_Pairs):
    """Supervised contrastive loss (Khosla et al. 2020, L_out): positives are all views of all items of the class."""

    by_class: ClassVar[bool] = True

    name: Literal["supcon"] = "supcon"
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Divides the cosines; small values look at the nearest negatives (0.07: the source's base temperature)."""


class BYOL(ContrastiveSettings):
    """Bootstrap your own latent (Grill et al. 2020), as BYOL-A sets it: no negatives, a slowly moving target."""

    name: Literal["byol"] = "byol"
    hidden_dim: Size = 4096
    """Width of the hidden layer of the projection head and of the predictor."""
    projection_dim: Size = 256
    """Length of the projection that the loss sees; scoring uses the embedding before it."""
    target_ema: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Share of the target network that stays after a step; the rest comes from the trained one."""

    def build(self, encoder: EncoderModule) -> "ContrastiveLoss":
        return _BYOLLoss(self, encoder)

    @classmethod
    def tiny(cls) -> "BYOL":
        return cls(hidden_dim=8, projection_dim=4)


Contrastive = Annotated[NTXent | SupCon | BYOL, Field(discriminator="name")]
CONTRASTIVE: dict[str, type[ContrastiveSettings]] = {"nt_xent": NTXent, "supcon": SupCon, "byol": BYOL}


def nt_xent(a_GP: Tensor, b_GP: Tensor, temperature: float) -> Tensor:
    """NT-Xent over 2G rows: the mean over rows of -log softmax(cosine / temperature) at the other view of the item."""
    item_M = torch.arange(len(a_GP), device=a_GP.device).repeat(2)
    return supcon(torch.cat([a_GP, b_GP]), item_M, temperature)


def supcon(z_MP: Tensor, label_M: Tensor, temperature: float) -> Tensor:
    """SupCon's L_out: the mean over rows of the mean over the row's positives of -log softmax(cosine / temperature).

    The softmax is over all other rows. A row alone in its class counts as zero.
    """
    unit_MP = F.normalize(z_MP, dim=1, eps=1e-6)
    itself_MM = torch.eye(len(z_MP), dtype=torch.bool, device=z_MP.device)
    positive_MM = (label_M[:, None] == label_M[None, :]) & ~itself_MM
    log_p_MM = (unit_MP @ unit_MP.T / temperature).masked_fill(itself_MM, -torch.inf).log_softmax(dim=1)
    positives_M = positive_MM.sum(dim=1)
    # where, not a product: the diagonal is -inf, and 0 * -inf is not a number
    return -(torch.where(positive_MM, log_p_MM, 0.0).sum(dim=1) / positives_M.clamp(min=1)).mean()


def byol(prediction_GP: Tensor, target_GP: Tensor) -> Tensor:
    """2 - 2 cosine, the squared distance of the two directions; mean over rows."""
    prediction_GP, target_GP = (F.normalize(x, dim=1, eps=1e-6) for x in (prediction_GP, target_GP))
    return (2 - 2 * (prediction_GP * target_GP).sum(dim=1)).mean()


def by_item(x_MP: Tensor) -> Tensor:
    """(B, V, P) from rows that hold all first views, then all second ones: items first, ready to be gathered."""
    return x_MP.unflatten(0, (2, -1)).transpose(0, 1)


def float32(x: Tensor) -> torch.autocast:
    """Switches autocast off: a loss needs the digits."""
    return torch.autocast(x.device.type, enabled=False)


def _mlp(size_in: int, hidden: int, size: int, norm: bool) -> nn.Sequential:
    norms = [nn.BatchNorm1d(hidden)] if norm else []
    return nn.Sequential(nn.Linear(size_in, hidden), *norms, nn.ReLU(inplace=True), nn.Linear(hidden, size))


class ContrastiveLoss(nn.Module):
    """A built contrastive part."""

    @abstractmethod
    def forward(self, z_MD: Tensor, label_B: Tensor, spec_MFT: Tensor, draws_M: Draws, gather: Gather) -> Tensor:
        """The loss of the whole batch, a scalar."""

    def after_step(self, encoder: EncoderModule) -> None:
        """To be called after each step of the optimiser."""


class _PairLoss(ContrastiveLoss):
    def __init__(self, projector: nn.Module, temperature: float, by_class: bool) -> None:
        super().__init__()
        self.projector = projector
        self.temperature = temperature
        self.by_class = by_class

    def forward(self, z_MD: Tensor, label_B: Tensor, spec_MFT: Tensor, draws_M: Draws, gather: Gather) -> Tensor:
        with float32(z_MD):
            p_GVP = gather(by_item(self.projector(z_MD.float())))
            if self.by_class:
                return supcon(p_GVP.flatten(0, 1), gather(label_B).repeat_interleave(2), self.temperature)
            return nt_xent(p_GVP[:, 0], p_GVP[:, 1], self.temperature)


class _BYOLLoss(ContrastiveLoss):
    """Symmetrised by adding both directions (0 .. 8). The target starts as a copy of the trained network."""

    def __init__(self, settings: BYOL, encoder: EncoderModule) -> None:
        super().__init__()
        self.target_ema = settings.target_ema
        self.projector = _mlp(encoder.embedding_dim, settings.hidden_dim, settings.projection_dim, norm=True)
        self.predictor = _mlp(settings.projection_dim, settings.hidden_dim, settings.projection_dim, norm=True)
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def forward(self, z_MD: Tensor, label_B: Tensor, spec_MFT: Tensor, draws_M: Draws, gather: Gather) -> Tensor:
        with torch.no_grad():
            target_z_MD = self.target_encoder(spec_MFT, draws_M)  # under the caller's autocast, as the encoder was
        with float32(z_MD):
            q_GVP = gather(by_item(self.predictor(self.projector(z_MD.float()))))
            with torch.no_grad():
                t_GVP = gather(by_item(self.target_projector(target_z_MD.float())))
            return byol(q_GVP[:, 0], t_GVP[:, 1]) + byol(q_GVP[:, 1], t_GVP[:, 0])

    @torch.no_grad()
    def after_step(self, encoder: EncoderModule) -> None:
        for target, trained in ((self.target_encoder, encoder), (self.target_projector, self.projector)):
            for slow, fast in zip(target.parameters(), trained.parameters(), strict=True):
                slow.lerp_(fast, 1 - self.target_ema)
