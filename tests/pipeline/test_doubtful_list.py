"""Evaluations with a list of doubtful labels: from a file, or of the model's own training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medtl.data.dataset import Dataset, in_order_of
from medtl.data.loading import load
from medtl.errors import MedtlError, ParameterError
from medtl.evaluation.split_evaluation import SplitEvaluation, SplitPredictions, evaluate_split
from medtl.pipeline.doubtful_list import with_doubtful
from medtl.tracking.lineage import listed_labels

NO_MODEL = "models:/none/1"


@pytest.fixture(scope="module")
def wards(small_phantoms: Path) -> Dataset:
    return load(str(small_phantoms), 64, seed=0)


@pytest.fixture(scope="module")
def evaluation(wards: Dataset) -> SplitEvaluation:
    test = wards.splits["test"]
    found = 0.2 + 0.4 * np.eye(3)[wards.labels[test]]
    decisions = found.argmax(axis=1)
    return evaluate_split(
        wards, SplitPredictions("test", test, found, found, found, decisions), seed=0
    )


@pytest.fixture
def file(wards: Dataset, tmp_path: Path) -> Path:
    rows = wards.frame.iloc[wards.splits["test"][:3]]
    table = pd.DataFrame({"path": rows["path"], "label": rows["label"]})
    table.to_csv(tmp_path / "list.csv", index=False)
    return tmp_path / "list.csv"


def test_a_list_in_a_file_gives_scores_with_and_without(
    wards: Dataset, evaluation: SplitEvaluation, file: Path
):
    test = wards.splits["test"]
    found = with_doubtful(evaluation, wards, test, listed_labels(str(file)), NO_MODEL, seed=0)
    assert found.without_doubtful is not None
    assert found.without_doubtful.doubtful == 3
    assert found.without_doubtful.with_them["auroc"] == evaluation.measures.summary["auroc"]
    assert f"labels        3 of {len(test)} labels are doubtful" in found.summary()
    # a list of the same images under corrected labels names none of them
    pd.read_csv(file).assign(label="other").to_csv(file, index=False)
    others = listed_labels(str(file))
    none = with_doubtful(evaluation, wards, test, others, NO_MODEL, seed=0).without_doubtful
    assert none is not None
    assert none.line() == f"none of {len(test)} labels is in the list of doubtful ones"


def test_without_a_list_nothing_is_said(wards: Dataset, evaluation: SplitEvaluation):
    test = wards.splits["test"]
    assert with_doubtful(evaluation, wards, test, None, NO_MODEL, seed=0) is evaluation


def test_what_is_no_list_is_refused(wards: Dataset, evaluation: SplitEvaluation, file: Path):
    test = wards.splits["test"]
    with pytest.raises(ParameterError, match=r"doubtful=nowhere\.csv is not allowed: a doubt"):
        listed_labels("nowhere.csv")
    file.write_text("image\na.png\n")
    with pytest.raises(MedtlError, match="no column path"):
        with_doubtful(evaluation, wards, test, listed_labels(str(file)), "", seed=0)


def test_other_data_takes_the_order_of_a_model_of_grades(wards: Dataset):
    order = (wards.classes[2], wards.classes[0], wards.classes[1])
    found = in_order_of(wards, order)
    assert found.ordinal
    names = [found.classes[label] for label in found.labels]
    assert names == [wards.classes[label] for label in wards.labels]
