"""Replayed steps train as launched ones; a processor stands in for the GPU that replays them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medtl.errors import MedtlError
from medtl.training import compiled_step
from medtl.training.compiled_step import (
    CUDA_GRAPHS,
    INDUCTOR,
    ReplayedStep,
    Step,
    capture_cuda_graph,
    compiled,
)
from medtl.training.learner import TransferLearner
from medtl.training.loop import build_optimizer

DEVICE = os.environ.get("GPU_TESTS_ON", "cuda")
OPTIMIZERS = ["adam", "adamw", "sgd", "rmsprop"]


def replayed_here(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records a step as `capture_cuda_graph` does, by calling it anew."""
    loss = run().clone()
    return lambda: loss.copy_(run()) and None, loss


class Training:
    """Small network with batch norm and dropout, its optimizer and its step."""

    def __init__(self, optimizer: str, device: str = "cpu") -> None:
        torch.manual_seed(0)
        # no bias before the norm: its gradient is rounding, which Adam takes for a direction
        first, last = nn.Linear(6, 8, bias=False), nn.Linear(8, 3)
        layers = (first, nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), last)
        self.network = nn.Sequential(*layers).to(device)
        self.optimizer = build_optimizer(optimizer, self.network, 1e-2, 0.1)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda at: 0.9**at)
        # each batch in memory of its own: sums differ with the alignment of their operands
        self.inputs = [each.clone() for each in torch.randn(5, 7, 6).to(device)]
        self.labels = torch.randint(3, (5, 7)).to(device)

    def step(self, inputs: tuple[Tensor, ...], labels: Tensor, rows: np.ndarray) -> Tensor:
        loss = nn.functional.cross_entropy(self.network(*inputs), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def train(self, step: Step, batches: slice = slice(None)) -> tuple[list[float], Tensor]:
        """Returns the losses of the batches, and the weights and statistics after them."""
        losses = []
        for inputs, labels in zip(self.inputs[batches], self.labels[batches], strict=True):
            losses.append(step((inputs,), labels, np.arange(7)).item())
            self.schedule.step()
        state = self.network.state_dict().values()
        return losses, torch.cat([value.flatten().float() for value in state]).cpu()


def outcome(
    optimizer: str, capture: compiled_step.Capture | None, device: str = "cpu"
) -> tuple[list[float], Tensor]:
    """Trains from the same weights; None for steps that are launched only."""
    training = Training(optimizer, device)
    made = ReplayedStep(training.step, training.network, training.optimizer, capture or _none)
    torch.manual_seed(1)
    return training.train(training.step if capture is None else made)


def _none(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    raise AssertionError


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_replayed_step_trains_as_a_launched_one(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = outcome(optimizer, None)
    monkeypatch.setattr(compiled_step, "FASTER", float("inf"))
    replayed = outcome(optimizer, replayed_here)
    monkeypatch.setattr(compiled_step, "FASTER", 0.0)
    launched = outcome(optimizer, replayed_here)

    assert replayed[0] == launched[0]
    assert torch.equal(replayed[1], launched[1])
    torch.testing.assert_close(replayed[1], plain[1], rtol=1e-5, atol=1e-6)
    assert len(set(plain[0])) == 5


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_cuda_graph_trains_as_launched_kernels(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_step, "FASTER", float("inf"))
    replayed = outcome(optimizer, capture_cuda_graph, DEVICE)
    monkeypatch.setattr(compiled_step, "FASTER", 0.0)
    launched = outcome(optimizer, capture_cuda_graph, DEVICE)

    torch.testing.assert_close(replayed[1], launched[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(replayed[1], outcome(optimizer, None)[1], rtol=1e-2, atol=5e-1)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_resumed_training_keeps_its_moments(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_step, "FASTER", float("inf"))
    whole, resumed = Training(optimizer), Training(optimizer)
    torch.manual_seed(1)
    whole.train(whole.step, slice(3))
    for part in ("network", "optimizer", "schedule"):
        state = copy.deepcopy(getattr(whole, part).state_dict())
        getattr(resumed, part).load_state_dict(state)
    random = torch.get_rng_state()
    _, expected = whole.train(whole.step, slice(3, None))

    torch.set_rng_state(random)
    step = ReplayedStep(resumed.step, resumed.network, resumed.optimizer, replayed_here)
    _, found = resumed.train(step, slice(3, None))

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_learning_rates_of_a_checkpoint_move_to_the_device(tmp_path: Path) -> None:
    whole, resumed, place = Training("adam"), Training("adam"), tmp_path / "state.pt"
    compiled_step._make_capturable(whole.optimizer, torch.device("cpu"))
    whole.train(whole.step, slice(1))
    torch.save(whole.optimizer.state_dict(), place)
    resumed.optimizer.load_state_dict(torch.load(place, map_location="cpu"))

    compiled_step._make_capturable(resumed.optimizer, torch.device("meta"))

    assert {group["lr"].device.type for group in resumed.optimizer.param_groups} == {"meta"}


def test_a_step_that_cannot_be_captured_is_launched(capsys: pytest.CaptureFixture[str]) -> None:
    def refused(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        run()
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    _, found = outcome("adam", refused)

    torch.testing.assert_close(found, outcome("adam", None)[1], rtol=1e-5, atol=1e-6)
    note = "note: the training step is not captured (operation not permitted when stream is"
    assert capsys.readouterr().err.startswith(note)


def test_steps_that_fail_after_a_capture_are_one_line() -> None:
    training, broken = Training("adam"), []

    def step(inputs: tuple[Tensor, ...], labels: Tensor, rows: np.ndarray) -> Tensor:
        if broken:
            raise RuntimeError("offset increment outside graph capture")
        return training.step(inputs, labels, rows)

    def refused(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        broken.append(True)
        raise RuntimeError("operation not permitted")

    made = ReplayedStep(step, training.network, training.optimizer, refused)
    with pytest.raises(MedtlError, match=r"\(operation not permitted\); set compile=none"):
        training.train(made)


def test_layers_that_cannot_be_compiled_are_computed_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def refused(*inputs: Tensor) -> Tensor:
        calls.append(inputs)
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: refused)
    layer = nn.Linear(2, 2)
    forward = compiled(layer)

    for _ in range(2):
        assert torch.equal(forward(torch.ones(1, 2)), layer(torch.ones(1, 2)))
    assert len(calls) == 1
    assert "not compiled (Failed to find C compiler)" in capsys.readouterr().err


@pytest.mark.parametrize("name", [CUDA_GRAPHS, INDUCTOR])
def test_the_parameter_is_without_effect_on_a_processor(
    transfer: Callable[..., TransferLearner], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    scores = [
        made.train("layer4", made.recipe("adam", 1e-3)).fit.valid_logits
        for made in (transfer(), transfer(compile=name))
    ]

    np.testing.assert_array_equal(*scores)
    assert "compile is for GPUs" in capsys.readouterr().err


def test_a_training_by_replayed_steps_gives_the_scores_of_launched_ones(
    transfer: Callable[..., TransferLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = transfer().train("layer4", transfer().recipe("adam", 1e-3)).fit
    on_gpu = transfer(compile=CUDA_GRAPHS)
    monkeypatch.setattr(compiled_step, "FASTER", float("inf"))
    monkeypatch.setattr("medtl.training.learner.NONE", CUDA_GRAPHS)
    steps = []

    def made(*parts) -> ReplayedStep:
        steps.append(ReplayedStep(*parts, capture=replayed_here))
        return steps[0]

    monkeypatch.setattr("medtl.training.loop.ReplayedStep", made)
    found = on_gpu.train("layer4", on_gpu.recipe("adam", 1e-3)).fit

    assert steps
    np.testing.assert_allclose(found.valid_logits, expected.valid_logits, rtol=1e-4, atol=1e-4)
    losses = [[epoch.train_loss for epoch in each.epochs] for each in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
