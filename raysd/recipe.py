"""The frozen tree of every setting that changes the numbers, and the keys made from it.

Each part's settings stand beside the code they steer (features in model/features.py, and so on); here they are joined.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raysd.data.store import Data
from raysd.detect.scores import NearestNeighbours
from raysd.detect.scoring import Scoring
from raysd.errors import nearest
from raysd.model.augment import Augment
from raysd.model.beside import Beside
from raysd.model.encoders import Encoder, MobileFaceNet
from raysd.model.features import Features
from raysd.model.losses import Loss
from raysd.model.pretrained import NONE, OWN_PREFIX, PUBLISHED_PREFIX, Tuning
from raysd.model.published import PUBLISHED
from raysd.model.segments import Segments
from raysd.settings import Settings, flatten

NUMERICS = 1
"""Raised whenever the same recipe and seed would give other numbers than before: code, or the default of a setting."""


class Training(Settings):
    """The loop over epochs: AdamW with linear warm-up, then a cosine to zero."""

    epochs: Annotated[int, Field(ge=0)] = 50
    """Passes over the training clips; 0 leaves the network as it was drawn. The last epoch is always what scores."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Clips in a (global) batch; each gives two views."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """AdamW's decoupled weight decay; not applied to biases, norms and other one-dimensional parameters."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Epochs of linear warm-up."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = 5.0
    """Largest norm of the gradient; longer ones are scaled down. null: no clipping."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of an exponential moving average of the weights, which then does the scoring. null: none."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16: autocast where the device computes bfloat16 fast (elsewhere fp32; the trial records what was used)."""
    channels_last: bool = True
    """Memory layout of the convolutions; faster on most devices."""
    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of each section's (and domain's) training clips that are neither trained on nor compared with. On them a
    search judges a recipe without any label of a test clip."""
    held_out_by: Literal["path", "seed"] = "path"
    """Which clips those are. path: the same in every trial. seed: others for each seed; with a share of 0.2 the seeds 0
    to 4 hold out every clip once."""


class Recipe(Settings):
    """Everything that changes the numbers of a trial, in the order of the data."""

    data: Data = Data()
    features: Features = Features()
    segments: Segments = Segments()
    augment: Augment = Augment()
    encoder: Encoder = MobileFaceNet()
    pretrained: str = NONE
    """The weights that the encoder starts from. none: random ones. audioset:NAME: published AudioSet weights (`raysd
    weights list`). checkpoint:NAME: the result of `raysd pretrain` of that name, or key, in the results root; or the
    path of a file with a dictionary of tensors, which the key of a trial covers by its content."""
    tuning: Tuning = Tuning()
    beside: Beside | None = None
    """Embeddings without training, kept beside the trained one for scoring.name fusion; null: none."""
    loss: Loss = Loss()
    train: Training = Training()
    scoring: Scoring = NearestNeighbours()

    # kept: a plan asks for them once a seed and more

    @cached_property
    def _text(self) -> str:
        return _canonical(flatten(self))

    @cached_property
    def _training_text(self) -> str:
        return _canonical({path: value for path, value in flatten(self).items() if not path.startswith("scoring.")})

    @property
    def trains(self) -> bool:
        """Whether training changes the encoder, so that it is done at all."""
        return type(self.encoder).trains and (self.tuning.mode != "frozen" or bool(self.encoder.head))

    @field_validator("pretrained")
    @classmethod
    def _known_weights(cls, named: str) -> str:
        published = named.removeprefix(PUBLISHED_PREFIX)
        if named.startswith(PUBLISHED_PREFIX) and published not in PUBLISHED:
            raise ValueError(f"unknown weights '{published}'; {nearest(published, PUBLISHED)}")
        if named != NONE and not named.startswith((PUBLISHED_PREFIX, OWN_PREFIX)):
            raise ValueError(f"expected none, audioset:NAME or checkpoint:NAME_OR_PATH, found '{named}'")
        return named

    @model_validator(mode="after")
    def _weights_fit(self) -> "Recipe":
        if self.pretrained.startswith(PUBLISHED_PREFIX) and not self.tuning.partial:
            row = PUBLISHED[self.pretrained.removeprefix(PUBLISHED_PREFIX)]
            for part, wanted in (("encoder", row.encoder), ("features", row.features)):
                found = getattr(self, part).model_dump()
                for name, value in wanted.items():
                    if found.get(name) != value:
                        raise ValueError(f"pretrained {self.pretrained} needs {part}.{name} {value}")
        return self

    @model_validator(mode="after")
    def _probabilities_to_read(self) -> "Recipe":
        classified = self.loss.classification is not None and self.loss.classification.weight > 0
        if self.scoring.name == "class_logit" and not (classified and self.trains):
            raise ValueError(
                "scoring.name class_logit needs a trained encoder and a loss.classification of weight above 0"
            )
        return self

    @model_validator(mode="after")
    def _parts_to_fuse(self) -> "Recipe":
        if self.scoring.name == "fusion" and self.beside is None and set(self.scoring.parts) != {"trained"}:
            raise ValueError("scoring.name fusion reads the embeddings of beside; write 'beside: {}'")
        return self


def pin_all(values: Any, pin: Callable[[str], str]) -> Any:
    """Nested plain values with `pin` applied to every text in them that names a checkpoint."""
    if isinstance(values, Mapping):
        return {key: pin_all(value, pin) for key, value in values.items()}
    if isinstance(values, list):
        return [pin_all(value, pin) for value in values]
    return pin(values) if isinstance(values, str) and values.startswith(OWN_PREFIX) else values


def recipe_key(recipe: Recipe) -> str:
    """Names the recipe alone: equal for one variant on all data sets, machines and seeds."""
    return _hash(f'{{"recipe":{recipe._text}}}')


def training_key(recipe: Recipe, seed: int, fingerprint: str) -> str:
    """Names the embeddings: everything but the scoring. Trials that differ only in scoring share one training."""
    return _of_trial(recipe._training_text, seed, fingerprint)


def trial_key(recipe: Recipe, seed: int, fingerprint: str) -> str:
    """Names a trial: the recipe, the seed, the fingerprint of the data and the numerics' revision."""
    return _of_trial(recipe._text, seed, fingerprint)


def _of_trial(settings: str, seed: int, fingerprint: str) -> str:
    about = f'"data":{_canonical(fingerprint)},"numerics":{_canonical(NUMERICS)}'
    return _hash(f'{{{about},"recipe":{settings},"seed":{_canonical(seed)}}}')


def _canonical(content: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
