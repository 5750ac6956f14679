"""Damaged files of every format are read or refused in one line, in bounds of time and memory.

`python -m benchmarks fuzz` does the same with more files.
"""

from __future__ import annotations

import io
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from benchmarks.damage import damaged, whole_files
from benchmarks.fuzz import IMAGE, REFUSED, Outcome, outcomes
from medtl.data.dicom_metadata import read_headers
from medtl.data.manifest import read_table
from medtl.errors import LONGEST, MedtlError
from medtl.imaging import gdcm_client
from medtl.imaging.decode import decode
from medtl.imaging.pixels import UnreadableImage

FILES = 1500
LOSSLESS = Path(pydicom.__file__).parent / "data" / "test_files" / "SC_rgb_jpeg_gdcm.dcm"


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    return list(outcomes(range(FILES), seed=1))


def test_damaged_files_are_read_or_refused(found):
    assert [each for each in found if not each.good] == []
    assert [each.number for each in found] == list(range(FILES))
    counts = Counter((each.kind, each.what) for each in found)
    for kind in whole_files():
        assert counts[kind, IMAGE] > 0, f"{kind}: all harm is so great that none gets far"
        assert counts[kind, REFUSED] > FILES / len(whole_files()) / 10, kind


def test_memory_does_not_grow_with_files(found):
    assert found[-1].resident - found[FILES // 4].resident < 64


def test_the_same_number_and_seed_do_the_same_harm():
    files = [[damaged(number, seed) for number in range(13)] for seed in (3, 3, 4)]
    assert files[0] == files[1] != files[2]
    assert [kind for kind, _ in files[0]] == list(whole_files())


def test_a_decoder_that_ends_costs_one_image():
    whole = decode(LOSSLESS.read_bytes())
    decoder = gdcm_client._idle().get_nowait()
    decoder._process.kill()
    gdcm_client._idle().put(decoder)
    with pytest.raises(UnreadableImage, match="damaged: its decoder crashed"):
        decode(LOSSLESS.read_bytes())
    assert np.array_equal(decode(LOSSLESS.read_bytes()), whole)


def test_a_decoder_that_hangs_is_ended(monkeypatch):
    decode(LOSSLESS.read_bytes())
    decoder = gdcm_client._idle().get_nowait()
    gdcm_client._idle().put(decoder)
    decoder._process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(gdcm_client, "SECONDS", 0.1)
    with pytest.raises(UnreadableImage, match=r"not decoded in 0\.1 seconds"):
        decode(LOSSLESS.read_bytes())
    assert decoder._process.returncode is not None


def test_a_damaged_header_tells_nothing_and_stops_nothing(tmp_path):
    deflated = next(iter(whole_files()["DICOM deflated"]))
    (tmp_path / "cut.dcm").write_bytes(deflated[: len(deflated) // 2])
    (tmp_path / "whole.dcm").write_bytes(whole_files()["DICOM plain"][0])
    table = read_headers([tmp_path / "cut.dcm", tmp_path / "whole.dcm"])
    assert table["patient"].str.startswith("P-").tolist() == [False, True]


@pytest.mark.parametrize(("claimed", "told"), [("9" * 11, None), ("9" * 5000, 1)])
def test_a_file_has_no_more_frames_than_bytes(claimed, told, tmp_path):
    header = pydicom.dcmread(io.BytesIO(whole_files()["DICOM plain"][0]))
    header["NumberOfFrames"] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("NumberOfFrames"), "IS", len(claimed), claimed.encode(), 0, False, True
    )
    header.save_as(tmp_path / "many.dcm")
    size = (tmp_path / "many.dcm").stat().st_size
    assert read_headers([tmp_path / "many.dcm"])["frames"].tolist() == [told or size]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,label, path\na.png,x,b.png\n", "has the column path twice"),
        ('"pa\nth",label\na.png,x\n', "it has pa th, label"),
        ("path,label\na\0.png,x\n", "no file at its path"),
        ("path,label" + "," * 5000 + "\na.png,x\n", "5002 columns, more than 1000"),
        (
            "path,label\na.png,x\n" + "b" * 100_000 + ".png,y\n",
            r"row 3: bbb.*b \.\.\. b.*paths start",
        ),
    ],
)
def test_what_harm_to_a_csv_has_shown(text, reason, write_image, tmp_path):
    write_image(tmp_path / "a.png", 0)
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(MedtlError, match=reason) as refusal:
        read_table(str(tmp_path / "labels.csv"))
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < LONGEST + 10
