import copy
import math
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raysd.errors import BadInput
from raysd.model.classification import CLASSIFICATION, ArcFace, SubclusterAdaCos, arcface_logits
from raysd.model.contrastive import BYOL, CONTRASTIVE, NTXent, SupCon, byol, nt_xent, supcon
from raysd.model.draws import Draws
from raysd.model.encoders import CNN, AudioNTT2020
from raysd.model.encoding import EncoderModule, build_encoder
from raysd.model.losses import Loss, Objective, build_objective
from raysd.settings import parse

ITEMS, CLASSES = 6, 3
LOSSES = {
    **{name: Loss(contrastive=kind.tiny(), classification=None) for name, kind in CONTRASTIVE.items()},  # type: ignore[arg-type]
    **{name: Loss(contrastive=None, classification=kind.tiny()) for name, kind in CLASSIFICATION.items()},  # type: ignore[arg-type]
    "both": Loss(contrastive=SupCon.tiny(), classification=SubclusterAdaCos.tiny()),
}
Batch = tuple[tuple[Tensor, Tensor], Tensor, tuple[Draws, Draws]]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(rows: Tensor | None = None) -> Batch:
    """A batch of two views, or some of its rows."""
    rows = torch.arange(ITEMS) if rows is None else rows
    views = random(ITEMS, 16, 16, seed=1)[rows], random(ITEMS, 16, 16, seed=2)[rows]
    label_B = torch.tensor([0, 1, 1, 2, 0, 1])[rows]
    return views, label_B, (Draws(7, 1, rows + 50, view=0), Draws(7, 1, rows + 50, view=1))


def built(loss: Loss, num_classes: int = CLASSES, dropout: bool = False) -> tuple[EncoderModule, Objective]:
    encoder = build_encoder(
        AudioNTT2020.tiny() if dropout else CNN(width=0.125, embedding_dim=16), num_bands=16, seed=3
    )
    return encoder, build_objective(loss, encoder, num_classes, seed=3)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


# ---- pure functions


def pair_loop(z_MP: Tensor, label_M: Tensor, temperature: float) -> float:
    """SupCon one pair at a time."""
    rows = z_MP.double().numpy()
    total = 0.0
    for i, row in enumerate(rows):
        similarity = [row @ other / math.sqrt((row @ row) * (other @ other)) / temperature for other in rows]
        log_sum = math.log(sum(math.exp(s) for j, s in enumerate(similarity) if j != i))
        positives = [j for j in range(len(rows)) if j != i and label_M[j] == label_M[i]]
        if positives:
            total += sum(log_sum - similarity[j] for j in positives) / len(positives)
    return total / len(rows)


def test_nt_xent_by_hand() -> None:
    # two items whose views agree and which are orthogonal to each other: cosines 1 (positive), 0, 0 for every row
    eye = torch.eye(2)
    assert nt_xent(eye, eye * 5, temperature=1.0).item() == pytest.approx(math.log(math.e + 2) - 1)
    assert nt_xent(eye, eye, temperature=0.5).item() == pytest.approx(math.log(math.e**2 + 2) - 2)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_nt_xent_and_supcon_equal_a_loop_over_pairs(temperature: float) -> None:
    a, b = random(5, 4), random(5, 4, seed=1)
    item_M = torch.arange(5).repeat(2)
    assert nt_xent(a, b, temperature).item() == pytest.approx(pair_loop(torch.cat([a, b]), item_M, temperature))
    label_M = torch.tensor([0, 0, 0, 1, 2, 1, 0, 1, 1, 3])  # 2 and 3 have one row each
    z = random(10, 4)
    assert supcon(z, label_M, temperature).item() == pytest.approx(pair_loop(z, label_M, temperature))


def test_supcon_is_finite_with_lonely_rows_equal_rows_and_zero_rows() -> None:
    z = torch.cat([torch.ones(2, 4), torch.zeros(1, 4), -torch.ones(1, 4)]).requires_grad_()
    for labels in ([0, 0, 1, 1], [0, 1, 2, 3]):
        loss = supcon(z, torch.tensor(labels), temperature=0.01)
        (gradient,) = torch.autograd.grad(loss, z)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_byol_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    assert byol(a[:1], b[:1]).item() == pytest.approx(0)
    assert byol(a[1:2], b[1:2]).item() == pytest.approx(2)
    assert byol(a[2:], b[2:]).item() == pytest.approx(4)
    assert byol(a, b).item() == pytest.approx(2)


def test_arcface_equals_the_arc_cosine_formula() -> None:
    cosine, label = torch.linspace(-0.85, 0.95, 12).reshape(4, 3), torch.tensor([0, 2, 1, 2])
    logits = arcface_logits(cosine, label, scale=30.0, margin=0.4)
    for row in range(4):
        for column in range(3):
            value = float(cosine[row, column])
            own = math.cos(math.acos(value) + 0.4) if column == label[row] else value
            assert logits[row, column].item() == pytest.approx(30 * own, abs=1e-4)


def test_arcface_falls_monotonically_and_is_safe_at_both_ends() -> None:
    cosine = torch.cat([torch.tensor([-1.0, 1.0, 1.0000001]), torch.linspace(-1, 1, 201)])[:, None].requires_grad_()
    logits = arcface_logits(cosine, torch.zeros(len(cosine), dtype=torch.int64), scale=30.0, margin=1.0)
    (gradient,) = torch.autograd.grad(logits.sum(), cosine)
    assert logits.isfinite().all()
    assert gradient.isfinite().all()
    assert (logits[3:].diff(dim=0) > 0).all()  # a smaller angle never costs


# ---- every entry of the registries


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_contrastive_names_are_those_of_a_recipe(name: str) -> None:
    assert type(parse(Loss, {"contrastive": {"name": name}}, "test").contrastive) is CONTRASTIVE[name]


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classification_names_are_those_of_a_recipe(name: str) -> None:
    assert type(parse(Loss, {"classification": {"name": name}}, "test").classification) is CLASSIFICATION[name]


@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_finite_and_reaches_every_parameter_that_trains(name: str) -> None:
    encoder, objective = built(LOSSES[name])
    loss, parts = objective(encoder, *batch())
    loss.backward()
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(sum(float(part) for part in parts.values()))
    assert not any(part.requires_grad for part in parts.values())
    for module in (encoder, objective):
        for path, parameter in module.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, path
                assert parameter.grad.isfinite().all(), path
    assert all(gradient.any() for gradient in gradients(encoder).values())


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_initial_weights_are_a_function_of_the_seed(name: str) -> None:
    before = torch.get_rng_state()
    values = []
    for _ in range(2):
        encoder, objective = built(LOSSES[name], dropout=True)
        loss, _ = objective(encoder, *batch())
        values.append(loss.item())
    assert values[0] == values[1]
    assert torch.equal(torch.get_rng_state(), before)
    encoder, _ = built(LOSSES[name], dropout=True)
    other = build_objective(LOSSES[name], encoder, CLASSES, seed=4)
    assert other(encoder, *batch())[0].item() != values[0]


@pytest.mark.parametrize("name", LOSSES)
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    encoder, objective = built(LOSSES[name], dropout=True)
    shuffled = copy.deepcopy((encoder, objective))
    loss, _ = objective(encoder, *batch())
    rows = torch.tensor([4, 2, 0, 5, 1, 3])
    loss_shuffled, _ = shuffled[1](shuffled[0], *batch(rows))
    assert loss_shuffled.item() == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_two_workers_compute_the_loss_and_the_gradient_of_one(name: str) -> None:
    encoder, objective = built(LOSSES[name], dropout=True)
    for module in [*encoder.modules(), *objective.modules()]:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()  # statistics over workers are the training loop's matter
    workers = [copy.deepcopy((encoder, objective)) for _ in range(2)]
    whole, _ = objective(encoder, *batch())
    whole.backward()

    barrier, sent, losses = threading.Barrier(2, timeout=30), {}, {}

    def work(rank: int, rows: Tensor) -> None:
        def gather(x: Tensor) -> Tensor:
            sent[rank] = x
            barrier.wait()
            joined = torch.cat([sent[0], sent[1]])
            barrier.wait()
            return joined

        losses[rank], _ = workers[rank][1](workers[rank][0], *batch(rows), gather=gather)

    halves = torch.tensor([5, 0, 3, 1]), torch.tensor([2, 4])  # of unequal size, and not in order
    threads = [threading.Thread(target=work, args=(rank, rows)) for rank, rows in enumerate(halves)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for loss in losses.values():
        assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    (losses[0] + losses[1]).backward()  # what a gather whose backward sums over workers does
    for index, module in enumerate((encoder, objective)):
        single = gradients(module)
        double = [gradients(worker[index]) for worker in workers]
        assert single.keys() == double[0].keys()
        for path, gradient in single.items():
            mean = (double[0][path] + double[1][path]) / 2
            torch.testing.assert_close(mean, gradient, rtol=1e-3, atol=1e-5)
    for own, buffers in zip(objective.state_dict().items(), workers[0][1].state_dict().items(), strict=True):
        torch.testing.assert_close(buffers[1], own[1], msg=own[0])


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_leaves_the_loss_in_float32(name: str) -> None:
    encoder, objective = built(LOSSES[name])
    expected, _ = copy.deepcopy(objective)(copy.deepcopy(encoder), *batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(encoder, *batch())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.1)


@pytest.mark.parametrize("name", LOSSES)
def test_a_few_steps_lower_the_loss(name: str) -> None:
    encoder, objective = built(LOSSES[name])
    optimiser = torch.optim.AdamW([*encoder.parameters(), *objective.parameters()], lr=3e-3)
    values = []
    for _ in range(15):
        loss, _ = objective(encoder, *batch())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        objective.after_step(encoder)
        values.append(loss.item())
    assert values[-1] < values[0]


# ---- the objective


def test_weights_add_up_and_a_part_of_weight_zero_is_not_there() -> None:
    weighted = Loss(contrastive=NTXent(weight=0.5), classification=ArcFace(weight=3.0))
    encoder, objective = built(weighted)
    loss, parts = objective(encoder, *batch())
    assert loss.item() == pytest.approx(0.5 * parts["contrastive"].item() + 3 * parts["classification"].item())

    encoder, objective = built(Loss(contrastive=NTXent(), classification=ArcFace(weight=0)))
    loss, only = objective(encoder, *batch())
    assert only.keys() == {"contrastive"}
    assert loss.item() == parts["contrastive"].item()  # and leaving it out has shifted no weight of the other


@pytest.mark.parametrize(
    "values",
    [
        {"contrastive": None, "classification": None},
        {"contrastive": None, "classification": {"name": "arcface", "weight": 0}},
        {"contrastive": {"name": "byol", "weight": 0}, "classification": {"name": "arcface", "weight": 0}},
    ],
)
def test_a_loss_of_nothing_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="nothing to train on"):
        parse(Loss, values, "test")


@pytest.mark.parametrize("kind", [ArcFace(), SubclusterAdaCos(subclusters=1), SubclusterAdaCos()], ids=str)
def test_a_single_class_costs_nothing(kind: ArcFace | SubclusterAdaCos) -> None:
    encoder, objective = built(Loss(contrastive=None, classification=kind), num_classes=1)
    views, label_B, draws = batch()
    for _ in range(3):
        loss, _ = objective(encoder, views, torch.zeros_like(label_B), draws)
    assert loss.item() == 0
    loss.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(encoder).values())
    assert all(buffer.isfinite().all() for buffer in objective.buffers())


def test_supcon_reads_classes_and_nt_xent_does_not() -> None:
    views, label_B, draws = batch()
    for name, differs in (("supcon", True), ("nt_xent", False)):
        encoder, objective = built(LOSSES[name])
        one, _ = objective(encoder, views, label_B, draws)
        other, _ = objective(encoder, views, label_B.flip(0), draws)
        assert (one.item() != other.item()) == differs


def test_byol_target_follows_the_encoder_and_gets_no_gradient() -> None:
    encoder, objective = built(Loss(contrastive=BYOL(hidden_dim=8, projection_dim=4, target_ema=0.75)))
    assert objective.contrastive is not None
    target = objective.contrastive.get_submodule("target_encoder")
    before = [parameter.clone() for parameter in encoder.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), before, strict=True))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    objective.after_step(encoder)
    for slow, start in zip(target.parameters(), before, strict=True):
        torch.testing.assert_close(slow, start + 0.25)
        assert not slow.requires_grad


def test_byol_loss_is_both_directions() -> None:
    encoder, objective = built(LOSSES["byol"])
    (a, b), label_B, draws = batch()
    encoder.eval()
    objective.eval()
    part: Any = objective.contrastive
    with torch.no_grad():
        q = [part.predictor(part.projector(encoder(view))) for view in (a, b)]
        t = [part.target_projector(part.target_encoder(view)) for view in (a, b)]
        loss, _ = objective(encoder, (a, b), label_B, draws)
    assert loss.item() == pytest.approx((byol(q[0], t[1]) + byol(q[1], t[0])).item(), rel=1e-5)


def test_adacos_starts_at_the_fixed_scale_and_follows_its_rule() -> None:
    loss = Loss(contrastive=None, classification=SubclusterAdaCos(subclusters=1))
    _, objective = built(loss, num_classes=3)
    part: Any = objective.classification
    assert part.scale.item() == pytest.approx(math.sqrt(2) * math.log(2))
    with torch.no_grad():
        part.centres_KD.copy_(torch.eye(3, 16))
    start = part.scale.item()
    part(torch.eye(3, 16), torch.tensor([0, 1, 2]))  # every row on its centre: own angle 0, the other cosines 0
    assert part.scale.item() == pytest.approx(math.log(3), rel=1e-3)
    with torch.no_grad():
        part.scale.fill_(start)
    part(torch.eye(3, 16), torch.tensor([1, 1, 1]))  # angles 90, 0, 90 degrees: the median is cut at 45
    # the own centre counts as exp(0); rows 0 and 2 see one other centre at cosine 1, row 1 none
    sums = [2 + math.exp(start), 3, 2 + math.exp(start)]
    assert part.scale.item() == pytest.approx(math.log(sum(sums) / 3) / math.cos(math.pi / 4), rel=1e-5)
    fixed = part.scale.item()
    part.eval()(torch.eye(3, 16), torch.tensor([0, 1, 2]))
    assert part.scale.item() == fixed


def test_adacos_probability_of_a_class_is_the_sum_over_its_subclusters() -> None:
    _, objective = built(Loss(contrastive=None, classification=SubclusterAdaCos(subclusters=2)), num_classes=3)
    part: Any = objective.classification
    z_BD, label_B = random(5, 16), torch.tensor([0, 1, 2, 1, 0])
    probability_BK = (part.scale * part.cosine(z_BD)).softmax(dim=1)
    own_B = [probability_BK[row, 2 * label : 2 * label + 2].sum().item() for row, label in enumerate(label_B.tolist())]
    log_own_B = objective.log_probabilities(z_BD)[torch.arange(5), label_B]
    assert log_own_B.tolist() == pytest.approx([math.log(p) for p in own_B], rel=1e-4)


def test_adacos_centres_can_be_frozen() -> None:
    loss = Loss(contrastive=None, classification=SubclusterAdaCos(trainable_centres=False))
    encoder, objective = built(loss)
    objective(encoder, *batch())[0].backward()
    assert not gradients(objective)
    assert gradients(encoder)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_the_class_whose_centre_a_clip_is_at_is_the_most_probable(name: str) -> None:
    _, objective = built(LOSSES[name])
    part: Any = objective.classification
    centre_D = part.centres_KD[0].detach() * 4
    log_BC = objective.log_probabilities(centre_D[None])
    assert log_BC.shape == (1, CLASSES)
    assert not log_BC.requires_grad
    assert log_BC.argmax() == 0
    assert log_BC.exp().sum().item() == pytest.approx(1, rel=1e-5)


def test_probabilities_need_a_classification() -> None:
    _, objective = built(LOSSES["nt_xent"])
    with pytest.raises(ValueError, match="no classification"):
        objective.log_probabilities(random(2, 16))
