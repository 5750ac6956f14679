"""A clock that jumps drops nothing that is alive, and lets nothing pile up."""

from __future__ import annotations

import os
import time

import pytest

from medtl.cache import ABANDONED, atomic_directory, cache_root, kept_folder
from medtl.training import activation_store, checkpoints
from medtl.training.checkpoints import Checkpoint

DAYS = 24 * 3600


def left_by_a_kill(kind: str, name: str, age: float):
    """A folder with a file, as if it had been written `age` seconds ago."""
    folder = cache_root() / kind / name
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(bytes(1000))
    set_clock(folder, age)
    return folder


def set_clock(folder, age: float) -> None:
    at = time.time() - age
    for path in (*folder.iterdir(), folder):
        os.utime(path, (at, at))


@pytest.mark.parametrize("jump", [-400 * DAYS, 400 * DAYS])
def test_what_is_written_while_the_clock_jumps_is_whole(jump):
    folder = kept_folder("things", "key")
    with atomic_directory(folder) as unfinished:
        (unfinished / "first").write_text("one")
        set_clock(unfinished, jump)  # all so far was written under another clock
        (unfinished / "second").write_text("two")
        with atomic_directory(kept_folder("things", "other")):
            pass  # another process begins, and clears what was abandoned
    assert (folder / "first").read_text() == "one"


@pytest.mark.parametrize("age", [2 * ABANDONED, -2 * ABANDONED])
def test_what_a_kill_left_is_cleared_though_it_comes_from_the_future(age):
    left = left_by_a_kill("things", ".unfinished-dead", age)
    young = left_by_a_kill("things", ".unfinished-alive", 60)
    with atomic_directory(kept_folder("things", "key")):
        pass
    assert not left.exists()
    assert young.exists()


@pytest.mark.parametrize("age", [400 * DAYS, -400 * DAYS])
def test_kept_activations_stay_within_their_budget_and_checkpoints_go_on(age, monkeypatch):
    old = left_by_a_kill(activation_store.KIND, "entry", age)
    assert activation_store.make_room(900, budget=1000)
    assert not old.exists()

    monkeypatch.setattr(checkpoints, "LEAST", 0.0)
    checkpoint = Checkpoint("key")
    checkpoint.keep(1, lambda: {"epoch": 1})
    (place,) = (cache_root() / checkpoints.KIND).iterdir()
    given_up = left_by_a_kill(checkpoints.KIND, "another-000001", age)
    set_clock(place, 3600 if age > 0 else -3600)
    assert checkpoint.found() == {"epoch": 1}
    assert not given_up.exists()
