"""Folders and CSV files become the same table, or one line says what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtl.data.manifest import data_name, read_table
from medtl.errors import MedtlError, ParameterError
from medtl.settings.data import Reading


def write_csv(folder: Path, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return str(folder / "labels.csv")


@pytest.fixture
def four(tmp_path, write_image) -> Path:
    """A folder of four images, a.png to d.png."""
    for seed, name in enumerate("abcd"):
        write_image(tmp_path / "clinic" / f"{name}.png", seed)
    return tmp_path / "clinic"


def test_a_folder_of_classes(write_folder):
    table = read_table(str(write_folder({"sick": 2, "healthy": 3})))
    assert table.name == "scans"
    assert table.classes == ("healthy", "sick")
    assert table.frame["path"].tolist()[0] == "healthy/000.png"
    assert table.frame["label"].tolist() == ["healthy"] * 3 + ["sick"] * 2
    assert set(table.frame["split"]) == set(table.frame["patient"]) == {""}
    assert all(file.is_file() for file in table.files())


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("abnormal", "normal"), ("normal", "abnormal")),
        (("1", "0"), ("0", "1")),
        (("malignant", "benign"), ("benign", "malignant")),
        (("cat", "dog"), ("cat", "dog")),
        (("abnormal", "normal", "other"), ("abnormal", "normal", "other")),
    ],
)
def test_of_two_classes_the_finding_is_the_second(write_folder, labels, classes):
    assert read_table(str(write_folder(dict.fromkeys(labels, 2)))).classes == classes


def test_images_may_lie_deeper_than_their_class(write_folder):
    table = read_table(str(write_folder({"sick/2021/may": 2, "healthy": 2})))
    assert table.frame["label"].tolist() == ["healthy"] * 2 + ["sick"] * 2


def test_a_folder_of_splits_in_other_words(write_folder):
    names = {"Training/a": 2, "Training/b": 2, "val/a": 1, "val/b": 1, "testing/b": 1}
    table = read_table(str(write_folder(names)))
    assert table.classes == ("a", "b")
    assert table.frame["split"].value_counts().to_dict() == {"train": 4, "valid": 2, "test": 1}


def test_other_files_are_no_images(write_folder):
    root = write_folder({"a": 2, "b": 2})
    for name in ("a/notes.txt", "a/.hidden.png", "a/Thumbs.db", "labels.xlsx"):
        (root / name).write_bytes(b"x")
    (root / ".git").mkdir()
    assert len(read_table(str(root)).frame) == 4


def test_dicom_files_are_known_without_a_suffix(write_folder):
    root = write_folder({"a": 2, "b": 2})
    for name in ("IM0001", "1.2.840.113619"):
        (root / "b" / name).write_bytes(b"\0" * 128 + b"DICM")
    (root / "b" / "README").write_bytes(b"text")
    assert len(read_table(str(root)).frame) == 6


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ({"a": 3}, "all 3 images are of one class, a"),
        ({"a": 3, "b": 1}, "a class with one image.*b"),
        ({".": 2}, "none in a folder that names their class"),
        ({"train/a": 2, "train/b": 2, "extra": 1}, "beside others \\(extra\\)"),
    ],
)
def test_folders_that_cannot_be_learned_from(write_folder, classes, reason):
    with pytest.raises(MedtlError, match=reason):
        read_table(str(write_folder(classes)))


def test_a_folder_without_images(tmp_path):
    with pytest.raises(MedtlError, match="holds no images"):
        read_table(str(tmp_path))


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet", "breastmnist.npz"])
@pytest.mark.parametrize("images", [0, 2])
def test_a_folder_without_classes_names_the_table_to_give(write_folder, name, images):
    root = write_folder({".": images})
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(b"path,label")
    with pytest.raises(MedtlError, match=rf"pass data=\S+/{name} to read that file, or put them"):
        read_table(str(root))


@pytest.mark.parametrize("data", ["", "/nowhere/at/all", "phantom"])
def test_what_is_not_there_is_a_wrong_parameter(data):
    with pytest.raises(ParameterError, match=f"data={data} is not allowed: no such folder"):
        read_table(data)


def test_a_csv_keeps_its_columns(four):
    text = "path,label,patient,split,age\na.png,x,p1,train,07\nb.png,x,p1,Train,8\n"
    text += f"c.png,y,NA,val,\n{four / 'd.png'}, y ,,TEST,9\n"
    table = read_table(write_csv(four, text))
    assert table.name == "clinic"
    assert table.classes == ("x", "y")
    assert table.frame["patient"].tolist() == ["p1", "p1", "", ""]
    assert table.frame["split"].tolist() == ["train", "train", "valid", "test"]
    assert table.frame["age"].tolist() == ["07", "8", "", "9"]
    assert all(file.is_file() for file in table.files())


def test_a_csv_with_the_byte_order_mark_of_excel(four):
    text = "\ufeffpath,label\na.png,x\nb.png,x\nc.png,ä\nd.png,ä\n"
    assert read_table(write_csv(four, text)).classes == ("x", "ä")


@pytest.mark.parametrize("name", ["labels.csv", "Clinic.csv", "test.csv", "Data_Entry_2017.csv"])
def test_a_csv_of_its_folder_is_called_like_it_beside_others(four, name):
    for file in (name, "other.csv"):
        (four / file).write_text("path,label\na.png,x\n")
    assert data_name(str(four / name)) == "clinic"
    assert data_name(str(four)) == "clinic"


def test_two_questions_in_one_folder_have_names_of_their_own(four):
    text = "path,label\na.png,x\nb.png,x\nc.png,y\nd.png,y\n"
    (four / "pneumonia.csv").write_text(text)
    (four / "scores.csv").write_text("image,score\n")
    assert data_name(str(four / "pneumonia.csv")) == "clinic"
    (four / "inverted.csv").write_text("PATH, Label\n")
    assert data_name(str(four / "inverted.csv")) == "clinic-inverted"
    table = read_table(str(four / "pneumonia.csv"))
    assert (table.name, table.source) == ("clinic-pneumonia", "clinic")


def test_a_csv_that_is_a_link_belongs_to_the_folder_of_the_link(four):
    (four.parent / "far").mkdir()
    (four.parent / "far" / "real.csv").write_text("path,label\n")
    (four / "linked.csv").symlink_to(four.parent / "far" / "real.csv")
    assert data_name(str(four / "linked.csv")) == "clinic"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,label\na.png,x\n", "lacks the column path; it has file, label"),
        ("path,label\n", "lists no images"),
        ("", "cannot be read as a CSV"),
        ("path,label\na.png,x,1,2\nb.png,x\n", "more fields than there are column names"),
        ("path,label\na.png,x\nb.png,\n", "1 row has no label \\(row 3: b.png\\)"),
        ("path,label\n,x\nb.png,y\n", "1 row has no path \\(row 2: \\(empty\\)\\)"),
        ("path,label\na.png,x\nb.png,x|none\n", "a finding beside the word for none"),
        ("path,label,split\na.png,x,dev\n", "1 row has an unknown split \\(row 2: a.png\\)"),
        ("path,label\na.png,x\n../b.png,x\n", "leaves .*row 3: ../b.png"),
        ("path,label\n/etc/passwd,x\n", "leaves .*row 2: /etc/passwd"),
        ("path,label\na.png,x\n./a.png,y\n", "named before \\(row 3: ./a.png\\)"),
        (
            "path,label\na.png,x\n" + "".join(f"{n}.png,x\n" for n in range(5)),
            "5 rows have no file at its path \\(row 3: 0.png, row 4: 1.png, row 5: 2.png, ...\\)",
        ),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(four, text, reason):
    with pytest.raises(MedtlError, match=reason) as refusal:
        read_table(write_csv(four, text))
    assert "\n" not in str(refusal.value)


def test_a_folder_beside_with_the_same_beginning_is_outside(four, write_image):
    write_image(four.parent / "clinic-2" / "e.png", 9)
    with pytest.raises(MedtlError, match="leaves"):
        read_table(write_csv(four, "path,label\n../clinic-2/e.png,x\n"))


def test_a_link_out_of_the_folder_is_outside_unless_allowed(four, write_image):
    elsewhere = four.parent / "disk" / "far"
    for seed, name in enumerate("ef", start=7):
        write_image(elsewhere / f"{name}.png", seed)
    (four / "mounted").symlink_to(elsewhere)
    (four / "f.png").symlink_to(elsewhere / "f.png")
    (four / "inside.png").symlink_to(four / "d.png")
    paths = ["a.png", "inside.png", "mounted/e.png", "f.png"]
    text = "path,label\n" + "".join(f"{path},{'xxyy'[n]}\n" for n, path in enumerate(paths))
    refused = r"2 rows have a path that leaves .*row 4: mounted/e.png, row 5: f.png.*outside=allow"
    with pytest.raises(MedtlError, match=refused):
        read_table(write_csv(four, text))
    assert (
        read_table(write_csv(four, text), Reading(outside="allow")).frame["path"].tolist() == paths
    )


def test_a_step_up_from_a_link_is_taken_where_the_link_leads(four, write_image):
    write_image(four.parent / "disk" / "g.png", 9)
    (four.parent / "disk" / "far").mkdir()
    (four / "mounted").symlink_to(four.parent / "disk" / "far")
    write_image(four / "g.png", 8)
    with pytest.raises(MedtlError, match=r"leaves .*row 3: mounted/\.\./g\.png"):
        read_table(write_csv(four, "path,label\na.png,x\nmounted/../g.png,y\n"))


def test_paths_anywhere_are_read_where_they_are_allowed(four, write_image):
    far = write_image(four.parent / "disk" / "e.png", 9)
    near = write_image(four.parent / "beside.png", 8)
    text = f"path,label\na.png,x\nb.png,x\n{far},y\n../beside.png,y\n"
    with pytest.raises(MedtlError, match="2 rows have a path that leaves"):
        read_table(write_csv(four, text))
    files = read_table(write_csv(four, text), Reading(outside="allow")).files()
    assert [file.resolve() for file in files[2:]] == [far, near]
