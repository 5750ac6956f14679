from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

import pytest
import torch

from medtl.cache import kept_folder
from medtl.training import activation_store
from medtl.training.activation_store import Kept, OutOfRangeError


def crossing(count: int, seed: int = 0) -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 4, 5, generator=generator)
    tokens = torch.randn(count, 7, generator=generator)
    return [(images[at : at + 4], tokens[at : at + 4]) for at in range(0, count, 4)]


def keep(key: str, batches: Iterable[tuple[torch.Tensor, ...]], count: int) -> Kept:
    with activation_store.writing(key, count) as write:
        for batch in batches:
            write(batch)
    return activation_store.find(key)


def test_what_is_kept_reads_back_to_sixteen_bits_in_the_shape_in_which_it_crossed():
    batches = crossing(10)
    kept = keep("key", batches, 10)
    images, tokens = activation_store.find("key").batch([9, 0, 3])
    assert len(kept) == 10
    assert torch.equal(images[1], batches[0][0][0].half().float())
    assert torch.equal(tokens[0], batches[2][1][1].half().float())
    assert images.shape == (3, 3, 4, 5)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_nothing_is_left_when_the_pass_breaks_off():
    def broken():
        yield crossing(4)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep("key", broken(), 8)
    folder = kept_folder(activation_store.KIND, "key")
    assert activation_store.find("key") is None
    assert list(folder.parent.iterdir()) == []


def test_an_entry_with_a_flipped_bit_is_dropped_and_made_again():
    keep("key", crossing(4), 4)
    path = kept_folder(activation_store.KIND, "key") / "0.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert activation_store.find("key") is None
    assert not path.exists()
    assert len(keep("key", crossing(4), 4)) == 4


def test_a_truncated_entry_is_dropped():
    keep("key", crossing(4), 4)
    path = kept_folder(activation_store.KIND, "key") / "1.npy"
    os.truncate(path, path.stat().st_size - 2)
    assert activation_store.find("key") is None


def test_a_value_beyond_sixteen_bits_is_an_error_and_leaves_nothing():
    with pytest.raises(OutOfRangeError):
        keep("key", [(torch.full((2, 3), 1e6),)], 2)
    assert activation_store.find("key") is None


def test_the_entries_used_longest_ago_make_room_first():
    for name in ("old", "used", "new"):
        keep(name, crossing(8), 8)
    folders = {name: kept_folder(activation_store.KIND, name) for name in ("old", "used", "new")}
    for age, name in enumerate(("new", "used", "old")):
        os.utime(folders[name], (1e9 - age, 1e9 - age))
    os.utime(folders["new"], (1e9, 1e9))
    activation_store.find("used")
    size = sum(path.stat().st_size for path in folders["old"].iterdir())
    assert activation_store.make_room(size, budget=3 * size + size // 2)
    assert not folders["old"].exists()
    assert folders["used"].exists()
    assert folders["new"].exists()
    assert not activation_store.make_room(5 * size, budget=4 * size)
    assert folders["used"].exists(), "nothing is dropped for what can never fit"


def test_a_batch_stays_readable_when_its_entry_is_dropped():
    kept = keep("key", crossing(8), 8)
    shutil.rmtree(kept_folder(activation_store.KIND, "key"))
    assert kept.batch([0])[0].shape == (1, 3, 4, 5)
