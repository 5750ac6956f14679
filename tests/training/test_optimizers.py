"""Optimizers: what a step costs, and that it is the step of PyTorch's plain loop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medtl.training.loop import build_optimizer


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_step_is_one_operation_for_all_parameters_of_a_group(name) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    plain = copy.deepcopy(network)
    optimizer, loop = (build_optimizer(name, each, 0.01, 0.1) for each in (network, plain))
    for group in loop.param_groups:
        group["fused"], group["foreach"] = False, False
    inputs = torch.randn(8, 5)
    for each, steps in ((network, optimizer), (plain, loop)):
        for _ in range(3):
            steps.zero_grad()
            each(inputs).square().sum().backward()
            with torch.profiler.profile() as profile:
                steps.step()
        fused = [e.count for e in profile.key_averages() if e.key.startswith("aten::_fused_")]
        assert sum(fused) == (2 if each is network else 0)
    torch.testing.assert_close(network.state_dict(), plain.state_dict())
