"""The space of several architectures: what its parameters mean, and that a search finds its way."""

from __future__ import annotations

import optuna
import pytest

from medtl.tuning import search_result
from medtl.tuning import study as studies
from medtl.tuning.search_space import (
    Candidate,
    HybridCandidate,
    HybridSpace,
    JointSpace,
    NetworkName,
    Space,
)
from medtl.tuning.storage import open_store
from medtl.tuning.study import Schedule

SHALLOW = Space(("adam", "sgd"), 1e-4, 1e-2, ("features.0", "features.9", "classifier"))
DEEP = Space(("adam", "sgd"), 1e-4, 1e-2, ("conv1", "layer1", "layer2", "features.0", "fc"))
SHALLOW_NAME, DEEP_NAME = NetworkName("shallow"), NetworkName("deep")
JOINT = JointSpace({SHALLOW_NAME: SHALLOW, DEEP_NAME: DEEP})


def schedule(trials: int) -> Schedule:
    return Schedule(trials=trials, timeout=0, pruner="none", seed=5)


def test_every_candidate_is_what_its_parameters_mean():
    for network, space in JOINT.spaces.items():
        for cutoff in space.cutoffs:
            candidate = Candidate("sgd", 1e-3, cutoff, network)
            assert JOINT.candidate(JOINT.params(candidate)) == candidate


def test_every_depth_is_a_cutoff_of_its_architecture_and_all_have_an_equal_share():
    for network, space in JOINT.spaces.items():
        found = [
            JOINT.candidate(
                {
                    "architecture": network.architecture,
                    "optimizer": "adam",
                    "lr": 1e-3,
                    "depth": at / 300,
                }
            ).cutoff
            for at in range(301)
        ]
        assert list(dict.fromkeys(found)) == list(space.cutoffs)
        assert {found[:300].count(cutoff) for cutoff in space.cutoffs} == {
            300 // len(space.cutoffs)
        }


def test_parameters_are_those_that_optuna_knows():
    params = JOINT.params(Candidate("adam", 1.0, "layer2", DEEP_NAME))
    known = JOINT.distributions()
    assert set(params) == set(known) == {"architecture", "optimizer", "lr", "depth"}
    for name, value in params.items():
        assert known[name]._contains(known[name].to_internal_repr(value)), name


def test_the_cutoffs_of_all_stand_in_one_forward_order():
    assert JOINT.cutoffs == (
        "features.0", "conv1", "layer1", "features.9", "layer2", "classifier", "fc",
    )  # fmt: skip


def test_a_candidate_names_its_architecture_only_where_there_are_several():
    assert "architecture" not in Candidate("adam", 1e-3, "fc").params()
    one = Candidate("adam", 1e-3, "fc", DEEP_NAME)
    assert one.params()["architecture"] == "deep"
    assert str(one).startswith("deep, adam")


def test_weights_are_searched_alone_or_with_the_architecture_as_one_parameter():
    alone = JointSpace({NetworkName(weights=each): SHALLOW for each in ("imagenet", "random")})
    assert set(alone.distributions()) == {"weights", "optimizer", "lr", "depth"}
    candidate = Candidate("adam", 1e-3, "classifier", NetworkName(weights="random"))
    assert alone.candidate(alone.params(candidate)) == candidate
    assert candidate.params()["weights"] == "random"
    both = [NetworkName("shallow", "imagenet"), NetworkName("deep", "random")]
    joint = JointSpace(dict(zip(both, (SHALLOW, DEEP), strict=True)))
    assert joint.distributions()["network"].choices == ("shallow, imagenet", "deep, random")
    candidate = Candidate("adam", 1e-3, "fc", both[1])
    assert joint.candidate(joint.params(candidate)) == candidate
    assert str(candidate).startswith("deep, random, adam")
    assert {"architecture": "deep", "weights": "random"}.items() <= candidate.params().items()


def test_hybrids_have_no_more_than_architecture_and_depth():
    joint = JointSpace(
        {
            NetworkName("a"): HybridSpace("svm", ("x", "y")),
            NetworkName("b"): HybridSpace("svm", ("y", "z", "head")),
        }
    )
    assert set(joint.distributions()) == {"architecture", "depth"}
    candidate = HybridCandidate("svm", "z", NetworkName("b"))
    assert joint.candidate(joint.params(candidate)) == candidate
    assert str(candidate) == "svm on the features before z of b"


def score(trial: optuna.Trial, candidate: Candidate) -> float:
    """The deeper in the deep architecture, the better."""
    is_deep = candidate.network == DEEP_NAME
    best = DEEP if is_deep else SHALLOW
    of = best.cutoffs.index(candidate.cutoff) / len(best.cutoffs)
    return of + 0.3 * is_deep


def test_a_search_finds_the_better_architecture_and_names_the_best_of_each(tmp_path):
    storage = open_store(f"sqlite:///{tmp_path / 'optuna.db'}")
    study = studies.open_study(storage, "several", True, "asks", schedule(16))
    studies.run_trials(study, JOINT, schedule(16), score)
    table = search_result.table(study, JOINT)
    assert set(table["architecture"]) == {"shallow", "deep"}
    assert list(table["cutoff"].cat.categories) == list(JOINT.cutoffs)
    assert (table["architecture"] == "deep").mean() > 0.5
    best = search_result.best_of_each(study, JOINT)
    assert [each.network for each in best] == [DEEP_NAME, SHALLOW_NAME]
    assert next(iter(best.values())) == study.best_value
    for candidate, value in best.items():
        own = table[table["architecture"] == candidate.network.architecture]
        assert value == own["score"].max()
    shares = search_result.importances(study, seed=0)
    assert set(shares) == {"architecture", "optimizer", "lr", "cutoff"}


def test_a_search_of_several_that_was_stopped_ends_as_an_unbroken_one(tmp_path):
    storage = open_store(f"sqlite:///{tmp_path / 'optuna.db'}")

    class Kill(BaseException):
        pass

    def killed(trial, candidate):
        if trial.number == 7:
            raise Kill
        return score(trial, candidate)

    told = []
    for name, first in (("unbroken", score), ("broken", killed)):
        study = studies.open_study(storage, name, True, "asks", schedule(12))
        study.enqueue_trial(JOINT.params(Candidate("adam", 1e-3, "fc", DEEP_NAME)))
        if name == "broken":
            with pytest.raises(Kill):
                studies.run_trials(study, JOINT, schedule(12), first)
            study = studies.open_study(storage, name, True, "asks", schedule(12))
            studies.restart_cut_off_trials(study, storage, JOINT)
        studies.run_trials(study, JOINT, schedule(12), score)
        told.append([trial.params for trial in studies.finished(study)])
    assert told[0] == told[1]
    assert len(told[0]) == 12


def test_augmentation_is_a_parameter_where_it_is_searched():
    space = Space(("adam",), 1e-4, 1e-2, ("layer1", "fc"), augments=("light", "none"))
    assert set(space.distributions()) == {"optimizer", "lr", "depth", "augment"}
    for augment in space.augments:
        candidate = Candidate("adam", 1e-3, "fc", augment=augment)
        assert space.candidate(space.params(candidate)) == candidate
        assert candidate.params()["augment"] == augment
        assert f"augmentation {augment}" in str(candidate)
    assert space.params(Candidate("adam", 1e-3, "fc"))["augment"] == "light"
    assert "augment" not in Candidate("adam", 1e-3, "fc").params()
