"""A disk that is really full costs what would have been kept on it, and nothing of the training."""

from __future__ import annotations

import torch

from medtl.cache import cache_root
from medtl.training import checkpoints


def test_a_training_goes_on_without_what_finds_no_room(transfer, small_disk, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "LEAST", 0.0)

    def trained(keep: str):
        made = transfer(keep=keep, epochs=3)
        return made, made.train("layer4", made.recipe("adam", 1e-2)).network.state_dict()

    _, expected = trained("never")
    monkeypatch.setenv("MEDTL_CACHE", str(small_disk(64)))
    capsys.readouterr()
    made, state = trained("always")
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    (note,) = made.activation_cache.notes.values()
    assert note.startswith("computed anew each epoch: cannot write to ")
    assert "No space left on device); free some disk" in note
    assert capsys.readouterr().err.count("note: no checkpoint of this training is kept") == 1
    assert [path for path in cache_root().rglob("*") if path.is_file()] == []
