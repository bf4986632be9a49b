"""What is loaded from weights, what is said of it, and what is trained from there on."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raysd.errors import BadInput
from raysd.model.encoders import ENCODERS
from raysd.model.encoding import EncoderModule, build_encoder
from raysd.model.features import Features
from raysd.model.mobilenet_v3 import MobileNetV3
from raysd.model.pretrained import Weights, depth_groups, load, set_trained
from raysd.model.spectra import Spectra
from raysd.recipe import Recipe
from raysd.settings import parse, with_changes
from raysd.train import Detector, Epoch, TrainingSet, train

FEATURES = Features(num_bands=16)
TRAINED = [name for name, settings in ENCODERS.items() if settings.trains]


def encoder(seed: int = 0, **settings: Any) -> EncoderModule:
    return build_encoder(MobileNetV3(width=0.1, **settings), 16, seed)


def weights(**changed: Any) -> Weights:
    state = {name: tensor.clone() for name, tensor in encoder(seed=7).state_dict().items()}
    return replace(Weights("w", state), **changed)


@pytest.mark.parametrize("name", TRAINED)
def test_every_encoder_takes_all_tensors_of_its_like(name: str) -> None:
    settings = ENCODERS[name].tiny()
    given, taken = (build_encoder(settings, 16, seed) for seed in (7, 0))
    report = load(taken, Weights("w", given.state_dict()), FEATURES, (), partial=False)
    assert not report.problems
    assert len(report.loaded) == len(given.state_dict())
    assert all(torch.equal(tensor, given.state_dict()[key]) for key, tensor in taken.state_dict().items())


def test_report_tells_what_was_loaded_and_what_was_not() -> None:
    given = weights()
    state = dict(given.state) | {"classifier.1.weight": torch.zeros(2), "elsewhere": torch.zeros(1)}
    del state["features.0.0.weight"]
    state["features.0.1.bias"] = torch.zeros(3)
    odd = weights(state=state, unused=("classifier.",))
    taken = encoder(embedding_dim=4)
    said = (
        "pretrained w: the weights are not those of this encoder: they lack features.0.0.weight; they have in another "
        r"shape features.0.1.bias \(3,\) for \(8,\); they have beside it elsewhere; set encoder as they were trained, "
        "or tuning.partial to true"
    )
    with pytest.raises(BadInput, match=said):
        load(taken, odd, FEATURES, ("embed.",), partial=False)
    drawn = taken.state_dict()["features.0.1.bias"].clone()
    report = load(taken, odd, FEATURES, ("embed.",), partial=True)
    assert (report.missing, report.head) == (("features.0.0.weight",), ("embed.weight", "embed.bias"))
    assert torch.equal(taken.state_dict()["features.0.1.bias"], drawn)
    assert torch.equal(taken.state_dict()["features.16.0.weight"], given.state["features.16.0.weight"])
    assert "2 of new layers stay as drawn, 1 of the tagging head not used, they lack" in str(report)


def test_weights_of_another_network_are_refused_even_in_part() -> None:
    with pytest.raises(BadInput, match=r"no tensor has the name|they lack"):
        load(encoder(), Weights("w", {"a": torch.zeros(1)}), FEATURES, (), partial=True)


def test_weights_of_another_front_end_are_refused_unless_allowed() -> None:
    given = weights(features=Features(num_bands=16, hop_samples=160))
    with pytest.raises(BadInput, match=r"trained with features.hop_samples 160 \(here 512\)"):
        load(encoder(), given, FEATURES, (), partial=False)
    load(encoder(), given, FEATURES, (), partial=True)


@pytest.mark.parametrize("name", TRAINED)
def test_depth_groups_hold_every_parameter_once_and_rates_rise_to_the_end(name: str) -> None:
    built = build_encoder(ENCODERS[name].tiny(), 16, 0)
    groups = list(depth_groups(built, 0.5))
    held = [id(parameter) for _, group in groups for parameter in group]
    assert sorted(held) == sorted(map(id, built.parameters()))
    factors = [factor for factor, _ in groups]
    assert factors == [0.5**depth for depth in reversed(range(len(groups)))]
    assert len(groups) > 2


def test_only_new_layers_are_trained_while_the_others_are_kept() -> None:
    taken = encoder(embedding_dim=4)
    report = load(taken, weights(), FEATURES, ("embed.",), partial=False)
    set_trained(taken, report, only_new=True, head=("embed.",))
    assert [name for name, p in taken.named_parameters() if p.requires_grad] == ["embed.weight", "embed.bias"]
    assert not any(module.training for module in taken.modules())
    set_trained(taken, report, only_new=False, head=("embed.",))
    assert all(p.requires_grad for p in taken.parameters())
    assert all(module.training for module in taken.modules())


# --- in training ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tuned(tiny_recipe: Recipe) -> Callable[..., Recipe]:
    encoder = {"name": "mobilenet_v3", "width": 0.1, "embedding_dim": 8}

    def recipe(**tuning: Any) -> Recipe:
        return with_changes(tiny_recipe, {"encoder": encoder, "tuning": tuning, "train.epochs": 3}, "test")

    return recipe


def trained_set(spectra: Spectra) -> TrainingSet:
    row_N = torch.arange(0, len(spectra.frames_N), 2)
    return TrainingSet(row_N, row_N % 2, 2)


def body(detector: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in detector.state_dict().items() if "encoder.features" in name}


def given_to(recipe: Recipe) -> Weights:
    built = build_encoder(recipe.encoder, recipe.features.num_bands, seed=9)
    return Weights("w", {name: t for name, t in built.state_dict().items() if not name.startswith("embed.")})


def test_frozen_trains_the_new_layer_alone_and_leaves_batch_norms_as_they_were(
    tuned: Callable[..., Recipe], spectra: Spectra
) -> None:
    recipe = tuned(mode="frozen")
    given, data = given_to(recipe), trained_set(spectra)
    before = Detector(recipe, spectra, data, 0, given)
    detector, history = train(recipe, spectra, data, seed=0, weights=given)
    assert len(history) == 3
    assert all(torch.equal(tensor, body(before)[name]) for name, tensor in body(detector).items())
    assert not torch.equal(detector.state_dict()["encoder.embed.weight"], before.state_dict()["encoder.embed.weight"])


def test_head_first_keeps_the_weights_for_its_epochs_and_goes_on_to_the_bit(
    tuned: Callable[..., Recipe], spectra: Spectra
) -> None:
    class Kept:
        contents: list[bytes]

        def __init__(self, *contents: bytes) -> None:
            self.contents = list(contents)

        def read(self) -> bytes | None:
            return self.contents[-1] if self.contents else None

        def write(self, content: bytes) -> None:
            self.contents.append(content)

    recipe = tuned(mode="head_first", head_epochs=1, depth_decay=0.7)
    given, data, kept = given_to(recipe), trained_set(spectra), Kept()
    detector, _ = train(recipe, spectra, data, 0, kept, weights=given)
    after = [torch.load(io.BytesIO(content), weights_only=True)["state"] for content in kept.contents]
    name = "detector.encoder.features.0.0.weight"
    assert torch.equal(after[0][name], given.state["features.0.0.weight"])
    assert not torch.equal(after[1][name], after[0][name])
    again, _ = train(recipe, spectra, data, 0, Kept(kept.contents[0]), weights=given)
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in detector.state_dict().items())


def test_depth_decay_slows_the_first_layers(tuned: Callable[..., Recipe], spectra: Spectra) -> None:
    moved = {}
    for decay in (1.0, 0.5):
        recipe = with_changes(tuned(depth_decay=decay), {"train.epochs": 1, "train.weight_decay": 0}, "test")
        given, data = given_to(recipe), trained_set(spectra)
        detector, _ = train(recipe, spectra, data, seed=0, weights=given)
        weight = detector.state_dict()["encoder.features.0.0.weight"]
        moved[decay] = float((weight - given.state["features.0.0.weight"]).abs().max())
    assert 0 < moved[0.5] < 0.01 * moved[1.0]  # seventeen layers deep


def test_nothing_is_trained_where_nothing_is_new(tuned: Callable[..., Recipe], spectra: Spectra) -> None:
    recipe = with_changes(tuned(mode="frozen"), {"encoder.embedding_dim": None}, "test")
    heard: list[Epoch] = []
    _, history = train(recipe, spectra, trained_set(spectra), 0, on_epoch=heard.append, weights=given_to(recipe))
    assert not history
    assert not heard


# --- in recipes -------------------------------------------------------------------------------------------------------

MN04 = {
    "pretrained": "audioset:mn04_as",
    "encoder": {"name": "mobilenet_v3", "width": 0.4},
    "features": {"front_end": "efficientat", "normalise": "fixed"},
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pretrained": "audioset:mn04as"}, "unknown weights 'mn04as'; did you mean 'mn04_as'"),
        ({"pretrained": "imagenet"}, "expected none, audioset:NAME or checkpoint:NAME_OR_PATH"),
        ({"encoder": {"name": "mobilenet_v3", "width": 1.0}}, "needs encoder.width 0.4"),
        ({"encoder": {"name": "cnn"}}, "needs encoder.name mobilenet_v3"),
        ({"features": {"front_end": "efficientat"}}, "needs features.normalise fixed"),
        ({"tuning": {"mode": "frozen"}, "scoring": {"name": "class_logit"}}, "class_logit needs a trained encoder"),
    ],
)
def test_recipe_that_cannot_work_is_refused_before_anything_is_run(changes: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse(Recipe, MN04 | changes, "recipe.yaml")


def test_recipe_without_weights_is_the_recipe_that_it_was_before() -> None:
    plain, said = Recipe(), with_changes(Recipe(), {"pretrained": "none", "tuning.mode": "full"}, "test")
    assert plain == said
    assert "pretrained" not in plain._text
    assert "tuning" not in plain._text


def test_real_weights_in_a_detector(shared_dir: Path, spectra: Spectra) -> None:
    recipe = parse(Recipe, MN04 | {"data": {"year": 2020}}, "recipe.yaml")
    own = Spectra(spectra._store, recipe.features, torch.device("cpu"))
    state = torch.load(shared_dir / "weights" / "mn04_as_mAP_432.pt", weights_only=True)
    detector = Detector(recipe, own, trained_set(own), 0, Weights("audioset:mn04_as", state, ("classifier.",)))
    assert str(detector.loaded) == "308 tensors loaded, 4 of the tagging head not used"
    assert (float(detector.mean_F1[0]), float(detector.std_F1[0])) == (-4.5, 5.0)
