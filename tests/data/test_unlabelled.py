"""Lists of unlabelled images: folders, tables, single files; nothing is opened or lost."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from medtl.data.unlabelled import read_unlabelled
from medtl.errors import MedtlError, ParameterError
from medtl.settings.prediction import PredictSettings

T1_T2 = ("T1", "T2")


def table(folder: Path, text: str, name: str = "list.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of empty files with the names of images."""
    root = tmp_path / "inbox"
    for name in ("b/2.png", "b/10.dcm", "a/1.jpg", "notes.txt", ".hidden/3.png", "volume.nii.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_folder_is_read_at_any_depth_and_what_is_left_out_is_counted(images: Path):
    found = read_unlabelled(PredictSettings(data=str(images)), ())
    assert found.frame["path"].tolist() == ["a/1.jpg", "b/10.dcm", "b/2.png", "volume.nii.gz"]
    assert found.files(1, 3) == [[images / "b/10.dcm"], [images / "b/2.png"]]
    assert found.name == "inbox"
    assert any("1 .txt" in note for note in found.notes)
    assert any(note.startswith("hidden images") for note in found.notes)


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path):
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "a.svs").touch()
    with pytest.raises(MedtlError, match=r"holds no images \(but 1 \.svs\)"):
        read_unlabelled(PredictSettings(data=str(tmp_path / "slides")), ())


def test_one_file_is_one_row(images: Path):
    found = read_unlabelled(PredictSettings(data=str(images / "a/1.jpg")), ())
    assert found.files(0, 1) == [[images / "a/1.jpg"]]


def test_a_table_keeps_its_order_and_all_of_its_columns(images: Path):
    data = table(images, "ward,Path,label\n7,b\\2.png,x\n8,a/1,y\n9,gone.png,\n10,,z\n")
    found = read_unlabelled(PredictSettings(data=data), ())
    assert list(found.frame) == ["path", "ward", "label"]
    assert found.frame["path"].tolist() == ["b/2.png", "a/1.jpg", "gone.png", ""]
    assert found.frame["ward"].tolist() == ["7", "8", "9", "10"]
    assert found.files(2, 4) == [[images / "gone.png"], [None]]
    assert len(found.notes) == 2


def test_columns_and_pattern_name_the_paths(images: Path):
    data = table(images, "path;image_id\nnone;2\nnone;3\n")
    settings = PredictSettings(data=data, columns="path:image_id", path_pattern="b/{}.png")
    found = read_unlabelled(settings, ())
    assert found.frame.to_dict("list") == {
        "path": ["b/2.png", "b/3.png"],
        "csv_path": ["none", "none"],
    }


def test_a_table_without_paths_says_which_column_may_hold_them(images: Path):
    data = table(images, "id,file\n1,gone.png\n2,b/2.png\n")
    with pytest.raises(MedtlError, match="if file holds them, pass columns=path:file"):
        read_unlabelled(PredictSettings(data=data), ())
    with pytest.raises(ParameterError, match=r"of the columns of list\.csv: id, file"):
        read_unlabelled(PredictSettings(data=data, columns="path:image"), ())


def test_paths_out_of_the_folder_are_refused_unless_allowed(images: Path, tmp_path: Path):
    (tmp_path / "other.png").touch()
    data = table(images, "path\n../other.png\n")
    with pytest.raises(MedtlError, match="outside=allow"):
        read_unlabelled(PredictSettings(data=data), ())
    found = read_unlabelled(PredictSettings(data=data, outside="allow"), ())
    assert found.files(0, 1) == [[images / "../other.png"]]


def test_cases_are_rows_of_images_or_rows_of_cases(tmp_path: Path):
    by_image = table(
        tmp_path,
        "case,modality,path,age\nc2,T2,2b.png,50\nc1,T1,1a.png,60\nc2,T1,2a.png,50\nc1,CT,1c.png,60\n",
    )
    found = read_unlabelled(PredictSettings(data=by_image), T1_T2)
    expected = {
        "case": ["c2", "c1"],
        "image_T1": ["2a.png", "1a.png"],
        "image_T2": ["2b.png", ""],
        "age": ["50", "60"],
    }
    assert found.frame.to_dict("list") == expected
    assert found.files(1, 2) == [[tmp_path / "1a.png", None]]
    assert any(note.startswith("1 images of modalities") for note in found.notes)
    by_case = pd.DataFrame(expected)
    by_case.to_parquet(tmp_path / "cases.parquet")
    again = read_unlabelled(PredictSettings(data=str(tmp_path / "cases.parquet")), T1_T2)
    assert again.frame.to_dict("list") == expected


@pytest.mark.parametrize(
    ("text", "modalities", "told"),
    [
        ("path\n", (), "lists no images"),
        ("path\na.png\n", T1_T2, "give the columns image_T1, image_T2, or case, modality and path"),
        ("image_T1,image_T2\na.png,b.png\n", (), "takes single images"),
        ("case,modality,path\nc,CT,a.png\n", T1_T2, "no images of T1, T2"),
        ("case,modality,path\nc,T1,a.png\nc,T1,b.png\n", T1_T2, "a modality that its case has"),
    ],
)
def test_a_table_of_other_samples_is_refused_in_one_line(tmp_path: Path, text, modalities, told):
    with pytest.raises(MedtlError, match=told):
        read_unlabelled(PredictSettings(data=table(tmp_path, text)), modalities)


def test_a_model_of_cases_does_not_guess_cases_from_a_folder(images: Path):
    with pytest.raises(MedtlError, match="takes cases of T1, T2"):
        read_unlabelled(PredictSettings(data=str(images)), T1_T2)
