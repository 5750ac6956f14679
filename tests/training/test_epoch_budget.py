"""Budgets: more epochs where they are cheaper, never more compute."""

import dataclasses

import pytest

from medtl.settings.training import TrainSettings
from medtl.training.epoch_budget import (
    FEWEST,
    LEAST_PATIENCE,
    LEAST_STEPS,
    MOST,
    MOST_OF_ALL_LAYERS,
    Budget,
)

SHARES = (1.0, 0.5, 0.25, 0.1, 0.01, 0.001)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 33, 200, 3000])
def test_cheaper_epochs_are_more_and_cost_no_more(steps):
    epochs = [Budget.of(share, steps).epochs for share in SHARES]
    assert epochs == sorted(epochs)
    assert epochs[-1] <= max(MOST, LEAST_STEPS / steps)
    assert FEWEST <= epochs[0] <= max(MOST_OF_ALL_LAYERS, LEAST_STEPS / steps)
    compute = [count * share for count, share in zip(epochs, SHARES, strict=True)]
    assert compute == sorted(compute, reverse=True)


def test_all_layers_are_trained_for_a_number_of_steps():
    assert Budget.of(1.0, 24).epochs * 24 == 240
    assert Budget.of(0.25, 24).epochs * 24 == 480


def test_the_number_of_images_bounds_the_epochs():
    assert Budget.of(1.0, 4).epochs == MOST_OF_ALL_LAYERS
    assert Budget.of(1.0, 3500).epochs == FEWEST


@pytest.mark.parametrize("share", SHARES)
def test_few_images_are_trained_for_a_least_number_of_steps(share):
    assert Budget.of(share, 1).epochs == LEAST_STEPS
    assert 2 * Budget.of(share, 2).epochs >= LEAST_STEPS


def test_patience_is_a_quarter_of_the_epochs():
    assert Budget.of(1.0, 4).patience == MOST_OF_ALL_LAYERS // 4
    assert Budget.of(1.0, 3500).patience == LEAST_PATIENCE


def test_a_training_has_the_budget_of_its_cut(transfer):
    made = transfer(epochs=0, views=1)
    counts = {}
    for cutoff in ("layer4", "layer2"):
        trained = made.train(cutoff, dataclasses.replace(made.recipe("adam", 1e-3), patience=100))
        counts[cutoff] = len(trained.fit.epochs)
        progress = [epoch.progress for epoch in trained.fit.epochs]
        assert progress[-1] == 1.0
        assert progress == sorted(progress)
        steps = len(made.labels("train")) // made.settings.batch_size
        assert counts[cutoff] == Budget.of(made.trained_share(trained.cut), steps).epochs
    assert counts["layer4"] > counts["layer2"]


def test_epochs_asked_for_are_trained_wherever_the_cut_is(transfer):
    made = transfer(epochs=3, views=1)
    assert len(made.train("layer4", made.recipe("adam", 1e-3)).fit.epochs) == 3
    assert TrainSettings().epochs == 0  # the default is the budget
