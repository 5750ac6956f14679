"""CSV files are safe in a spreadsheet, and are read back unchanged."""

from __future__ import annotations

import mlflow
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtl.reporting.csv_export import as_written, harmless, write_csv
from medtl.tracking.artifacts import log_table

SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
TEXTS = st.text(st.sampled_from(SIGNS + "'\" ,;a1.e|\u00e9"), max_size=8)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ("+HYPERLINK(x)", "'+HYPERLINK(x)"),
        ("\tx", "'\tx"),
        (" =1", "' =1"),
        ("'=1", "''=1"),
        ("-1.5e-3", "-1.5e-3"),
        ("pneumonia-2", "pneumonia-2"),
        ("", ""),
    ],
)
def test_a_formula_becomes_a_text_and_a_number_stays(text: str, written: str):
    assert harmless(pd.DataFrame({"label": [text]}))["label"].tolist() == [written]


@given(st.lists(TEXTS, min_size=1, max_size=5), TEXTS)
def test_what_is_read_back_is_what_was_written(texts: list[str], name: str):
    table = pd.DataFrame({name: texts})
    written = harmless(table)
    for text in [*written.columns, *written.iloc[:, 0]]:
        number = text.strip().lstrip("+-").replace(".", "").replace("e", "").isdigit()
        assert text.lstrip(" ")[:1] not in set(SIGNS) or number, "a spreadsheet runs it"
    pd.testing.assert_frame_equal(as_written(written), table)


def test_numbers_gaps_and_categories_keep_their_kind(tmp_path):
    table = pd.DataFrame(
        {
            "=cmd()": pd.Categorical(["-layer", "fc"], ["fc", "-layer"], ordered=True),
            "score": [-0.5, float("nan")],
            "count": [-1, 2],
            "note": ["=x", None],
        }
    )
    write_csv(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "'=cmd(),score,count,note",
        "'-layer,-0.5,-1,'=x",
        "fc,,2,",
    ]
    assert table.columns[0] == "=cmd()", "the table itself is as it was"


def test_every_logged_table_is_harmless():
    with mlflow.start_run() as run:
        log_table(pd.DataFrame({"path": ["=1.png", "@/2.png", "a.png"]}), "data/splits.csv")
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/data/splits.csv")
    assert text.split() == ["path", "'=1.png", "'@/2.png", "a.png"]
