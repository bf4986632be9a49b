"""Weights that an encoder starts from: which of its tensors they give, and how it is tuned from there on.

`Recipe.pretrained` names them; where their files are is for raysd/initial.py to know.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from raysd.errors import BadInput
from raysd.model.encoding import EncoderModule
from raysd.model.features import Features
from raysd.settings import Settings, difference

NONE, PUBLISHED_PREFIX, OWN_PREFIX = "none", "audioset:", "checkpoint:"


class Tuning(Settings):
    """How the encoder is trained, from pre-trained weights or from scratch."""

    mode: Literal["full", "frozen", "head_first"] = "full"
    """full: all of it. frozen: only layers that the weights do not have (`encoder.embedding_dim` of mobilenet_v3);
    without such layers nothing is trained. head_first: those layers and the losses' own for `head_epochs`, then all."""
    head_epochs: Annotated[int, Field(ge=1)] = 1
    """Of mode head_first: epochs in which the pre-trained layers stay as they are."""
    depth_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of a layer relative to that of the next deeper one: 0.8 gives the fifth layer from the end 0.33 of
    train.learning_rate. The losses' own layers have all of it. (ULMFiT, Howard and Ruder 2018, uses 0.38.)"""
    partial: bool = False
    """true: tensors that the weights lack, or have in another shape, stay as drawn. false: that is an error."""

    def only_new(self, epoch: int) -> bool:
        """Whether in an epoch (counted from 0) the pre-trained layers stay as they are."""
        return self.mode == "frozen" or (self.mode == "head_first" and epoch < self.head_epochs)


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and what they are."""

    name: str
    """As a recipe names them."""
    state: Mapping[str, Tensor]
    unused: tuple[str, ...] = ()
    """Prefixes of tensors that no encoder here has: a tagging head."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """For a trial's record: checksum or key, licence."""
    features: Features | None = None
    """The front end that they were trained with; None: not known, or checked before."""


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of an encoder came from weights. Names as in its state dict."""

    weights: str
    loaded: tuple[str, ...]
    head: tuple[str, ...]
    """Of layers that weights need not have: they stay as drawn."""
    missing: tuple[str, ...]
    """Not in the weights."""
    misshapen: tuple[str, ...]
    """In the weights with another shape, which is said."""
    unused: tuple[str, ...]
    """In the weights for a tagging head."""
    unexpected: tuple[str, ...]
    """In the weights, but not in the encoder."""

    @property
    def problems(self) -> list[str]:
        """What keeps the weights from fitting; a line for each kind."""
        kinds = (("lack", self.missing), ("have in another shape", self.misshapen), ("have beside it", self.unexpected))
        return [f"they {verb} {_few(names)}" for verb, names in kinds if names]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        parts += [f"{len(self.head)} of new layers stay as drawn"] if self.head else []
        parts += [f"{len(self.unused)} of the tagging head not used"] if self.unused else []
        return ", ".join([*parts, *self.problems])


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more tensors" if len(names) > 3 else shown


def compare(encoder: EncoderModule, weights: Weights, head: Sequence[str]) -> LoadReport:
    """What `load` would do."""
    own, given = encoder.state_dict(), dict(weights.state)
    unused = tuple(name for name in given if name.startswith(weights.unused))
    there = [name for name in own if name in given]
    misshapen = {name for name in there if own[name].shape != given[name].shape}
    absent = [name for name in own if name not in given]
    return LoadReport(
        weights=weights.name,
        loaded=tuple(name for name in there if name not in misshapen),
        head=tuple(name for name in absent if name.startswith(tuple(head))),
        missing=tuple(name for name in absent if not name.startswith(tuple(head))),
        misshapen=tuple(
            f"{name} {tuple(given[name].shape)} for {tuple(own[name].shape)}" for name in there if name in misshapen
        ),
        unused=unused,
        unexpected=tuple(name for name in given if name not in own and name not in unused),
    )


def load(
    encoder: EncoderModule, weights: Weights, features: Features, head: Sequence[str], partial: bool
) -> LoadReport:
    """Copies the tensors of `weights` into the encoder: all that it has, but those whose names start with `head`.

    Raises BadInput where they do not fit, or were trained with another front end than `features`, unless `partial`; and
    where not one of them fits.
    """
    if weights.features not in (None, features) and not partial:
        other = difference(weights.features, features)
        said = ", ".join(f"features.{path} {was} (here {now})" for path, (was, now) in other.items())
        raise BadInput(f"pretrained {weights.name}: the weights were trained with {said}; set that, or tuning.partial")
    report = compare(encoder, weights, head)
    if not report.loaded or (report.problems and not partial):
        said = "; ".join(report.problems) or "no tensor has the name of one of the encoder's"
        raise BadInput(
            f"pretrained {weights.name}: the weights are not those of this encoder: {said}; set encoder as they were "
            "trained, or tuning.partial to true"
        )
    own = encoder.state_dict()
    for name in report.loaded:
        own[name].copy_(weights.state[name])
    return report


def set_trained(encoder: EncoderModule, report: LoadReport | None, only_new: bool, head: Sequence[str]) -> None:
    """Says which parameters of the encoder have gradients: all, or only those of layers that are new.

    New is what the weights did not give, or without weights the head. Where only these are trained, batch norms keep
    their statistics: the rest of the network is meant to stay as it is.
    """
    kept = None if report is None else set(report.loaded)
    for name, parameter in encoder.named_parameters():
        is_new = name.startswith(tuple(head)) if kept is None else name not in kept
        parameter.requires_grad_(is_new or not only_new)
    encoder.train(not only_new)


def depth_groups(encoder: EncoderModule, decay: float) -> Iterator[tuple[float, list[nn.Parameter]]]:
    """The encoder's parameters layer by layer, each with the factor of its learning rate."""
    stages = [stage for stage in encoder.stages() if next(stage.parameters(), None) is not None]
    for depth, stage in enumerate(stages):
        yield decay ** (len(stages) - 1 - depth), list(stage.parameters())
