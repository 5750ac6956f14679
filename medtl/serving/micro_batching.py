"""Batches images of concurrent requests into small forward passes."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from medtl.inference.predictor import Answers

Result = TypeVar("Result")


class MicroBatcher:
    """Runs a network in one thread, for any number of threads that ask.

    One, because a pass uses all cores, and each thread that computes gets a crew of threads that
    would compete with the others. While it is at work requests gather, and a few images together
    cost less than one after the other; many cost more, for what lies between two layers then
    leaves the processor's cache.
    """

    def __init__(self, answer: Callable[[np.ndarray], Answers], most: int) -> None:
        """`answer` is `Predictor.answer`; a pass takes at most so many images."""
        self._answer, self._most = answer, most
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[tuple[np.ndarray, Future[Answers]]] = deque()

    def answer(self, images: np.ndarray) -> Answers:
        """What `answer` says of stored pixels [B, ...], or raises, in passes with those of others.

        Others change what is answered by rounding at most.
        """
        asked = []
        for begin in range(0, len(images), self._most):
            future: Future[Answers] = Future()
            self._waiting.append((images[begin : begin + self._most], future))
            self._thread.submit(self._pass)
            asked.append(future)
        return _joined([future.result() for future in asked])

    def alone(self, compute: Callable[..., Result], *arguments: object) -> Result:
        """What `compute` gives or raises, in a turn of its own."""
        return self._thread.submit(compute, *arguments).result()

    def _pass(self) -> None:
        taken: list[tuple[np.ndarray, Future[Answers]]] = []
        while self._waiting and self._fits(taken, self._waiting[0][0]):
            taken.append(self._waiting.popleft())
        if not taken:
            return  # an earlier pass took them along
        try:
            answers = self._answer(np.concatenate([images for images, _ in taken]))
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
    return Answers(*(None if value is None else value[begin:end] for value in _values(answers)))


def _joined(parts: list[Answers]) -> Answers:
    values = zip(*map(_values, parts), strict=True)
    return Answers(*(None if each[0] is None else np.concatenate(each) for each in values))


def _values(answers: Answers) -> list[np.ndarray | None]:
    return [getattr(answers, field.name) for field in dataclasses.fields(answers)]
