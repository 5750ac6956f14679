from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from medtl.errors import ParameterError
from medtl.training.device import resolve_device, resolve_precision

FAULTS = """
import resource, sys, torch
from medtl.training.device import reuse_freed_memory
if sys.argv[1] == "reuse":
    reuse_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(20):
    torch.zeros(64_000_000 // 4)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory is tuned on Linux")
def test_freed_memory_is_used_again_without_the_kernel():
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))
        for how in ("reuse", "default")
    }
    assert faults["default"] > 20 * 64_000_000 / 2**21, "each time, even if in huge pages"
    assert faults["reuse"] < faults["default"] / 2


def test_unknown_devices_are_refused_by_name():
    for name in ("gpu", "cuda:99", "cuda:x"):
        with pytest.raises(ParameterError, match="device"):
            resolve_device(name)


def test_a_gpu_is_named_as_its_tensors_name_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)

    found = [resolve_device(name) for name in ("auto", "cuda", "cuda:1")]

    assert current == [torch.device("cuda", 1)]

    assert found == [torch.device("cuda", 0), torch.device("cuda", 0), torch.device("cuda", 1)]


def test_a_precision_that_is_asked_for_is_taken():
    cpu = torch.device("cpu")
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("float32", cpu) == "float32"
    assert resolve_precision("auto", cpu) in ("bf16", "float32")
