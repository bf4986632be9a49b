"""The file of a pretraining: what stands in it, and the recipe that it makes."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from raysd.data.audioset import Corpus
from raysd.data.store import Data
from raysd.errors import BadInput, nearest
from raysd.model.contrastive import SupCon
from raysd.model.pretrained import NONE
from raysd.parallel import Scale
from raysd.recipe import Recipe, training_key
from raysd.settings import Settings, parse, with_changes
from raysd.study.files import Changes, RecipeFile, Seed, load_recipe
from raysd.study.places import beside, find_pretraining, shown
from raysd.yaml_values import read_yaml

REFUSED = ("data", "scoring")
"""Settings of a recipe that a pretraining has not."""


class Pretraining(Settings):
    """An encoder that is trained on recordings of anything, without labels. What is no key here is a setting of the
    recipe: features, segments, augment, encoder, loss, train."""

    description: str = ""
    """What it is, in a sentence."""
    recipe: str | None = None
    """A recipe file to start from; relative to this one, or one of the predefined. null: the defaults."""
    profiles: dict[str, Changes] = Field(default={})
    """Named sets of changes, for instance for training on a CPU. One of the same name in the recipe file holds, too,
    and counts less."""
    corpus: Corpus
    """What it is trained on."""
    seed: Seed = 0
    """Seed of the first weights and of all draws."""
    scale: Scale = Scale()
    """How it is run; changes nothing but the time."""


@dataclass(frozen=True)
class LoadedPretraining:
    """A pretraining as its file, a profile and the command line make it."""

    name: str
    settings: Pretraining
    recipe: Recipe
    """How it is trained; its data settings say only how clips are decoded."""
    profile: str | None

    def key(self, fingerprint: str) -> str:
        """Names its result on the corpus of a fingerprint; known before it is trained."""
        return training_key(self.recipe, self.settings.seed, fingerprint)


def load_pretraining(
    name_or_path: str | Path, overrides: Changes | None = None, profile: str | None = None
) -> LoadedPretraining:
    """A pretraining from its file.

    `overrides` are changes by dotted path: of the file where the path starts with one of its keys (`corpus.classes`,
    `scale.workers`, `seed`), else of the recipe. Raises BadInput with the file and the path in it for anything that
    cannot be used, and for a recipe that needs classes, of which there are none.
    """
    path = find_pretraining(name_or_path)
    values, where = read_yaml(path), shown(path)
    about = {key: values.pop(key) for key in Pretraining.model_fields if key in values}
    own, of_recipe = dict[str, object](), dict[str, object]()
    for setting, value in (overrides or {}).items():
        (own if setting.split(".")[0] in Pretraining.model_fields else of_recipe)[setting] = value
    settings = with_changes(parse(Pretraining, about, where), own, "--set")

    base = RecipeFile(Recipe(), "", {})
    if settings.recipe is not None:
        base = load_recipe(beside(path, settings.recipe, "recipe"))
    if profile is not None and profile not in base.profiles | settings.profiles:
        hint = nearest(profile, base.profiles | settings.profiles)
        raise BadInput(f"{where}: no profile '{profile}'; {hint}")
    recipe = base.recipe.model_copy(update={"data": Data(), "scoring": Recipe().scoring})
    recipe = with_changes(recipe, base.profiles.get(profile or "", {}), f"{settings.recipe}: profiles.{profile}")
    own_profile = settings.profiles.get(profile or "", {})
    for changes, said in ((values, where), (own_profile, f"{where}: profiles.{profile}"), (of_recipe, "--set")):
        for setting in changes:
            if setting.split(".")[0] in REFUSED:
                raise BadInput(f"{said}: {setting}: a pretraining scores nothing, and its data stand under corpus")
        recipe = with_changes(recipe, changes, said)
    decoding = {name: getattr(settings.corpus, name) for name in ("sample_rate_hz", "channel", "dtype")}
    recipe = recipe.model_copy(update={"data": Data(**decoding)})
    _require_trainable(recipe, where)
    shards, workers, batch_size = settings.corpus.shards, settings.scale.workers, recipe.train.batch_size
    if batch_size % shards:
        raise BadInput(f"{where}: corpus.shards: {shards} shards have no equal parts in a batch of {batch_size} items")
    if shards > 1 and shards % workers:
        raise BadInput(f"{where}: corpus.shards: {shards} shards cannot be dealt equally to {workers} scale.workers")
    return LoadedPretraining(path.stem, settings, recipe, profile)


def _require_trainable(recipe: Recipe, where: str) -> None:
    contrastive = recipe.loss.contrastive
    if recipe.loss.classification is not None:
        raise BadInput(f"{where}: loss.classification: a pretraining has no classes to tell apart; set it to null")
    if contrastive is None:
        raise BadInput(f"{where}: loss.contrastive: a pretraining learns by nothing else; set it to nt_xent or byol")
    if isinstance(contrastive, SupCon):
        raise BadInput(f"{where}: loss.contrastive: {contrastive.name} needs classes; set it to nt_xent or byol")
    if recipe.pretrained != NONE:
        raise BadInput(f"{where}: pretrained: a pretraining starts from random weights; set it to {NONE}")
    if not recipe.trains:
        raise BadInput(f"{where}: encoder: {recipe.encoder.name}, so tuned, has nothing to train; choose another")
    if recipe.train.held_out:
        raise BadInput(f"{where}: train.held_out: a pretraining holds nothing out, as nothing judges it; set it to 0")
