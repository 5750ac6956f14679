from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from medtl.cache import cache_root
from medtl.errors import MedtlError, ParameterError
from medtl.networks.cutoffs import cut_points, resolve
from medtl.networks.partition import cut
from medtl.networks.registry import build
from medtl.training import learner
from medtl.training.activation_store import KIND
from medtl.training.learner import TransferLearner
from medtl.training.loop import Epoch


def divided(transfer, cutoff):
    network = transfer.backbone.copy()
    return cut(network, resolve(network, "small_resnet", cutoff), transfer.image_size)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_what_is_frozen_is_equal_to_the_bit_and_what_is_trained_is_not(transfer, optimizer):
    made = transfer(weight_decay=0.1, cutoff="layer3")
    before = copy.deepcopy(made.backbone.network.state_dict())
    after = made.train("layer3", made.recipe(optimizer, 1e-2)).network.state_dict()
    frozen = [name for name in before if name.startswith(("conv1", "bn1", "layer1", "layer2"))]
    trained = [name for name in before if name not in frozen]
    assert len(frozen) > 20
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert all(not torch.equal(before[name], after[name]) for name in trained)
    assert all(
        torch.equal(before[name], value)
        for name, value in made.backbone.network.state_dict().items()
    ), "the backbone itself is never trained"


def test_what_is_kept_equals_a_fresh_pass_to_sixteen_bits(transfer):
    made = transfer()
    halves = divided(made, "layer3")
    feed = made.feed(halves, "valid", None)
    rows = np.array([5, 0, 3])
    (kept,), (fresh,) = feed.batch(rows, 1), feed.fresh.batch(rows, 1)
    assert feed.view(1) is not None
    torch.testing.assert_close(kept, fresh, rtol=5e-3, atol=5e-3)


def test_a_linear_head_is_solved_unless_epochs_are_given(transfer):
    made = transfer(epochs=0)
    recipe, seen = made.recipe("adam", 1e-3), []
    solved = made.train("head", recipe, seen.append)
    assert solved.solved is not None
    assert [epoch.number for epoch in seen] == [1]
    assert solved.fit.best.valid_auroc == pytest.approx(solved.solved.valid_auroc, abs=0.02)
    np.testing.assert_allclose(
        made.logits(solved, "valid"),
        solved.solved.logits(made.features(solved.cut, "valid")),
        atol=0.05,
    )
    again = made.train("head", made.recipe("sgd", 1.0))
    assert torch.equal(again.network.fc.weight, solved.network.fc.weight)
    walked = transfer(epochs=2).train("head", transfer(epochs=2).recipe("adam", 1e-3))
    assert walked.solved is None
    assert len(walked.fit.epochs) == 2
    deeper = made.train("layer4", dataclasses.replace(recipe, epochs=1))
    assert deeper.solved is None


def test_views_differ_and_are_cycled(transfer):
    made = transfer(views=2)
    feed = made.feed(divided(made, "layer2"), "train", made.augmentation)
    rows = np.arange(4)
    first, second, third = (feed.batch(rows, epoch)[0] for epoch in (1, 2, 3))
    assert torch.equal(first, third)
    assert not torch.equal(first, second)


def test_a_deeper_cut_has_the_same_bits_whatever_it_was_computed_from(
    transfer, monkeypatch, tmp_path
):
    rows = np.arange(8)

    def layer4(before: list[str]) -> torch.Tensor:
        made = transfer()
        for cutoff in [*before, "layer4"]:
            feed = made.feed(divided(made, cutoff), "train", made.augmentation)
            (crossing,) = feed.batch(rows, 1)
        return crossing

    results = []
    for name, before in (("a", []), ("b", ["layer1"]), ("c", ["layer2", "layer3"])):
        monkeypatch.setenv("MEDTL_CACHE", str(tmp_path / name))
        results.append(layer4(before))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_nothing_is_kept_where_it_never_pays_or_is_forbidden(transfer):
    for settings, cutoff in (({"keep": "never"}, "layer3"), ({}, "conv1")):
        made = transfer(**settings)
        made.train(cutoff, made.recipe("adam", 1e-3))
        assert not (cache_root() / KIND).exists()


def kept_entries() -> int:
    folder = cache_root() / KIND
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_a_pass_keeps_expected_cuts_on_its_way_one_in_each_third_of_the_compute(
    transfer, monkeypatch, tmp_path
):
    made = transfer(augment="none", epochs=1)
    made.train("fc", made.recipe("adam", 1e-3))
    assert kept_entries() == 2, "unasked, a pass keeps nothing but its own cut, of two splits"

    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path / "expected"))
    made = transfer(augment="none", epochs=1)
    made.activation_cache.expect(cut_points(made.backbone.network, "blocks"))
    made.train("fc", made.recipe("adam", 1e-3))
    kept = kept_entries()
    assert 2 * (1 + 2) <= kept <= 2 * (1 + 3)
    made.train("layer4", made.recipe("adam", 1e-3))
    assert kept_entries() == kept, "layer4 lies in the last third and was kept on the way"


def test_a_cheap_prefix_before_large_activations_is_computed_anew_and_said(transfer):
    """MobileNetV2's first convolution: 54 operations for each number of 16 bits."""
    for keep, entries in (("auto", 0), ("always", 3)):
        made = transfer(keep=keep)
        network = build("mobilenet_v2", 3, made.image_size, seed=0)
        backbone = dataclasses.replace(made.backbone, architecture="mobilenet_v2", network=network)
        made = TransferLearner(backbone, made.dataset, made.settings)
        made.train("features.0.1", made.recipe("adam", 1e-3))
        said = made.activation_cache.notes["features.0.1"]
        assert ("cost less than reading" in said) == (keep == "auto")
        assert kept_entries() == entries, "always: two views to train on, one to validate"


def test_over_the_budget_it_is_computed_anew_and_said(transfer, monkeypatch):
    monkeypatch.setenv("MEDTL_CACHE_GB", "0.000001")
    made = transfer()
    made.train("layer3", made.recipe("adam", 1e-3))
    assert "over the budget" in made.activation_cache.notes["layer3"]
    assert not (cache_root() / KIND).exists()


def test_the_best_epoch_is_restored_from_a_real_copy(transfer):
    made = transfer(epochs=6, patience=6)
    trained = made.train("all", made.recipe("sgd", 0.2))
    logits = made_predictions(made, trained)
    np.testing.assert_allclose(logits, trained.fit.valid_logits, rtol=1e-4, atol=1e-4)
    best = max(trained.fit.epochs, key=lambda epoch: epoch.valid_auroc)
    assert trained.fit.best == best


def test_a_head_on_few_images_is_also_solved_on_views_and_on_many_where_it_is_asked(transfer):
    def path(**settings: object) -> set[int]:
        made = transfer(epochs=0, **settings)
        trained = made.train("head", made.recipe("adam", 1e-3))
        assert trained.solved is not None
        return set(trained.solved.path["views"])

    assert path() == path(augment="auto") == {0, 2}
    assert path(augment="none") == {0}
    images = len(transfer().labels("train"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "FEW_IMAGES", images - 1)
        assert path() == {0}
        assert path(augment="auto") == {0, 2}
        patch.setattr(learner, "MOST_VERSIONS", 2 * images)
        assert path(augment="auto") == {0, 1}


def test_a_search_may_train_with_each_augmentation(transfer):
    from medtl.tuning.search_space import Candidate
    from medtl.tuning.trials import fit_candidate

    made = transfer(epochs=1, augment="auto")
    losses = {}
    for augment in ("", "light", "none"):
        candidate = Candidate("adam", 1e-3, "layer4", augment=augment)
        losses[augment] = fit_candidate(made, candidate, lambda epoch: None).fit.best.train_loss
    plain = transfer(epochs=1, augment="none")
    expected = plain.train("layer4", plain.recipe("adam", 1e-3)).fit.best.train_loss
    assert losses[""] == losses["light"] != losses["none"] == expected


def made_predictions(made, trained) -> np.ndarray:
    from medtl.training.loop import predict

    return predict(trained.cut.suffix, made.feed(trained.cut, "valid", None), made.precision)


def test_training_stops_when_patience_is_used_up(transfer):
    made = transfer(epochs=30, patience=1, augment="none")
    epochs = made.train("fc", made.recipe("sgd", 1e-8)).fit.epochs
    assert len(epochs) < 30
    assert epochs[-1].number - max(epochs, key=lambda e: e.valid_auroc).number == 1


def test_a_loss_that_is_no_number_ends_the_training_with_a_line(transfer):
    made = transfer(epochs=3)
    with pytest.raises(MedtlError, match="lower the learning rate"):
        made.train("all", made.recipe("sgd", 1e30))


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(transfer):
    def curve(seed: int) -> list[float]:
        seen: list[Epoch] = []
        made = transfer(seed=seed)
        made.train("layer4", made.recipe("adam", 1e-3), seen.append)
        return [epoch.train_loss for epoch in seen]

    assert curve(0) == curve(0)
    assert curve(0) != curve(1)


@pytest.mark.parametrize("balance", ["loss", "sampler"])
def test_balance_raises_the_rare_class(transfer, balance):
    made = transfer(epochs=1)
    labels = made.dataset.labels
    train = made.dataset.splits["train"]
    rare = np.concatenate([train[labels[train] == 0][:6], train[labels[train] == 1]])
    splits = {**made.dataset.splits, "train": rare}
    made.dataset = dataclasses.replace(made.dataset, splits=splits)

    def share(how: str) -> float:
        recipe = dataclasses.replace(made.recipe("adam", 1e-3), balance=how)
        scores = torch.from_numpy(made.train("fc", recipe).fit.valid_logits)
        return scores.softmax(1)[:, 0].mean().item()

    assert share(balance) > share("none")


def test_two_stages_train_the_head_first(transfer):
    made = transfer(epochs=1)
    recipe = made.recipe("adam", 1e-3)
    one, two = made.train("layer4", recipe), made.train_in_two_stages("layer4", recipe)
    assert two.fit.epochs[0].train_loss < one.fit.epochs[0].train_loss


def test_a_hybrid_needs_features(transfer):
    made = transfer()
    with pytest.raises(ParameterError, match="cutoff"):
        made.train_hybrid("all")
    with pytest.raises(ParameterError, match="pca"):
        transfer(pca=5000).train_hybrid("fc")


def test_a_share_of_the_training_split_reads_what_was_kept_of_the_whole(transfer):
    made = transfer()
    halves = divided(made, "layer3")
    whole = made.feed(halves, "train", made.augmentation)
    rows = np.array([2, 3, 7, 11])
    (expected,) = whole.batch(rows, 1)
    kept = set((cache_root() / KIND).iterdir())

    settings = dataclasses.replace(made.settings, seed=5)
    share = TransferLearner(
        made.backbone, made.dataset, settings, rows, made.settings.seed, made.activation_cache
    )
    (found,) = share.feed(halves, "train", share.augmentation).batch(np.arange(4), 1)
    assert torch.equal(found, expected)
    assert set((cache_root() / KIND).iterdir()) == kept
    assert share.labels("train").tolist() == made.labels("train")[rows].tolist()
    assert len(share.feed(halves, "valid", None)) == len(made.dataset.splits["valid"])


def test_the_logits_of_a_split_are_those_of_the_trained_network(transfer):
    made = transfer(epochs=1)
    trained = made.train("layer4", made.recipe("adam", 1e-3))
    assert np.array_equal(made.logits(trained, "valid"), trained.fit.valid_logits)
