"""LoRA: adapters on attention, merged into a network of the same layers and names."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from medtl.errors import ParameterError
from medtl.networks.cutoffs import resolve
from medtl.networks.graph import evaluating
from medtl.networks.partition import cut
from medtl.networks.registry import build
from medtl.pipeline.finalize import resolved_values
from medtl.pipeline.parameter_checks import check_training
from medtl.pipeline.setup import Origin, training_data
from medtl.settings.search import TuneSettings
from medtl.settings.training import TrainSettings
from medtl.training.loop import build_optimizer
from medtl.training.lora import adapted, attention_weights
from medtl.tuning.backbone_pool import check_search, search_space

SIDE = 64


@pytest.mark.parametrize(
    ("name", "cutoff", "weights", "modalities"),
    [
        ("timm:test_vit", "blocks.3", {"blocks.3.attn.qkv.weight", "blocks.3.attn.proj.weight"}, 1),
        # reads the weights of attention without calling its layers
        pytest.param(
            "swin_t", "features.7", {"features.7.1.attn.qkv.weight"}, 1, marks=pytest.mark.slow
        ),
        ("transmed:small_resnet", "projection", set(), 2),
    ],
)
def test_adapters_alone_are_trained_and_merged(name, cutoff, weights, modalities) -> None:
    network = build(name, classes=2, image_size=SIDE, seed=0, modalities=modalities)
    before, types = copy.deepcopy(network.state_dict()), [type(m) for m in network.modules()]
    divided = cut(network, resolve(network, name, cutoff), SIDE)
    names = attention_weights(network, divided.suffix)
    assert weights <= set(names)
    assert names
    images = torch.randn(4, 3 * modalities, SIDE, SIDE)
    features = divided.prefix(images)
    with evaluating(network):
        expected = network(images)
    with adapted(network, divided.suffix, rank=2, seed=0):
        with evaluating(divided.suffix):
            torch.testing.assert_close(divided.suffix(*features), expected, atol=1e-5, rtol=1e-4)
        optimizer = build_optimizer("adam", divided.suffix, 0.01, 0.0)
        for _ in range(2):
            optimizer.zero_grad()
            divided.suffix.train()(*features).square().sum().backward()
            optimizer.step()
        trained = {each for each, value in divided.suffix.named_parameters() if value.requires_grad}
        assert len([each for each in trained if ".parametrizations." in each]) == 2 * len(names)
        with evaluating(divided.suffix):
            adapted_scores = divided.suffix(*features)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert [type(m) for m in network.modules()] == types
    changed = {each for each in before if not torch.equal(before[each], after[each])}
    head = resolve(network, name, "head").name
    assert {each for each in changed if not each.startswith(f"{head}.")} == set(names)
    with evaluating(network):
        torch.testing.assert_close(network(images), adapted_scores, atol=1e-4, rtol=1e-3)
    for each in names:
        assert torch.linalg.matrix_rank((after[each] - before[each]).double(), tol=1e-5) <= 2


@pytest.mark.parametrize(
    ("architecture", "cutoff", "words"),
    [
        ("small_resnet", "layer1", "transfer=lora.*small_resnet has no attention"),
        ("timm:test_vit", "head", "cutoff=head.*last attention"),
    ],
)
def test_where_there_is_no_attention_lora_is_refused(architecture, cutoff, words) -> None:
    asked = {"architecture": architecture, "weights": "random", "image_size": 32}
    with pytest.raises(ParameterError, match=words):
        check_training(TrainSettings(**asked, transfer="lora", cutoff=cutoff))
    if architecture == "small_resnet":
        with pytest.raises(ParameterError, match=words):
            check_search(TuneSettings(**asked, transfer="lora"))


def test_a_search_has_the_cutoffs_up_to_the_last_attention() -> None:
    network = build("timm:test_vit", classes=2, image_size=SIDE, seed=0)
    space = search_space(TuneSettings(transfer="lora"), "timm:test_vit", network)
    assert space.cutoffs == ("patch_embed", *(f"blocks.{number}" for number in range(6)))


def test_a_model_with_merged_adapters_is_the_one_that_was_validated(small_phantoms) -> None:
    settings = TrainSettings(
        data=str(small_phantoms), architecture="timm:test_vit", weights="random", image_size=32,
        transfer="lora", lora_rank=2, cutoff="blocks.4", epochs=2, augment="none",
    )  # fmt: skip
    origin = Origin.of(settings)
    learner = origin.transfer(training_data(settings, origin.rendering), settings)
    trained = learner.train("blocks.4", learner.recipe("adam", 1e-2))
    assert trained.network.state_dict().keys() == learner.backbone.network.state_dict().keys()
    found = learner.logits(trained, "valid")
    np.testing.assert_allclose(found, trained.fit.valid_logits, atol=1e-3)
    mlp = "blocks.4.mlp.fc1.weight"
    frozen = (each.state_dict()[mlp] for each in (trained.network, learner.backbone.network))
    assert torch.equal(*frozen)
    assert resolved_values(learner, trained)["lora_rank"].startswith("2:")
