"""Negative labels are recognized in all usual spellings."""

from __future__ import annotations

import pytest

from medtl.data.label_encoding import in_order, positive_class_note
from medtl.label_syntax import negative_labels


@pytest.mark.parametrize(
    ("negative", "positive"),
    [
        ("non-COVID", "COVID"),
        ("NonDemented", "Demented"),
        ("noncancer", "cancer"),
        ("no_tumor", "glioma"),
        ("notumor", "glioma"),
        ("No_DR", "DR"),
        ("not melanoma", "melanoma"),
        ("Uninfected", "Parasitized"),
        ("unaffected", "affected"),
        ("Healthy control", "AD"),
        ("Negative for Pneumonia", "Atypical Appearance"),
        ("without_mask", "with_mask"),
        ("tumor-free", "tumor"),
        ("COVID-19 negative", "COVID-19 positive"),
        ("normal lung", "fibrosis"),
        ("controls", "cases"),
        ("0_normal", "1_abnormal"),
        ("other", "melanoma"),
        ("all others", "AK"),
        ("Rest", "MEL"),
        ("normal", "non-COVID"),
        ("normal", "not normal"),
        ("benign", "other"),
        ("non-small-cell", "small-cell"),
    ],
)
def test_the_negated_one_of_two_classes_is_never_the_positive_one(negative, positive):
    assert in_order([negative, positive]) == in_order([positive, negative]) == (negative, positive)


@pytest.mark.parametrize(
    "classes",
    [
        ("melanoma", "nevus"),
        ("1", "2"),
        ("none", "nodule"),
        ("nose", "throat"),
        ("a", "nonspecific"),
    ],
)
def test_plain_names_are_in_alphabetical_order(classes):
    assert in_order(reversed(classes)) == classes


@pytest.mark.parametrize(
    ("labels", "negative"),
    [
        (("normal", "COVID", "non-COVID pneumonia"), {"normal"}),
        (("COVID", "non-COVID"), {"non-COVID"}),
        (("glioma", "meningioma", "notumor"), {"notumor"}),
        (("MildDemented", "NonDemented", "VeryMildDemented"), {"NonDemented"}),
        (("normal-cecum", "normal-pylorus", "polyps"), {"normal-cecum", "normal-pylorus"}),
        (("normal", "normal pressure hydrocephalus"), {"normal"}),
        (("healthy", "gram-negative", "gram-positive"), {"healthy"}),
        (("nevus", "melanoma", "other"), set()),
    ],
)
def test_a_negated_label_is_a_finding_where_another_says_plainly_that_there_is_none(
    labels, negative
):
    assert negative_labels(labels) == negative


@pytest.mark.parametrize(
    ("classes", "note"),
    [
        (("melanoma", "nevus"), ("scores are of nevus, against melanoma: neither name means a "
          "negative finding, so the order is alphabetical; for those of melanoma pass "
          "positive=melanoma",)),
        (("carcinoma, NOS", "nevus"), None),
        (("normal", "non-COVID"), None),
        (("normal", "pneumonia"), ()),
        (("other", "melanoma"), ()),
        (("negative", "nevus"), ()),
        (("a", "b", "c"), ()),
    ],
)  # fmt: skip
def test_a_note_says_which_class_scores_are_of_where_names_do_not(classes, note):
    found = positive_class_note(classes)
    assert found == note if note is not None else len(found) == 1
    if classes[0] == "carcinoma, NOS":
        assert found[0].endswith('pass positive="carcinoma, NOS"')
    if classes[1] == "non-COVID":
        assert "both names mean" in found[0]
