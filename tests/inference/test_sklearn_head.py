from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest
import skops.io

from medtl.errors import MedtlError
from medtl.inference.sklearn_head import SklearnHead
from medtl.training.classical_head import select_classical_head


def separable(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(120) % classes
    features = generator.normal(size=(120, 12)) + 2.0 * np.eye(12)[labels]
    return features.astype(np.float32), labels


def test_a_file_with_other_types_is_refused(tmp_path):
    skops.io.dump(pytest.approx, tmp_path / "tail.skops")
    with pytest.raises(MedtlError, match="not trusted"):
        SklearnHead.load(tmp_path / "tail.skops")


def test_a_payload_in_a_file_is_refused_and_not_run(tmp_path, payload):
    classical = select_classical_head("logistic", 0, *separable(2), *separable(2), "none", seed=0)
    classical.head.save(tmp_path / "whole.skops")
    poisoned = np.array([payload], dtype=object)
    np.save(tmp_path / "objects.npy", poisoned, allow_pickle=True)
    objects = (tmp_path / "objects.npy").read_bytes()
    with (
        zipfile.ZipFile(tmp_path / "whole.skops") as whole,
        zipfile.ZipFile(tmp_path / "arrays.skops", "w") as arrays,
        zipfile.ZipFile(tmp_path / "function.skops", "w") as function,
    ):
        for name in whole.namelist():
            data = whole.read(name)
            arrays.writestr(name, objects if name.endswith(".npy") else data)
            renamed = data.replace(b"sklearn.pipeline", b"os").replace(b"Pipeline", b"makedirs")
            function.writestr(name, renamed)
    (tmp_path / "pickle.skops").write_bytes(pickle.dumps(payload))
    (tmp_path / "cut.skops").write_bytes((tmp_path / "whole.skops").read_bytes()[:400])
    skops.io.dump(np.arange(3), tmp_path / "array.skops")
    for name in ("arrays", "function", "pickle", "cut", "array"):
        with pytest.raises(MedtlError, match=f"{name}.skops") as refused:
            SklearnHead.load(tmp_path / f"{name}.skops")
        assert "\n" not in str(refused.value)
    assert not os.path.exists(payload.folder)
