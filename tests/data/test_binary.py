"""Two classes out of many labels, in every kind of data."""

from __future__ import annotations

import pandas as pd
import pytest

from medtl.data.label_encoding import two_classes
from medtl.data.loading import load
from medtl.data.manifest import read_table
from medtl.errors import MedtlError, ParameterError
from medtl.settings.data import Reading

LABELS = pd.Series(["No Finding", "Mass", "Mass|Nodule", "Effusion", "normal | Nodule", "Edema|"])


@pytest.mark.parametrize(
    ("positive", "called", "which"),
    [
        ("Mass", "Mass", [1, 2]),
        ("mass", "mass", [1, 2]),
        ("Nodule, Edema", "Edema or Nodule", [2, 4, 5]),
        ("Edema,Nodule,Edema", "Edema or Nodule", [2, 4, 5]),
        ("Mass,Nodule,Effusion", "Effusion or Mass or Nodule", [1, 2, 3, 4]),
        ("Mass,Nodule,Effusion,Edema", "positive", [1, 2, 3, 4, 5]),
        ("any", "positive", [1, 2, 3, 4, 5]),
        ("normal", "normal", [4]),
    ],
)
def test_an_image_with_any_of_the_labels_is_positive(positive, called, which):
    labels = two_classes("wards", LABELS, positive)
    assert labels.index[labels == called].tolist() == which
    assert set(labels[labels != called]) == {"negative"}


@pytest.mark.parametrize(
    ("positive", "reason"),
    [
        ("Mass,cyst", "positive=cyst is not allowed: any, or of the labels of wards: Edema, Eff"),
        ("any,Mass", "positive=any is not allowed: any, or of the labels"),
        ("Negative", "positive=Negative is not allowed: it is what all other images are called"),
        (" , ", "a comma list with at least one entry"),
    ],
)
def test_what_cannot_be_positive_is_a_wrong_parameter(positive, reason):
    with pytest.raises(ParameterError, match=reason):
        two_classes("wards", LABELS, positive)


def test_a_label_with_a_comma_is_given_as_in_a_csv():
    labels = pd.Series(["normal", "carcinoma, NOS", "stage=1", "no_tumor"])
    found = two_classes("wards", labels, '"Carcinoma, NOS",stage=1')
    assert found.tolist() == ["negative", *["Carcinoma, NOS or stage=1"] * 2, "negative"]
    with pytest.raises(
        ParameterError, match=r'labels of wards: "carcinoma, NOS", no_tumor, normal'
    ):
        two_classes("wards", labels, "carcinoma, NOS")
    assert (
        two_classes("wards", labels, "any").tolist()
        == found.replace("Carcinoma, NOS or stage=1", "positive").tolist()
    )


def test_of_many_labels_some_are_named():
    labels = pd.Series([f"finding {number:02d}" for number in range(25)])
    with pytest.raises(ParameterError, match=r"finding 19 and 5 more$"):
        two_classes("wards", labels, "cyst")


@pytest.mark.parametrize("labels", [("bacteria", "normal", "virus"), ("Zoster", "normal", "virus")])
def test_a_folder_of_classes(write_folder, labels):
    root = str(write_folder(dict.fromkeys(labels, 4)))
    first, _, last = labels
    table = read_table(root, Reading(positive=f"{last},{first}"))
    assert table.classes == ("negative", " or ".join(sorted((first, last), key=str.casefold)))
    assert table.frame["label"].value_counts().to_dict() == dict(
        zip(table.classes, (4, 8), strict=True)
    )
    assert read_table(root, Reading(positive="normal")).classes == ("negative", "normal")


def test_a_csv_of_several_labels(tmp_path, write_image):
    rows = ["a.png,Mass|Nodule", "b.png,No Finding", "c.png,Nodule", "d.png,No Finding"]
    for seed, row in enumerate(rows):
        write_image(tmp_path / row.partition(",")[0], seed)
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *rows]))
    read = read_table(str(table), Reading(positive="Nodule"))
    assert read.classes == ("negative", "Nodule")
    assert read.frame["label"].tolist() == ["Nodule", "negative", "Nodule", "negative"]
    assert read_table(str(table)).classes == ("Mass", "Nodule")
    table.write_text("path,label\na.png,Mass\nb.png,|\n")
    with pytest.raises(MedtlError, match=r"1 row has no label \(row 3: b.png\)"):
        read_table(str(table), Reading(positive="Mass"))


def test_a_data_set_in_which_all_are_positive_is_refused(write_folder):
    with pytest.raises(MedtlError, match="of one class, bacteria or virus"):
        read_table(
            str(write_folder({"bacteria": 2, "virus": 2})), Reading(positive="virus,bacteria")
        )


def test_other_classes_are_another_data_set(write_folder):
    root = str(write_folder({"bacteria": 20, "normal": 20, "virus": 20}))
    asked = [Reading(positive=positive) for positive in ("", "any", "virus", "virus")]
    whole, any_label, virus, again = (load(root, 5, seed=0, reading=each) for each in asked)
    assert len({each.fingerprint for each in (whole, any_label, virus)}) == 3
    assert virus.fingerprint == again.fingerprint
    assert virus.labels.sum() == 20
    assert any_label.labels.sum() == 40
