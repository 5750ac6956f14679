"""Universal perturbations: known directions, bounds, and the paper's loop by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medtl.evaluation.universal_perturbations import (
    ORDERS,
    AttackRecipe,
    batched,
    fooled,
    norms,
    norms_from_black,
    predicted,
    project,
    random_perturbation,
    resized,
    sequential,
)

SHAPE = (1, 4, 4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(count: int, seed: int = 0) -> Tensor:
    return torch.rand((count, *SHAPE), generator=seeded(seed)) * 2 - 1


def linear(weights: Tensor, bias: float = 0.0):
    """Two classes, the second where `weights` x + `bias` is above 0."""

    def scores(images: Tensor) -> Tensor:
        second = images.flatten(1) @ weights.flatten() + bias
        return torch.stack([torch.zeros_like(second), second], dim=1)

    return scores


def curved(classes: int = 3):
    """A small network with no closed form."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, classes))


@pytest.mark.parametrize(("target", "direction"), [(None, -1), (0, -1), (1, 1)])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_against_a_linear_model_the_direction_is_the_sign_of_its_weights(norm, target, direction):
    weights = torch.randn(SHAPE, generator=seeded(5))
    # so far from the border that no image is fooled within the limit
    scores = linear(weights, bias=-30.0 if target == 1 else 30.0)
    recipe = AttackRecipe(norm, limit=0.3, step_size=0.1, passes=20, target=target)
    made = batched(scores, drawn(8), recipe, seeded())
    signs = direction * weights.sign()
    expected = 0.3 * signs / (signs.norm() if norm == "l2" else 1)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6)
    # the paper's order takes no step that does not fool its image
    assert not sequential(scores, drawn(8), recipe, seeded()).any()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_norm_stays_within_its_limit(order, norm):
    recipe = AttackRecipe(norm, limit=0.2, step_size=0.75, passes=4)
    made = ORDERS[order](curved(), drawn(70), recipe, seeded())
    assert made.any()
    assert norms(made[None], norm).item() <= 0.2 * (1 + 1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_with_room_enough_all_images_get_the_target(order):
    scores, images = curved(), drawn(70)
    for target in range(3):
        own = predicted(scores, images)
        assert (own != target).any()
        recipe = AttackRecipe("linf", limit=2.0, step_size=0.1, passes=30, target=target)
        made = ORDERS[order](scores, images, recipe, seeded())
        assert fooled(own, predicted(scores, images + made), target).all()


def by_hand(
    order: str,
    weights: np.ndarray,
    images: np.ndarray,
    recipe: AttackRecipe,
    orders: list[list[int]],
) -> np.ndarray:
    """Both orders against logits W x, in NumPy, as the paper and the docstring tell them."""

    def says(image: np.ndarray) -> int:
        return int((weights @ image).argmax())

    def done(image: np.ndarray, label: int) -> bool:
        return says(image) == recipe.target if recipe.target is not None else says(image) != label

    def step(image: np.ndarray, label: int) -> np.ndarray:
        logits = weights @ image
        gradient = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        gradient[label if recipe.target is None else recipe.target] -= 1
        uphill = np.sign(weights.T @ gradient)
        length = recipe.step_size * recipe.limit
        each = length / 4 if recipe.norm == "l2" else length  # of 16 pixels
        return each * (uphill if recipe.target is None else -uphill)

    def within(pattern: np.ndarray) -> np.ndarray:
        if recipe.norm == "linf":
            return np.clip(pattern, -recipe.limit, recipe.limit)
        return pattern * min(1.0, recipe.limit / max(np.linalg.norm(pattern), 1e-12))

    pattern = np.zeros(weights.shape[1])
    for drawn_order in orders:
        fooling, others = [], []
        for index in drawn_order:
            image, label = images[index], says(images[index])
            if done(image + pattern, label):
                continue
            moved = step(image + pattern, label)
            succeeds = done(image + pattern + moved, label)
            if order == "batched":
                (fooling if succeeds else others).append(moved)
            elif succeeds:
                pattern = within(pattern + moved)
        if order == "batched" and (steps := fooling or others):
            pattern = within(pattern + np.abs(steps[0]) * np.sign(np.sum(steps, axis=0)))
    return pattern


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("target", [None, 2])
def test_three_images_by_hand(order, norm, target):
    images = drawn(3, seed=1)
    weights = torch.randn((3, 16), generator=seeded(2))
    # steps of unlike size, some of which fool their image and some of which do not
    for step_size in (0.1, 0.4, 1.0):
        limit = 0.7 if norm == "l2" else 0.25
        recipe = AttackRecipe(norm, limit, step_size, passes=4, target=target)
        made = ORDERS[order](lambda x: x.flatten(1) @ weights.T, images, recipe, seeded(7))
        generator = seeded(7)
        orders = [torch.randperm(3, generator=generator).tolist() for _ in range(4)]
        flat = images.flatten(1).double().numpy()
        expected = by_hand(order, weights.double().numpy(), flat, recipe, orders)
        np.testing.assert_allclose(made.flatten().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_one_step_has_the_asked_share_of_the_limit(order, norm):
    weights, images = torch.randn(SHAPE, generator=seeded(5)), drawn(1)
    border = -(images[0] * weights).sum().item() + 1e-3  # one small step crosses it
    recipe = AttackRecipe(norm, limit=2.0, step_size=0.25, passes=1)
    made = ORDERS[order](linear(weights, border), images, recipe, seeded())
    assert norms(made[None], norm).item() == pytest.approx(0.5, rel=1e-5)


def test_norms_of_images_are_from_black_on():
    black, white = torch.full(SHAPE, -1.0), torch.full(SHAPE, 1.0)
    grey = torch.zeros(SHAPE)
    assert norms_from_black(torch.stack([black, grey, white]), "l2").tolist() == [0, 4, 8]
    assert norms_from_black(torch.stack([black, grey, white]), "linf").tolist() == [0, 1, 2]


def test_what_is_fooled_already_takes_no_step():
    weights = torch.randn(SHAPE, generator=seeded(5))
    recipe = AttackRecipe("linf", limit=1.0, step_size=0.01, passes=50)
    images = drawn(1)
    made = batched(linear(weights), images, recipe, seeded())
    margin = (images[0] * weights).sum().abs()
    # the first multiple of the step that crosses the border, and no step beyond it
    steps = torch.floor(margin / (0.01 * weights.abs().sum())) + 1
    assert made.abs().max().item() == pytest.approx(0.01 * steps.item(), rel=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_equal_seeds_give_equal_perturbations_and_others_do_not(order):
    recipe = AttackRecipe("l2", limit=0.5, step_size=1.0, passes=1)
    one, again, other = (
        ORDERS[order](curved(), drawn(70), recipe, seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_random_control_has_exactly_the_norm():
    like = torch.zeros(3, 32, 32)
    for length in (0.02, 5.0):
        sphere = random_perturbation(like, "l2", length, seeded())
        assert sphere.norm().item() == pytest.approx(length, rel=1e-6)
        corner = random_perturbation(like, "linf", length, seeded())
        assert torch.equal(corner.abs(), torch.full_like(corner, length))
        assert 0.4 < (corner > 0).float().mean() < 0.6
    assert not torch.equal(sphere, random_perturbation(like, "l2", 5.0, seeded(1)))
    # uniform on the sphere: no corner is favoured
    assert sphere.abs().max() > 3 * sphere.norm() / 3072**0.5


def test_projection_is_to_the_nearest_and_leaves_what_is_inside():
    pattern = torch.tensor([[[3.0, -4.0]]])
    assert torch.equal(project(pattern, "linf", 3.5), torch.tensor([[[3.0, -3.5]]]))
    torch.testing.assert_close(project(pattern, "l2", 2.5), pattern / 2)
    for norm in ("l2", "linf"):
        assert torch.equal(project(pattern, norm, 6.0), pattern)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_resized_perturbation_keeps_its_pattern_and_has_the_length(norm):
    pattern = torch.ones(1, 8, 8)
    pattern[:, 4:] = -1
    other = resized(pattern, 12, norm, 0.3)
    assert other.shape == (1, 12, 12)
    assert norms(other[None], norm).item() == pytest.approx(0.3, rel=1e-6)
    assert (other[:, :5] > 0).all()
    assert (other[:, 7:] < 0).all()
    assert not resized(torch.zeros(1, 8, 8), 12, norm, 0.3).any()
