from __future__ import annotations

import dataclasses

import mlflow
import pytest

from medtl.tuning.cutoff_dictionary import (
    ENTRY_FILE,
    ENTRY_TAG,
    Description,
    Entry,
    known_entries,
    log_entries,
)

ENTRY = Entry(
    architecture="squeezenet1_1",
    weights="random",
    backbone="b",
    data="wards",
    fingerprint="f",
    cutoff="features.7",
    recipe={"optimizer": "adam", "lr": 1e-3},
    valid_auroc=0.9,
    curve={"features.7": 0.8},
    description=Description((0.5, 1.0), (1.0, 2.0)),
)


def test_a_search_of_several_architectures_leaves_an_entry_of_each():
    other = dataclasses.replace(ENTRY, architecture="resnet18", cutoff="layer4", valid_auroc=0.8)
    with mlflow.start_run() as run:
        log_entries([ENTRY, other])
    found = known_entries()
    own = [dataclasses.replace(each, run_id=run.info.run_id) for each in (ENTRY, other)]
    assert found == own
    assert mlflow.get_run(run.info.run_id).data.tags[ENTRY_TAG] == "features.7, layer4"


@pytest.mark.parametrize("tag", [ENTRY_TAG, "medtl.ocl"])
def test_an_entry_that_was_written_bare_is_still_known(tag):
    values = dataclasses.asdict(ENTRY)
    del values["run_id"]
    with mlflow.start_run() as run:
        mlflow.log_dict(values, ENTRY_FILE)
        mlflow.set_tag(tag, ENTRY.cutoff)
    assert known_entries() == [dataclasses.replace(ENTRY, run_id=run.info.run_id)]
