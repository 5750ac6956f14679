"""Every image of a folder is read once, and omitted files are counted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.data.image_files import find_images, images_below, suffix
from medtl.data.loading import load
from medtl.data.manifest import read_table
from medtl.data.printable_names import on_disk, printable, printable_text
from medtl.imaging.decode import decode
from medtl.settings.data import Reading


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.pgm", "PPM"),
        ("x.ppm", "PPM"),
        ("x.pbm", "PPM"),
        ("x.PNM", "PPM"),
        ("x.jfif", "JPEG"),
        ("x.jpe", "JPEG"),
        ("x.jp2", "JPEG2000"),
        ("x.j2k", "JPEG2000"),
        ("x.dib", "DIB"),
        ("x.PNG", "PNG"),
        ("without", "PNG"),
        ("IM.0001", "JPEG"),
    ],
)
def test_pictures_of_every_format_are_found_and_decoded(tmp_path, name, kind):
    mode = "1" if name.endswith("pbm") else "L"
    Image.fromarray(np.tile(np.uint8([0, 255]), (16, 8))).convert(mode).save(tmp_path / name, kind)
    (found,) = images_below(tmp_path)
    assert found.name == name
    pixels = decode(found.read_bytes())
    assert pixels.shape == (16, 16)
    assert np.ptp(pixels.astype(int)) > 200


def test_deep_grey_of_other_formats_keeps_its_depth(tmp_path):
    values = np.linspace(0, 4095, 64, dtype=np.uint16).reshape(8, 8)
    for name in ("x.pgm", "x.jp2"):
        Image.fromarray(values).save(tmp_path / name)
        pixels = decode((tmp_path / name).read_bytes())
        assert pixels.dtype == np.uint16
        assert len(np.unique(pixels)) == 64


def test_what_is_no_image_is_counted_by_suffix(write_folder):
    root = write_folder({"a": 2, "b/deep": 2})
    for name in ("a/1.heic", "a/2.HEIC", "b/deep/s.svs", "a/x.dcm.gz", "a/raw.ima", "b/notes"):
        (root / name).write_bytes(b"x")
    notes = read_table(str(root)).notes
    assert notes[0].startswith("files that are no images left out, 2 .heic, ")
    assert notes[0].endswith(": 6 (a/1.heic, a/2.HEIC, a/raw.ima, ...)")
    for part in ("1 .svs", "1 .dcm.gz", "1 .ima", "1 without a suffix"):
        assert part in notes[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.PNG", ".png"),
        ("1.2.840.113", ""),
        ("README", ""),
        ("x.dcm.gz", ".dcm.gz"),
        ("x.gz", ".gz"),
        ("scan of Dr. Miller", ""),
        ("v1.longer-than-any", ""),
    ],
)
def test_suffixes(name, expected):
    assert suffix(name) == expected


def test_hidden_and_system_folders_do_not_count_at_any_depth(write_folder, write_image):
    root = write_folder({"a": 2, "b/deep": 2})
    junk = (
        "@eaDir/0.png/THUMB.jpg", "a/.ipynb_checkpoints/0.png", "b/deep/__MACOSX/._0.png",
        "$RECYCLE.BIN/x.png", "b/lost+found/#1.png", "a/._000.png",
        "System Volume Information/a.png",
    )  # fmt: skip
    for name in junk:
        write_image(root / name, 1)
    for name in ("a/Thumbs.db", "desktop.ini", ".DS_Store"):
        (root / name).write_bytes(b"x")
    table = read_table(str(root))
    assert len(table.frame) == 4
    (note,) = [note for note in table.notes if "hidden" in note]
    assert note.startswith(
        "hidden images, and those in hidden or system folders, left out: 7 ($REC"
    )
    assert not any("Thumbs" in note or ".db" in note for note in table.notes)


def test_each_real_folder_is_read_once_wherever_links_lead(write_folder, tmp_path, write_image):
    root = write_folder({"a": 2, "b": 2, "z": 2})
    write_image(tmp_path / "disk" / "far" / "9.png", 99)
    for place, target in (
        ("a/self", "."),
        ("a/up", "../.."),
        ("a/first", root / "z"),
        ("b/round", root),
        ("b/far", tmp_path / "disk" / "far"),
        ("b/again", tmp_path / "disk" / "far"),
        ("a/gone.png", "nowhere.png"),
    ):
        (root / place).symlink_to(target)
    (tmp_path / "disk" / "far" / "back").symlink_to(root)
    found = find_images(root)
    names = ["a/000.png", "a/001.png", "b/000.png", "b/001.png", "b/again/9.png", "z/000.png"]
    assert found.images == [*names, "z/001.png"]
    notes = read_table(str(root)).notes
    assert "links to folders that are read elsewhere, not followed: 6 (a/first, a/self, a/up, ...)"\
        in notes  # fmt: skip
    assert "links that lead nowhere, left out: 1 (a/gone.png)" in notes


def test_a_class_may_be_a_link_to_another_place(write_folder, tmp_path, write_image):
    root = write_folder({"a": 2})
    for seed in range(2):
        write_image(tmp_path / "disk" / f"{seed}.png", 50 + seed)
    (root / "b").symlink_to(tmp_path / "disk")
    assert read_table(str(root)).frame["label"].tolist() == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    "kind",
    [
        "1.2.840.10008.5.1.4.1.1.88.33",
        "1.2.840.10008.5.1.4.1.1.11.1",
        "1.2.840.10008.5.1.4.1.1.66.4",
        "1.2.840.10008.5.1.4.1.1.104.1",
        "1.2.840.10008.5.1.4.1.1.481.5",
        "1.2.840.10008.1.3.10",
    ],
)
def test_dicom_files_without_an_image_are_left_out_by_their_header(write_folder, write_dicom, kind):
    root = write_folder({"a": 2, "b": 2})
    write_dicom(root / "a" / "image.dcm", 7)
    for name in ("report.dcm", "IM0009"):
        write_dicom(root / "a" / name, 8, SOPClassUID=kind)
    table = read_table(str(root))
    assert len(table.frame) == 5
    assert any(note.endswith("left out: 2 (a/IM0009, a/report.dcm)") for note in table.notes)


def test_siemens_files_are_dicom_by_content(write_folder, write_dicom):
    root = write_folder({"a": 2, "b": 2})
    write_dicom(root / "a" / "scan.IMA", 7)
    assert len(read_table(str(root)).frame) == 5


AWKWARD = (b"caf\xe9.png", b"two\nlines.png", "café.png".encode(), b"back\\xslash.png", b"\xff\xfe")


@pytest.mark.parametrize("name", AWKWARD)
def test_a_file_is_found_by_its_printable_name(tmp_path, name):
    place = tmp_path / os.fsdecode(name)
    place.write_bytes(b"x")
    shown = printable(place.name)
    assert shown.isprintable()
    assert shown.encode()
    assert on_disk(tmp_path, shown) == place


def test_names_that_are_no_text_are_read_and_shown_with_escapes(write_folder, tmp_path):
    root = write_folder({"normal": 20, "ill": 20})
    os.rename(root / "normal" / "003.png", bytes(root / "normal") + b"/caf\xe9.png")
    os.rename(root / "normal" / "004.png", root / "normal" / "a\nb.png")
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/r\xe9sum\xe9"))
    os.rename(root, odd)
    (odd / "ill" / os.fsdecode(b"\xe9.png")).write_bytes(b"")
    os.rename(odd / "ill", odd / os.fsdecode(b"\xe9"))
    dataset = load(str(odd), 5, seed=0, reading=Reading(unreadable="skip"))
    assert dataset.name == r"r\xe9sum\xe9"
    assert dataset.classes == ("normal", r"\xe9")
    assert {r"normal/caf\xe9.png", r"normal/a\x0ab.png"} <= set(dataset.frame["path"])
    assert any(r"\xe9/\xe9.png: the file is empty" in note for note in dataset.notes)
    pd.DataFrame(dataset.frame).to_csv(tmp_path / "frame.csv")
    assert "\n".join(dataset.notes).encode()
    again = load(printable(str(odd)), 5, seed=0, reading=Reading(unreadable="skip"))
    assert again.fingerprint == dataset.fingerprint


def test_text_with_a_name_that_is_no_text_can_be_stored():
    assert printable_text("/data/r\udce9sum\udce9") == r"/data/r\xe9sum\xe9"
    assert printable_text("C:\\data\\café\n") == "C:\\data\\café\n"
