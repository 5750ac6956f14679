"""Likely patients in paths are found, and running numbers are not."""

from __future__ import annotations

import hashlib
import re
import uuid
from random import Random

import pandas as pd
import pytest

from medtl.data.patients import Likely, likely_patients


def likely(paths: list[str]) -> Likely | None:
    labels = [path.split("/")[0] for path in paths]
    columns = {"path": paths, "label": labels, "patient": "", "split": ""}
    return likely_patients(pd.DataFrame(columns))


PEOPLE = [f"{kind}/person{n}_{kind}_{i}.jpeg" for kind, first in (("bacteria", 0), ("virus", 12))
          for n in range(first, first + 12) for i in range(3)]  # fmt: skip
SLIDES = [f"{kind}/SOB_{kind[0]}_14-{n}/{zoom}/SOB-14-{n}-{zoom[:-1]}-{i:03}.png"
          for kind, first in (("benign", 100), ("malignant", 200)) for n in range(first, first + 8)
          for zoom in ("40X", "100X") for i in range(2)]  # fmt: skip
SLIDES_IN_NAMES = [f"{path.split('/')[0]}/{path.rsplit('/', 1)[1]}" for path in SLIDES]
EYES = [f"{n % 3}/{n}_{side}.jpeg" for n in range(30) for side in ("left", "right")]
BESIDE = [f"NORMAL/{start}-{n:04}-{i:04}.jpeg" for start in ("IM", "NORMAL2-IM") for n in range(12)
          for i in range(2)]  # fmt: skip
SUBJECTS = [f"files/p1{n % 2}/p100{n}/s50{n}{i}/{i:08x}.jpg" for n in range(30) for i in range(3)]
XRAYS = [f"images/{n:08}_{i:03}.png" for n in range(30) for i in range(3)]
PATCHES = [f"train/{n}/{n}_idx5_x{100 * i + 1}_y{50 * i + 1}.png" for n in range(8863, 8893)
           for i in range(6)]  # fmt: skip
LETTERS = [f"a/{n:03}{letter}.png" for n in range(12) for letter in "ab"]


@pytest.mark.parametrize(
    ("paths", "count", "of_patient"),
    [
        (PEOPLE, 24, r"person\d+"),
        (SLIDES, 16, r"14-\d+"),
        (SLIDES_IN_NAMES, 16, r"14-\d+"),
        (EYES, 30, r"\d+(?=_(left|right))"),
        (SUBJECTS, 30, r"p100\d+"),
        (XRAYS, 30, r"\d{8}"),
        (PATCHES, 30, r"\d+(?=_idx)"),
        (LETTERS, 12, r"\d+"),
        (PEOPLE + BESIDE, 48, r"person\d+|(NORMAL2-)?IM-\d+"),
    ],
)
def test_the_pattern_gives_each_patient_one_name(paths, count, of_patient):
    found = likely(paths)
    assert found.count == count
    named = [re.search(found.pattern, path)[1] for path in paths]
    truth = [re.search(of_patient, path)[0] for path in paths]
    pairs = set(zip(named, truth, strict=True))
    assert len(pairs) == len(set(named)) == len(set(truth)) == count
    assert f"patient_pattern='{found.pattern}'" in found.line()


UUIDS = [f"a/{uuid.UUID(int=Random(n).getrandbits(128), version=4)}.png" for n in range(300)]
HASHES = [f"a/{hashlib.md5(str(n).encode()).hexdigest()}.png" for n in range(300)]


@pytest.mark.parametrize(
    "paths",
    [
        [f"{kind}/{n}.png" for kind in "ab" for n in range(40)],
        [f"{kind}/{kind} ({n}).png" for kind in "ab" for n in range(40)],
        [f"a/COVID-19_{n:03}.png" for n in range(40)],
        [f"a/ISIC_{n:07}.jpg" for n in range(24306, 24406)],
        [f"a/scan_1024x768_{n}.png" for n in range(60)],
        [f"images_{n // 5:03}/images/{n:08}.png" for n in range(60)],
        [f"a/2021-05-{n % 28 + 1:02}_{n}.png" for n in range(60)],
        [f"{n % 7}/{n:05}.png" for n in range(60)],
        UUIDS,
        HASHES,
    ],
)
def test_nothing_is_found_in_names_that_are_counted_or_drawn(paths):
    assert likely(paths) is None


def test_where_patients_are_known_nothing_is_looked_for():
    frame = pd.DataFrame({"path": PEOPLE, "label": "a", "patient": PEOPLE, "split": ""})
    assert likely_patients(frame) is None
