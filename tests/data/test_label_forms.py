"""Equal labels are merged, near-equal ones noted, and other separators refused."""

from __future__ import annotations

import unicodedata

import pandas as pd
import pytest

from medtl.data.manifest import read_table
from medtl.data.text_normalization import in_one_form, joined_by
from medtl.errors import MedtlError


def read(*labels: str) -> tuple[list[str], tuple[str, ...]]:
    forms, notes = in_one_form(pd.Series(labels))
    return forms.tolist(), notes


def test_two_forms_of_unicode_are_one_label():
    apart = unicodedata.normalize("NFD", "lésé")
    forms, notes = read("lésé", apart, "normal", "large  heart", "large heart")
    assert forms == ["lésé", "lésé", "normal", "large heart", "large heart"]
    assert notes == (
        "labels in two forms of Unicode, or with other spaces, are one: large heart, lésé",
    )


def test_one_number_is_one_label():
    assert read("0", "1", "0.0", "1.0") == (
        ["0", "1", "0", "1"],
        ("labels that are one number are one: 0 and 0.0, 1 and 1.0",),
    )
    assert read("0.0", "1.0") == (["0.0", "1.0"], ())
    assert read("1", "1.0", "1.5")[0] == ["1", "1.0", "1.5"]


def test_labels_that_may_be_one_are_named_and_stay_apart():
    labels = ["Benign", "benign", "COVID-19", "covid 19", "normal"]
    assert read(*labels) == (
        labels,
        (
            "labels that differ only in case, zeros, spaces or signs are different ones: "
            "Benign and benign, COVID-19 and covid 19; give equal ones one name",
        ),
    )


def test_findings_are_put_into_one_form_each():
    forms, _ = read("Mass|?lésé", unicodedata.normalize("NFD", "? lésé | Mass"), "Edema|")
    assert forms == ["Mass|?lésé", "?lésé|Mass", "Edema|"]


@pytest.mark.parametrize("sign", [";", ",", "/", " + ", "&", "; "])
def test_labels_that_are_joined_by_another_sign_are_told(sign):
    both = f"Mass{sign}Nodule"
    assert joined_by(["Mass", "Nodule", both, "No Finding"]) == {both: sign.strip()}


def test_lists_and_semicolons_need_no_single_labels():
    assert joined_by(["a;b", "b;c", "c;a"]) == dict.fromkeys(["a;b", "b;c", "c;a"], ";")
    assert joined_by(["['a', 'b']", "x"]) == {"['a', 'b']": ","}


@pytest.mark.parametrize(
    "labels",
    [
        ["Squamous cell carcinoma, NOS", "Adenocarcinoma, NOS", "normal"],
        ["HER2+", "HER2-", "ER/PR"],
        ["AP/PA", "AP", "lateral"],
        ["a;b", "c"],
    ],
)
def test_a_sign_within_a_label_is_left_alone(labels):
    assert joined_by(labels) == {}


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (["Mass", "Nodule", '"Mass,Nodule"'], r"1 row has several labels joined by , .*row 4.*\|"),
        (["Mass", "Nodule", "Mass;Nodule"], r"1 row has several labels joined by ; \(Mass;Nodule"),
        (["nan", "x", "NaN"], "2 rows have a word for no label, nan, NaN .*row 2.*take the rows"),
    ],
)
def test_a_csv_with_such_labels_is_refused_in_a_line(tmp_path, write_image, labels, line):
    rows = ["path,label"]
    for number, label in enumerate(labels):
        rows.append(f"{write_image(tmp_path / f'{number}.png', number).name},{label}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(MedtlError, match=line) as refusal:
        read_table(str(tmp_path / "labels.csv"))
    assert "\n" not in str(refusal.value)


def test_folders_of_one_name_in_two_forms_are_one_class(write_folder):
    apart = unicodedata.normalize("NFD", "lésé")
    table = read_table(str(write_folder({"lésé": 2, apart: 2, "Normal": 2, "normal": 2})))
    assert sorted(table.classes) == ["Normal", "lésé", "normal"]
    assert len(table.notes) == 2
