"""Tables are read as people have them; what is not obvious is one parameter, and is said."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.data.manifest import Table, read_table
from medtl.errors import MedtlError, ParameterError
from medtl.settings.data import DataSettings, Reading

ROWS = "path,label\na.png,x\nb.png,x\nc.png,é\nd.png,é\n"


@pytest.fixture
def clinic(tmp_path) -> Path:
    """A folder with images `a.png` to `f.png`, and the same in `images/`."""
    folder = tmp_path / "clinic"
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in "abcdef":
        image = Image.fromarray(random.integers(0, 256, (4, 4), dtype=np.uint8))
        image.save(folder / f"{name}.png")
        image.save(folder / "images" / f"{name}.png")
    return folder


def read(folder: Path, text: str, **reading: str) -> Table:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return read_table(str(folder / "labels.csv"), Reading(**reading))


def labels(table: Table) -> list[str]:
    return table.frame["label"].tolist()


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_any_delimiter(clinic, sign):
    table = read(clinic, ROWS.replace(",", sign))
    assert labels(table) == ["x", "x", "é", "é"]
    assert any("are separated by" in note for note in table.notes)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "utf-8-sig"])
def test_encodings(clinic, encoding):
    (clinic / "labels.csv").write_bytes(ROWS.encode(encoding))
    table = read_table(str(clinic / "labels.csv"))
    assert labels(table) == ["x", "x", "é", "é"]
    assert any("Windows-1252" in note for note in table.notes) == (encoding == "cp1252")


def test_compressed_and_tab_separated_files(clinic):
    (clinic / "labels.csv.gz").write_bytes(gzip.compress(ROWS.encode()))
    (clinic / "labels.tsv").write_text(ROWS.replace(",", "\t"))
    for name in ("labels.csv.gz", "labels.tsv"):
        table = read_table(str(clinic / name))
        assert labels(table) == ["x", "x", "é", "é"]
        assert table.name == "clinic"


@pytest.mark.parametrize("kind", ["xlsx", "parquet"])
def test_excel_and_parquet(clinic, kind):
    rows = pd.DataFrame({"path": ["a.png", "b.png", "c.png", "d.png"], "label": [0, 0, 1, 1]})
    file = clinic / f"labels.{kind}"
    if kind == "xlsx":
        pytest.importorskip("openpyxl")
        rows.to_excel(file, index=False)
    else:
        rows.to_parquet(file)
    assert labels(read_table(str(file))) == ["0", "0", "1", "1"]
    file.write_bytes(b"PK no table")
    with pytest.raises(MedtlError, match="cannot be read as a") as refusal:
        read_table(str(file))
    assert "\n" not in str(refusal.value)


def test_bytes_that_are_no_text_are_refused(clinic):
    (clinic / "labels.csv").write_bytes(b"path,label\n\x00\xff\x01,a\n")
    with pytest.raises(MedtlError, match="neither UTF-8, UTF-16 nor Windows-1252 text"):
        read_table(str(clinic / "labels.csv"))


def test_columns_are_named_by_a_parameter(clinic):
    text = "id,dx,pid,set,label\n" + "".join(
        f"{name},{'uv'[place % 2]},p{place // 2},{place % 3 + 1},7\n"
        for place, name in enumerate("abcdef")
    )
    table = read(
        clinic,
        text,
        columns="path:id,label:dx,patient:pid,split:set",
        path_pattern="images/{}.png",
        splits="1:train,2:valid,3:test",
    )
    assert labels(table) == ["u", "v"] * 3
    assert table.frame["path"].tolist() == [f"images/{name}.png" for name in "abcdef"]
    assert table.frame["patient"].tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert table.frame["split"].tolist() == ["train", "valid", "test"] * 2
    assert table.frame["csv_label"].tolist() == ["7"] * 6


def test_a_column_that_is_not_there_is_a_wrong_parameter(clinic):
    with pytest.raises(ParameterError, match="columns=dx is not allowed: of the columns"):
        read(clinic, ROWS, columns="label:dx")
    with pytest.raises(ParameterError, match="columns=split:COLUMN"):
        read(clinic, ROWS, splits="1:train")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("columns", "path"),
        ("columns", "image:id"),
        ("columns", "path:a|b"),
        ("splits", "1:dev"),
        ("path_pattern", "images/x.png"),
    ],
)
def test_malformed_parameters_are_refused_at_the_door(name, value):
    with pytest.raises(ParameterError, match=f"^{name}="):
        DataSettings(**{name: value})


def test_names_with_colons_and_commas_are_quoted(clinic):
    text = '"the, id",a:b\n' + "".join(f"{name}.png,{name in 'ab'}\n" for name in "abcd")
    table = read(clinic, text, columns='path:"the, id",label:"a:b"')
    assert labels(table) == ["True", "True", "False", "False"]


def test_backslashes_and_missing_suffixes(clinic):
    table = read(clinic, "path,label\nimages\\a.png,x\nb,x\nimages\\c,y\nd.png,y\n")
    assert table.frame["path"].tolist() == ["images/a.png", "b.png", "images/c.png", "d.png"]
    assert any(
        note.startswith("paths with backslashes, read as slashes: 2") for note in table.notes
    )
    assert any(note.startswith("paths without a suffix, found") for note in table.notes)


def test_two_files_of_one_name_are_not_guessed(clinic):
    Image.open(clinic / "b.png").save(clinic / "b.bmp")
    with pytest.raises(MedtlError, match=r"1 row has no file at its path \(row 3: b\)"):
        read(clinic, "path,label\na.png,x\nb,x\nc.png,y\n")


FINDINGS = (
    "path,No Finding,Edema,Mass,age\na.png,1,,,50\nb.png,,1.0,-1,40\nc.png,,-1,1,30\nd.png,,1,0,7\n"
)
NAMED = "label:No Finding|Edema|Mass"


@pytest.mark.parametrize(
    ("uncertain", "expected"),
    [
        ("ignore", ["No Finding", "Edema|?Mass", "Mass|?Edema", "Edema"]),
        ("positive", ["No Finding", "Edema|Mass", "Edema|Mass", "Edema"]),
        ("negative", ["No Finding", "Edema", "Mass", "Edema"]),
    ],
)
def test_one_column_a_finding(clinic, uncertain, expected):
    table = read(clinic, FINDINGS, columns=NAMED, uncertain=uncertain)
    assert labels(table) == expected
    assert table.multi_label
    assert table.classes == ("Edema", "Mass")
    assert any("2 uncertain labels (-1) are" in note for note in table.notes)
    assert "5 blank labels count as absent" in table.notes


def test_columns_of_findings_are_pointed_out_and_not_guessed(clinic):
    with pytest.raises(MedtlError, match=r"pass columns=label:No Finding\|Edema\|Mass$"):
        read(clinic, FINDINGS)
    with pytest.raises(MedtlError, match=r"column age is no finding.*row 2: 50"):
        read(clinic, FINDINGS, columns="label:Edema|age")


def test_one_hot_columns_are_classes(clinic):
    text = "path,MEL,NV,age\na.png,1.0,0.0,5\nb.png,1,0,6\nc.png,0,1,7\nd.png,0,1,8\n"
    table = read(clinic, text)
    assert labels(table) == ["MEL", "MEL", "NV", "NV"]
    assert not table.multi_label
    assert any("are the classes: each row has one of them" in note for note in table.notes)


def test_readers_of_one_label_decide_by_majority(clinic):
    votes = {"a": "xxy", "b": "xx", "c": "yyy", "d": "yxy", "e": "xy"}
    text = "path,label\n" + "".join(
        f"{name}.png,{label}\n" for name, given in votes.items() for label in given
    )
    with pytest.raises(MedtlError, match=r"a path named before .*readers=majority"):
        read(clinic, text)
    table = read(clinic, text, readers="majority")
    assert dict(zip(table.frame["path"], labels(table), strict=True)) == {
        "a.png": "x", "b.png": "x", "c.png": "y", "d.png": "y",
    }  # fmt: skip
    (note,) = (note for note in table.notes if "readers=majority" in note)
    assert note.startswith("5 images have several rows")
    assert "1 images left out" in note
    assert read(clinic, text, readers="any").multi_label


@pytest.mark.parametrize(
    ("readers", "expected"),
    [
        ("majority", ["Edema", "Mass", "?Edema|?Mass"]),
        ("any", ["Edema|Mass", "Mass", "Edema|Mass"]),
        ("all", ["Edema", "Mass", "No Finding"]),
    ],
)
def test_readers_of_findings(clinic, readers, expected):
    text = "path,label\na.png,Edema|Mass\na.png,Edema\na.png,Edema\nb.png,Mass\n"
    text += "c.png,Edema\nc.png,Mass\n"
    assert labels(read(clinic, text, readers=readers)) == expected


def test_readers_that_differ_in_the_patient_are_refused(clinic):
    text = "path,label,patient\na.png,x,p\na.png,x,q\nb.png,y,p\n"
    with pytest.raises(MedtlError, match="another patient than their image before"):
        read(clinic, text, readers="majority")
