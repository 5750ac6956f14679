"""Code stored with a served model decodes every compression without this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.compressed import compressed_files
from medtl.imaging.decode import decode
from medtl.tracking.logged_model import copy_served_code

ASK = """
import json, pathlib, sys
import medtl
from medtl.imaging.decode import decode
assert medtl.__file__.startswith(sys.argv[1]), medtl.__file__
for file in sys.argv[2:]:
    pixels = decode(pathlib.Path(file).read_bytes())
    print(json.dumps([str(pixels.dtype), pixels.tolist()]))
"""


def test_every_compression_is_decoded_by_the_code_that_is_carried(tmp_path: Path):
    folder = tmp_path / "code"
    copy_served_code(folder)
    places = []
    for name, (compressed, _) in compressed_files().items():
        places.append(tmp_path / f"{name}.dcm")
        places[-1].write_bytes(compressed)
    environment = os.environ | {"PYTHONPATH": str(folder)}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(folder), *map(str, places)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 0, asked.stderr
    answers = [json.loads(line) for line in asked.stdout.splitlines()]
    for (name, (_, plain)), (dtype, pixels) in zip(
        compressed_files().items(), answers, strict=True
    ):
        expected = decode(plain)
        assert dtype == str(expected.dtype), name
        assert np.array_equal(pixels, expected), name
