from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from medtl.evaluation.model_comparison import compared
from medtl.reporting.comparison_report import Subject, report
from medtl.reporting.comparison_summary import chosen, nearest_source, summary

SEEN = [("a", "near", 0.5), ("a", "far", 1.25), ("b", "near", 0.75), ("b", "far", 1.0)]


@pytest.fixture
def subject() -> Subject:
    return Subject(
        study="zhang2023",
        title="Does pretraining help?",
        source="Zhang 2023",
        notes=("Ours: the rest.",),
        data="<i>wards</i>",
        data_notes=("2 images cannot be read",),
        warnings=("copies & more",),
        counts=pd.DataFrame([{"split": "test", "images": 90, "<script>": 3}]),
        sources=pd.DataFrame(
            [("vgg11", seen_by, source, "<i>", apart) for seen_by, source, apart in SEEN],
            columns=["architecture", "seen_by", "source", "data", "distance"],
        ),
        sheet=Figure(),
        embedded=True,
        settings={"data": "x & y", "image_size": 0, "epochs": 0, "device": "auto", "positive": ""},
        resolved={"image_size": "96, 128", "device": "cpu"},
        pictures=("convergence", "depth", "size"),
    )


def test_the_page_needs_nothing_but_itself_and_escapes_what_users_wrote(subject, comparison):
    page = report(subject, comparison).html
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert set(re.findall(r'src="([^;"]+)', page)) == {"data:image/png"}
    assert "&lt;i&gt;wards" in page
    assert "&lt;b&gt;out&lt;/b&gt; of memory" in page
    assert "x &amp; y" in page
    assert "Warning of the data report: copies &amp; more." in page
    assert page.count("<img ") == len(re.findall(r'<img alt="[^"]{10,}"', page)) >= 5


def test_every_cell_stands_in_the_page_and_in_the_description(subject, comparison):
    written = report(subject, comparison)
    for each in comparison.cell_results:
        assert each.name in written.html
        assert each.name in written.description
    rows = [line for line in written.description.splitlines() if line.startswith("| broken")]
    assert rows[0].replace("\\|", "").count("|") == 5


def test_settings_show_the_values_that_were_used(subject, comparison):
    page = report(subject, comparison).html
    rows = dict(re.findall(r'<th scope="row">(\w+)</th>(.*)</tr>', page))
    assert "96, 128" in rows["image_size"]
    finished = [each for each in comparison.cell_results if each.outcome is not None]
    trained = [len(each.outcome.history) for each in finished if each.outcome.lr]
    assert f">{min(trained)}" in rows["epochs"] if trained else ">none<" in rows["epochs"]
    assert "none" in rows["positive"]
    # columns of names are on the left, as their heads are
    assert re.search(r'<th scope="col" class="text">used</th>', page)


def test_the_words_follow_the_numbers(comparison, cases, made):
    text = " ".join(summary(comparison, embedded=True))
    assert "1 of them failed" in text
    assert "“pretrained” is" in text
    assert "above “random”" in text
    assert "had the higher validation accuracy than “random” in 0 of 2 pairs" in text
    assert "say nothing about patients" in text
    equal = compared(
        cases,
        [made("a", 0, 0.5), made("b", 1, 0.5)],
        [("a, seed 0", "b, seed 1")],
        "auroc",
        seed=0,
    )
    text = " ".join(summary(equal, embedded=False))
    assert "cannot tell which side is better" in text
    assert "choice of test cases" not in text
    assert "with one seed" in text
    assert "drawings" not in text


def test_the_text_counts_the_patients_of_the_table_and_names_those_that_count_as_one(comparison):
    whole = " ".join(summary(comparison, embedded=False))
    assert "90 test images of 45 patients; intervals are over patients." in whole
    groups = np.where(comparison.cases.groups == 44, 0, comparison.cases.groups)
    cases = dataclasses.replace(comparison.cases, groups=groups)
    joined = " ".join(summary(dataclasses.replace(comparison, cases=cases), embedded=False))
    assert "of 45 patients; intervals are over patients (44, as patients with an " in joined


def test_the_cheapest_within_a_standard_error_is_named():
    def arms(gap: float) -> pd.DataFrame:
        row = {"fraction": 1.0, "valid_error": 0.02}
        return pd.DataFrame(
            [
                {"arm": "deep", "valid_auroc": 0.9, "trained_flops": 100, **row},
                {"arm": "head", "valid_auroc": 0.9 - gap, "trained_flops": 1, **row},
                {"arm": "few", "valid_auroc": 0.99, "trained_flops": 0, **row, "fraction": 0.1},
            ]
        )

    assert [each["arm"] for each in chosen(arms(0.015))] == ["deep", "head"]
    assert [each["arm"] for each in chosen(arms(0.025))] == ["deep", "deep"]


def test_a_study_of_one_cell_has_a_report(subject, cases, made):
    alone = compared(cases, [made("a", 0, 0.5)], [], "f1", seed=0)
    page = report(dataclasses.replace(subject, embedded=False), alone).html
    assert "Nothing in this study is paired." in page


def test_the_nearest_source_is_named_where_the_networks_agree(subject, comparison):
    assert nearest_source(subject.sources, "wards") == (
        "Every network sees wards nearest to “near” (distances: by “a” 0.50 from “near”, 1.25 from "
        "“far”; by “b” 0.75 from “near”, 1.00 from “far”)."
    )
    split = subject.sources.assign(distance=[0.5, 1.25, 1.0, 0.75])
    assert nearest_source(split, "wards").startswith("The networks do not agree")
    alone = subject.sources[subject.sources["source"] == "near"]
    assert nearest_source(alone, "wards") == ""
    page = report(subject, comparison).html
    assert "nearest to “near”" in page
    assert "<td>1.25</td>" in page
    without = report(dataclasses.replace(subject, sources=alone[:0]), comparison).html
    assert "Sources of the pretrained weights" not in without
