"""Training on a GPU: frozen layers, kept activations, resumption, precision, memory.

`GPU_TESTS_ON=cpu` runs the same tests on the processor.
"""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medtl.data.loading import load
from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import build
from medtl.settings.training import TrainSettings
from medtl.training.augmentation import Augmentation
from medtl.training.checkpoints import CheckpointHold
from medtl.training.device import OutOfMemoryError, enough_memory
from medtl.training.learner import TransferLearner
from medtl.training.loop import Epoch

pytestmark = pytest.mark.gpu

DEVICE = os.environ.get("GPU_TESTS_ON", "cuda")

Made = Callable[..., TransferLearner]


def trained_scores(made: TransferLearner, cutoff: str = "layer3") -> np.ndarray:
    return made.train(cutoff, made.recipe("adam", 1e-3)).fit.valid_logits


def test_frozen_layers_are_equal_to_the_bit(transfer: Made) -> None:
    made = transfer(device=DEVICE, weight_decay=0.1)
    before = copy.deepcopy(made.backbone.network.state_dict())

    after = made.train("layer3", made.recipe("adamw", 1e-2)).network.state_dict()

    frozen = [name for name in before if name.startswith(("conv1", "bn1", "layer1", "layer2"))]
    assert len(frozen) > 20
    assert all(torch.equal(before[name], after[name].cpu()) for name in frozen)
    assert after["layer3.conv1.weight"].device.type == DEVICE
    assert not torch.equal(before["layer3.conv1.weight"], after["layer3.conv1.weight"].cpu())


def test_kept_activations_equal_a_fresh_pass_to_sixteen_bits(transfer: Made) -> None:
    made = transfer(device=DEVICE, precision="float32")
    network = made.backbone.copy().to(DEVICE)
    halves = cut(network, resolve(network, "small_resnet", "layer3"), made.image_size)
    feed = made.feed(halves, "valid", None)
    rows = np.array([5, 0, 3])

    (kept,), (fresh,) = feed.batch(rows, 1), feed.fresh.batch(rows, 1)

    assert kept.device.type == DEVICE
    torch.testing.assert_close(kept, fresh, rtol=5e-3, atol=5e-3)


def test_augmentation_is_drawn_on_the_gpu_and_repeats_by_its_seed() -> None:
    images = torch.rand(4, 1, 32, 32, device=DEVICE)

    def changed(seed: int) -> torch.Tensor:
        return Augmentation(mirror=True)(images, torch.Generator(DEVICE).manual_seed(seed))

    assert changed(0).device.type == DEVICE
    assert torch.equal(changed(0), changed(0))
    assert not torch.equal(changed(0), changed(1))


def test_the_same_seed_gives_the_same_scores(transfer: Made) -> None:
    first, again = (trained_scores(transfer(device=DEVICE)) for _ in range(2))

    np.testing.assert_allclose(first, again, rtol=1e-3, atol=1e-3)


def test_a_resumed_training_ends_as_an_undisturbed_one(transfer: Made, monkeypatch) -> None:
    monkeypatch.setattr("medtl.training.checkpoints.LEAST", 0.0)
    expected = trained_scores(transfer(device=DEVICE, epochs=3))
    made = transfer(device=DEVICE, epochs=3)

    def killed(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), CheckpointHold() as ends:
        made.train("layer3", made.recipe("adam", 1e-3), killed, ends)

    np.testing.assert_allclose(trained_scores(made), expected, rtol=1e-2, atol=1e-2)


def test_bf16_gives_the_scores_of_float32_to_its_precision(transfer: Made) -> None:
    scores = [
        trained_scores(transfer(device=DEVICE, precision=precision), "layer4")
        for precision in ("float32", "bf16")
    ]

    correlation = np.corrcoef(scores[0].ravel(), scores[1].ravel())[0, 1]
    assert correlation > 0.95


def test_the_gpu_gives_the_scores_of_the_processor(transfer: Made) -> None:
    made = [transfer(device=device, precision="float32") for device in ("cpu", DEVICE)]

    on_processor, on_gpu = (
        each.linear_head(
            cut(
                network := each.backbone.copy().to(each.device),
                resolve(network, "small_resnet", "head"),
                each.image_size,
            )
        )
        for each in made
    )

    assert on_gpu.valid_auroc == pytest.approx(on_processor.valid_auroc, abs=0.01)


@pytest.mark.parametrize("name", ["cudagraphs", "inductor"])
@pytest.mark.parametrize("cutoff", ["layer4", "head"])
def test_faster_steps_give_the_scores_of_launched_ones(
    transfer: Made, cutoff: str, name: str
) -> None:
    launched, faster = (
        trained_scores(transfer(device=DEVICE, precision="float32", compile=compile), cutoff)
        for compile in ("none", name)
    )

    np.testing.assert_allclose(faster, launched, rtol=1e-2, atol=1e-2)


def test_a_lack_of_memory_is_one_line() -> None:
    with pytest.raises(OutOfMemoryError, match="lower batch_size"), enough_memory(32, 224):
        torch.empty(1 << 50, dtype=torch.uint8, device=DEVICE)


def test_half_the_batch_is_tried_when_memory_is_short(transfer: Made, monkeypatch, capsys) -> None:
    made = transfer(device=DEVICE)
    original, sizes = TransferLearner._train_on, []

    def short(self, network, cutoff, recipe, *rest):
        sizes.append(recipe.batch_size)
        if recipe.batch_size > 16:
            with enough_memory(recipe.batch_size, self.image_size):
                torch.empty(1 << 50, dtype=torch.uint8, device=DEVICE)
        return original(self, network, cutoff, recipe, *rest)

    monkeypatch.setattr(TransferLearner, "_train_on", short)
    trained = made.train("layer4", dataclasses.replace(made.recipe("adam", 1e-3), batch_size=32))

    assert sizes == [32, 16]
    assert trained.halved == 16
    assert "trained with 16" in capsys.readouterr().err


def scores_in_process(table: str, cache: str, results: multiprocessing.Queue) -> None:
    """Trains in a process of its own; puts the scores into `results`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDTL_CACHE", cache)
        dataset = load(table, 48, seed=0)
        network = build("small_resnet", len(dataset.classes), 48, seed=0)
        expected = Preprocessing((0.5,) * 3, (0.25,) * 3, 48)
        backbone = Backbone("small_resnet", "random", network, expected)
        settings = TrainSettings(epochs=2, views=2, device=DEVICE)
        results.put(trained_scores(TransferLearner(backbone, dataset, settings)))


def test_two_processes_share_one_gpu(phantom_csv: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=scores_in_process, args=(str(phantom_csv), str(tmp_path), results))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    first, second = (results.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()

    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3)
