"""Faster training steps on a GPU: replayed as a CUDA graph, or compiled by Inductor.

A step of a small suffix takes the GPU microseconds, and Python the longer time to launch its
kernels. A CUDA graph launches all kernels of a step at once: those of the forward pass, the loss,
the backward pass and the optimizer. Inductor fuses kernels, which pays where steps are long, and
takes about a minute to compile.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from medtl.errors import MedtlError

NONE, CUDA_GRAPHS, INDUCTOR = "none", "cudagraphs", "inductor"

WARM_UP = 3  # steps before a measurement; libraries choose their kernels in the first ones
MEASURED = 5  # steps of a measurement
FASTER = 0.9  # largest share of the time of a launched step that a replayed one may take

Step = Callable[[tuple[Tensor, ...], Tensor, np.ndarray], Tensor]
"""Trains on one batch: its tensors at the cut, labels and rows; returns the detached loss."""
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Records a step without arguments; returns its replay, and the tensor that receives the loss."""


def capture_cuda_graph(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Captures the kernels of a step as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = run()
    return graph.replay, loss


class ReplayedStep:
    """Training step that replays a captured one, if that is faster.

    The first call measures both on its batch, then restores the weights, the state of the optimizer
    and the random numbers: both give the same weights, so that the clock does not decide a result.
    The learning rates of the optimizer become tensors, which a graph reads when it is replayed.
    All batches have the shape of the first one.
    """

    def __init__(
        self,
        step: Step,
        trained: nn.Module,
        optimizer: torch.optim.Optimizer,
        capture: Capture = capture_cuda_graph,
    ) -> None:
        """Describes the step.

        Args:
            step: step that launches each kernel.
            trained: module whose parameters and buffers it changes.
            optimizer: optimizer that it calls, after a checkpoint has been restored.
            capture: records the step.
        """
        self._step, self._trained, self._optimizer = step, trained, optimizer
        self._capture = capture
        self._chosen: Step | None = None

    def __call__(self, inputs: tuple[Tensor, ...], labels: Tensor, rows: np.ndarray) -> Tensor:
        """Trains on a batch.

        Raises:
            MedtlError: the step cannot be captured, nor launched after the attempt.
        """
        if self._chosen is None:
            self._chosen = self._faster(inputs, labels, rows)
        return self._chosen(inputs, labels, rows)

    def _faster(self, inputs: tuple[Tensor, ...], labels: Tensor, rows: np.ndarray) -> Step:
        own_inputs, own_labels = tuple(tensor.clone() for tensor in inputs), labels.clone()

        def run() -> Tensor:
            return self._step(own_inputs, own_labels, rows)

        _make_capturable(self._optimizer, labels.device)
        before = _State(self._trained, self._optimizer, labels.device)
        _warm_up(run, labels.device)
        launched = _seconds(run, labels.device)
        try:
            replay, loss = self._capture(run)
            replayed = _seconds(replay, labels.device)
        except RuntimeError as error:
            self._check_launch(run, error)
            before.restore()
            return self._step
        before.restore()
        if replayed > FASTER * launched:
            return self._step

        def step(inputs: tuple[Tensor, ...], labels: Tensor, rows: np.ndarray) -> Tensor:
            for own, given in zip(own_inputs, inputs, strict=True):
                own.copy_(given)
            own_labels.copy_(labels)
            replay()
            return loss

        return step

    def _check_launch(self, run: Callable[[], Tensor], error: RuntimeError) -> None:
        """Checks that steps still run after a failed capture, which may have ended midway."""
        reason = " ".join(str(error).split())[:200]
        try:
            run().item()
        except RuntimeError:
            raise MedtlError(
                f"the training step cannot be captured ({reason}); set compile=none"
            ) from error
        print(f"note: the training step is not captured ({reason})", file=sys.stderr)


def compiled(module: nn.Module) -> Callable[..., Tensor]:
    """Returns a module compiled by Inductor; it runs as it is where the compilation fails."""
    made: Callable[..., Tensor] = torch.compile(module, dynamic=False)
    chosen: Callable[..., Tensor] | None = None

    def forward(*inputs: Tensor) -> Tensor:
        nonlocal chosen
        if chosen is not None:
            return chosen(*inputs)
        try:
            output = made(*inputs)
        except torch.OutOfMemoryError:
            raise
        # compilers fail with almost any exception
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            print(f"note: the trained layers are not compiled ({reason})", file=sys.stderr)
            chosen = module
            return module(*inputs)
        chosen = made
        return output

    return forward


class _State:
    """Copy of everything that a step changes."""

    def __init__(
        self, trained: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> None:
        self._tensors = [
            (tensor, tensor.detach().clone())
            for tensor in (*trained.parameters(), *trained.buffers())
        ]
        self._optimizer = optimizer
        self._moments = {
            parameter: {
                name: value.clone() for name, value in state.items() if isinstance(value, Tensor)
            }
            for parameter, state in optimizer.state.items()
        }
        self._device = device
        self._random = torch.get_rng_state()
        self._random_on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @torch.no_grad()
    def restore(self) -> None:
        """Restores all values in the same memory, whose addresses a graph holds."""
        for tensor, value in self._tensors:
            tensor.copy_(value)
        for parameter, state in self._optimizer.state.items():
            before = self._moments.get(parameter, {})
            for name, value in state.items():
                # of an optimizer without steps, all moments and counts are 0
                if isinstance(value, Tensor):
                    value.copy_(before[name]) if name in before else value.zero_()
        torch.set_rng_state(self._random)
        if self._random_on_gpu is not None:
            torch.cuda.set_rng_state(self._random_on_gpu, self._device)


def _make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Turns each value that changes between steps into a tensor on the device."""
    for group in optimizer.param_groups:
        # a checkpoint is loaded to the CPU, and a graph would keep the value of a rate there
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
        if device.type == "cuda" and "capturable" in group:
            group["capturable"] = True
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(device)


def _warm_up(run: Callable[[], Tensor], device: torch.device) -> None:
    if device.type != "cuda":
        run()
        return
    # as PyTorch demands before a capture: gradients belong to no stream but one that waits
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds of some calls, to the end of their work on the device."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(MEASURED):
        run()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
