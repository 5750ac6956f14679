"""Files of several frames or pages give the first, the one asked for, or a sample a frame."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from medtl.data.loading import load
from medtl.errors import MedtlError, ParameterError
from medtl.imaging.decode import decode
from medtl.imaging.pixels import UnreadableImage, square
from medtl.settings.data import Reading
from medtl.settings.training import TrainSettings


@pytest.fixture
def clinic(tmp_path, write_dicom, write_image) -> Path:
    """Classes a and b of five files each: three frames, and in b one file that has one frame."""
    for seed in range(5):
        for kind in "ab":
            frames = 1 if (kind, seed) == ("b", 0) else 3
            place = tmp_path / "clinic" / kind / f"{seed}.dcm"
            write_dicom(place, 10 * seed + ord(kind), frames)
    return tmp_path / "clinic"


def tiff(pages: np.ndarray) -> bytes:
    file = io.BytesIO()
    first, *others = (Image.fromarray(page) for page in pages)
    first.save(file, "TIFF", save_all=True, append_images=others)
    return file.getvalue()


def test_the_first_frame_is_usual_and_the_reader_is_told(clinic):
    dataset = load(str(clinic), 5, seed=0)
    assert len(dataset.frame) == 10
    assert any("of 9 files with several frames the first was taken" in n for n in dataset.notes)
    expected = square(decode((clinic / dataset.frame["path"][0]).read_bytes()), 5)
    assert np.array_equal(dataset.images(np.array([0]))[0], expected)


def test_a_frame_by_its_number(clinic):
    dataset = load(str(clinic), 5, seed=0, reading=Reading(frames="3"))
    for index, path in enumerate(dataset.frame["path"]):
        expected = square(decode((clinic / path).read_bytes(), 3), 5)
        assert np.array_equal(dataset.images(np.array([index]))[0], expected), path
    assert dataset.fingerprint != load(str(clinic), 5, seed=0).fingerprint
    with pytest.raises(MedtlError, match=r"9 of 10 .*3 frames, and no frame 4"):
        load(str(clinic), 5, seed=0, reading=Reading(frames="4"))


def test_all_frames_are_samples_of_one_file_in_one_split(clinic):
    dataset = load(str(clinic), 5, seed=0, reading=Reading(frames="all"))
    frame = dataset.frame
    assert len(frame) == len(dataset.labels) == 9 * 3 + 1
    assert {"a/0.dcm#1", "a/0.dcm#3", "b/0.dcm", "b/4.dcm#2"} <= set(frame["path"])
    files = frame["path"].str.partition("#")[0]
    assert frame.groupby(files)["split"].nunique().max() == 1
    assert frame.groupby(files)["label"].nunique().max() == 1
    assert len(np.unique(dataset.patients)) == 10
    for index in range(len(frame)):
        name, _, number = frame["path"][index].partition("#")
        expected = square(decode((clinic / name).read_bytes(), int(number or 1)), 5)
        assert np.array_equal(dataset.images(np.array([index]))[0], expected)
    assert any("9 files with several frames gave 27 samples" in note for note in dataset.notes)


def test_frames_stay_with_their_patient(tmp_path, write_dicom):
    rows = ["path,label,patient"]
    for number in range(16):
        write_dicom(tmp_path / f"{number}.dcm", number, frames=2)
        rows.append(f"{number}.dcm,{'ab'[number // 2 % 2]},p{number // 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    dataset = load(str(tmp_path / "labels.csv"), 5, seed=0, reading=Reading(frames="all"))
    assert dataset.frame["patient"].value_counts().to_dict() == {f"p{n}": 4 for n in range(8)}
    assert dataset.frame.groupby("patient")["split"].nunique().max() == 1


def test_pages_of_tiff_files_alike(tmp_path):
    root = tmp_path / "scans"
    for number in range(10):
        pages = np.random.default_rng(number).integers(0, 65536, (2, 6, 7), dtype=np.uint16)
        place = root / "ab"[number % 2] / f"{number}.tif"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(tiff(pages))
    told = "of several pages or frames of a picture the first is taken (frames=first): 10 of 10"
    dataset = load(str(root), 5, seed=0)
    assert len(dataset.frame) == 10
    assert any(note.startswith(told) for note in dataset.notes)
    for frames, count in (("all", 20), ("1", 10)):
        dataset = load(str(root), 5, seed=0, reading=Reading(frames=frames))
        assert len(dataset.frame) == len(np.unique(dataset.frame["content"])) == count
        assert not any("the first is taken" in note for note in dataset.notes)
        if frames == "all":
            assert dataset.frame.groupby("patient")["split"].nunique().max() == 1


def test_a_page_of_sixteen_bits():
    pages = np.array([[[0, 65535]], [[65535, 0]]], np.uint16)
    assert decode(tiff(pages)).tolist() == [[0, 65535]]
    assert decode(tiff(pages), 2).tolist() == [[65535, 0]]
    with pytest.raises(UnreadableImage, match="the file has 2 pages, and no page 3"):
        decode(tiff(pages), 3)


def test_each_frame_of_an_enhanced_file_has_its_own_window(tmp_path, write_dicom):
    def group(slope: float, centre: float) -> pydicom.Dataset:
        values, window, frame = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        values.RescaleSlope, values.RescaleIntercept = slope, 0
        window.WindowCenter, window.WindowWidth = centre, 2000
        window.VOILUTFunction = "LINEAR_EXACT"
        frame.PixelValueTransformationSequence, frame.FrameVOILUTSequence = [values], [window]
        return frame

    groups = [group(1, 1000), group(2, 1000)]
    file = write_dicom(tmp_path / "mr.dcm", 0, 2, PerFrameFunctionalGroupsSequence=groups)
    stored = pydicom.dcmread(file).pixel_array.astype(float)
    for number, slope in ((1, 1), (2, 2)):
        expected = np.clip(slope * stored[number - 1] / 2000, 0, 1) * 65535
        assert np.abs(decode(file.read_bytes(), number) - expected).max() <= 0.5


def test_all_frames_are_no_images_of_cases(tmp_path, write_dicom):
    rows = ["path,label,case,modality"]
    for number in range(8):
        write_dicom(tmp_path / f"{number}.dcm", number, frames=2)
        rows.append(f"{number}.dcm,{'ab'[number // 2 % 2]},c{number // 2},t{number % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(ParameterError, match="frames=all is not allowed: first or a number"):
        load(str(tmp_path / "labels.csv"), 5, seed=0, reading=Reading(frames="all"))


@pytest.mark.parametrize("frames", ["0", "-1", "last", "", "1.5"])
def test_other_values_are_refused_at_the_door(frames):
    with pytest.raises(ParameterError, match="first, all, or a number from 1"):
        TrainSettings(frames=frames)
