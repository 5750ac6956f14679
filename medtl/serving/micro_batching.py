"""Batches images of concurrent requests into small forward passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from medtl.inference.predictor import Answers
from medtl.serving.thread_count import compute_threads, fastest_thread_count

Result = TypeVar("Result")


class MicroBatcher:
    """Runs the forward passes of all requests in one thread.

    A pass of several images uses all cores, and each computing thread has its own OpenMP threads,
    which would compete for them. Requests that arrive during a pass are batched: a few images
    together take less time than one after the other. Large batches take more, as activations exceed
    the processor's cache.
    """

    def __init__(self, answer: Callable[[np.ndarray], Answers], most: int) -> None:
        """Sets the function of a pass, `Predictor.answer`, and its largest number of images."""
        self._answer, self._most = answer, most
        self._threads_of_one = 0  # as many as PyTorch has
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[tuple[np.ndarray, Future[Answers]]] = deque()

    def answer(self, images: np.ndarray) -> Answers:
        """Answers stored pixels [B, ...] in passes shared with other requests.

        Sharing changes the result by rounding at most. Errors of the pass are raised.
        """
        futures = []
        for begin in range(0, len(images), self._most):
            future: Future[Answers] = Future()
            self._waiting.append((images[begin : begin + self._most], future))
            self._thread.submit(self._pass)
            futures.append(future)
        return _joined([future.result() for future in futures])

    def choose_threads(self, image: np.ndarray) -> int:
        """Measures with how many threads a pass of one image is fastest; uses and returns it.

        Args:
            image: stored pixels [1, ...].
        """
        measured = partial(self._answer, image)
        self._threads_of_one = self.alone(fastest_thread_count, measured)
        return self._threads_of_one

    def alone(self, compute: Callable[..., Result], *arguments: object) -> Result:
        """Runs `compute` between two passes and returns its result, or raises its error."""
        return self._thread.submit(compute, *arguments).result()

    def _pass(self) -> None:
        taken: list[tuple[np.ndarray, Future[Answers]]] = []
        while self._waiting and self._fits(taken, self._waiting[0][0]):
            taken.append(self._waiting.popleft())
        if not taken:
            return  # an earlier pass included them
        together = np.concatenate([images for images, _ in taken])
        try:
            if len(together) == 1 and self._threads_of_one:
                with compute_threads(self._threads_of_one):
                    answers = self._answer(together)
            else:
                answers = self._answer(together)
        except BaseException as error:
            for _, future in taken:
                future.set_exception(error)
            return
        begin = 0
        for images, future in taken:
            future.set_result(_part(answers, begin, begin + len(images)))
            begin += len(images)

    def _fits(self, taken: list[tuple[np.ndarray, Future[Answers]]], images: np.ndarray) -> bool:
        if not taken:
            return True
        first = taken[0][0]
        if first.dtype != images.dtype or first.shape[1:] != images.shape[1:]:
            return False
        return sum(len(each) for each, _ in taken) + len(images) <= self._most


def _part(answers: Answers, begin: int, end: int) -> Answers:
    distances = answers.distances
    return Answers(
        answers.probabilities[begin:end],
        answers.labels[begin:end],
        answers.decisions[begin:end],
        None if distances is None else distances[begin:end],
    )


def _joined(parts: list[Answers]) -> Answers:
    distances = [each.distances for each in parts if each.distances is not None]
    return Answers(
        np.concatenate([each.probabilities for each in parts]),
        np.concatenate([each.labels for each in parts]),
        np.concatenate([each.decisions for each in parts]),
        np.concatenate(distances) if distances else None,
    )
