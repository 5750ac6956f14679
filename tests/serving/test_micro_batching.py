"""Requests that wait for the network share a pass, and each gets its own part of it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from medtl.inference.predictor import Answers, Predictor
from medtl.serving.micro_batching import MicroBatcher
from medtl.serving.thread_count import fastest_thread_count


def asked_while_busy(passes: MicroBatcher, requests: list[np.ndarray]) -> list[Future[Answers]]:
    """What comes of requests that all gather behind something else."""
    free = threading.Event()
    with ThreadPoolExecutor(len(requests) + 1) as clients:
        clients.submit(passes.alone, free.wait, 60)
        asked = [clients.submit(passes.answer, images) for images in requests]
        time.sleep(0.5)  # less than all of them would still pass, in more passes
        free.set()
    return asked


def test_those_that_wait_share_passes_of_a_bounded_size(bundle: Predictor, pixels):
    taken: list[int] = []

    def answer(images: np.ndarray) -> Answers:
        taken.append(len(images))
        return bundle.answer(images)

    requests = [pixels(1 + seed % 3, seed) for seed in range(9)]
    asked = asked_while_busy(MicroBatcher(answer, most=8), requests)
    for images, future in zip(requests, asked, strict=True):
        expected, found = bundle.answer(images), future.result()
        np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-5)
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.in_domain.tolist() == expected.in_domain.tolist()
    assert sum(taken) == sum(map(len, requests))
    assert max(taken) <= 8
    assert len(taken) < len(requests)


def test_a_large_request_is_answered_in_order_over_several_passes(bundle: Predictor, pixels):
    images = pixels(11, 3)
    found, expected = MicroBatcher(bundle.answer, most=4).answer(images), bundle.answer(images)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-5)
    assert found.in_domain.tolist() == expected.in_domain.tolist()


def test_images_of_another_kind_have_a_pass_of_their_own(bundle: Predictor, pixels):
    grey = pixels(1, 1)
    deep, colour = grey.astype(np.uint16) * 257, np.repeat(grey, 3, axis=1)
    requests = [grey, deep, colour, grey]
    for images, future in zip(
        requests, asked_while_busy(MicroBatcher(bundle.answer, most=8), requests), strict=True
    ):
        expected = bundle.answer(images).probabilities
        np.testing.assert_allclose(future.result().probabilities, expected, rtol=1e-5)


def test_what_goes_wrong_is_told_to_those_that_asked_and_to_no_later_one(bundle: Predictor, pixels):
    passes = MicroBatcher(bundle.answer, most=8)
    wrong = np.zeros((1, 1, 3, 3), np.uint8)  # too small for the network
    for future in asked_while_busy(passes, [wrong, wrong]):
        assert isinstance(future.exception(), RuntimeError)
    images = pixels(2, 2)
    np.testing.assert_allclose(
        passes.answer(images).probabilities, bundle.answer(images).probabilities, rtol=1e-5
    )


def test_what_is_computed_alone_gives_its_result_or_raises(bundle: Predictor):
    passes = MicroBatcher(bundle.answer, most=8)
    assert passes.alone(max, 3, 4) == 4
    with pytest.raises(ZeroDivisionError):
        passes.alone(divmod, 1, 0)


def test_one_image_has_the_number_of_threads_that_was_fastest(
    bundle: Predictor, pixels, request: pytest.FixtureRequest
):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    used: list[tuple[int, int]] = []

    def answer(images: np.ndarray) -> Answers:
        threads = torch.get_num_threads()
        used.append((len(images), threads))
        time.sleep(0.01 * threads if len(images) == 1 else 0)
        return bundle.answer(images)

    passes = MicroBatcher(answer, most=8)
    passes.alone(torch.set_num_threads, 2)
    assert passes.choose_threads(pixels(1, 1)) == 1
    used.clear()
    passes.answer(pixels(1, 2))
    passes.answer(pixels(3, 3))
    assert used == [(1, 1), (3, 2)]
    assert passes.alone(torch.get_num_threads) == 2


@pytest.mark.parametrize(
    ("seconds", "expected"), [({1: 3, 2: 1, 4: 2, 6: 0}, 2), ({1: 3, 2: 2, 4: 1, 6: 0}, 6)]
)
def test_numbers_of_threads_are_tried_until_one_is_slower(
    seconds: dict[int, int], expected: int, monkeypatch: pytest.MonkeyPatch
):
    threads = [6]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: threads.__setitem__(0, count))
    count = fastest_thread_count(lambda: time.sleep(0.005 * seconds[threads[0]]))
    assert (count, threads[0]) == (expected, 6)
