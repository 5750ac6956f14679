from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from medtl.errors import MedtlError, ParameterError
from medtl.search import study as studies
from medtl.search.space import Candidate, Space
from medtl.search.study import Pruned, Schedule

SPACE = Space(("adam", "sgd"), 1e-4, 1e-2, ("conv1", "layer1", "layer2", "fc"))


def schedule(trials: int) -> Schedule:
    return Schedule(trials=trials, timeout=0, pruner="median", epochs=5, seed=3)


def score(trial: optuna.Trial, candidate: Candidate) -> float:
    return SPACE.cutoffs.index(candidate.cutoff) / 10 - abs(candidate.lr - 1e-3)


@pytest.fixture
def storage(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def test_a_stopped_search_ends_as_an_unbroken_one(storage):
    unbroken = studies.open_study(storage, "unbroken", True, "asks", schedule(12))
    studies.run_trials(unbroken, SPACE, schedule(12), score)

    class Kill(BaseException):
        pass

    count = 0

    def killed(trial, candidate):
        nonlocal count
        count += 1
        if count in (4, 9):
            raise Kill
        return score(trial, candidate)

    for _ in range(3):
        broken = studies.open_study(storage, "broken", True, "asks", schedule(12))
        studies.restart_cut_off_trials(broken)
        try:
            studies.run_trials(broken, SPACE, schedule(12), killed)
        except Kill:
            continue
    told = [trial.params for trial in studies.finished(unbroken)]
    assert [trial.params for trial in studies.finished(broken)] == told
    assert len(told) == 12
    assert broken.best_value == unbroken.best_value
    running = broken.get_trials(states=(TrialState.RUNNING,))
    assert running == []


def test_a_failed_trial_is_recorded_and_the_search_goes_on(storage):
    study = studies.open_study(storage, "study", True, "asks", schedule(4))

    def sometimes(trial, candidate):
        if trial.number == 1:
            raise MedtlError("the loss is not a finite number")
        if trial.number == 2:
            raise Pruned
        return 0.5

    studies.run_trials(study, SPACE, schedule(4), sometimes)
    table = studies.table(study, SPACE)
    assert list(table["state"][:3]) == ["complete", "failed", "pruned"]
    assert table["error"][1] == "the loss is not a finite number"
    assert len(studies.finished(study)) == 4


def test_a_search_in_which_all_fail_says_why(storage):
    study = studies.open_study(storage, "study", True, "asks", schedule(3))

    def never(trial, candidate):
        raise MedtlError("out of memory")

    with pytest.raises(MedtlError, match="out of memory"):
        studies.run_trials(study, SPACE, schedule(3), never)


def test_an_unfinished_study_goes_on_and_a_finished_one_is_left_alone(storage):
    first = studies.open_study(storage, "medtl", False, "asks", schedule(2))
    again = studies.open_study(storage, "medtl", False, "asks", schedule(2))
    assert again.study_name == first.study_name == "medtl"
    other = studies.open_study(storage, "medtl", False, "asks something else", schedule(2))
    assert other.study_name == "medtl-2"
    first.set_user_attr(studies.FINISHED, "run")
    third = studies.open_study(storage, "medtl", False, "asks", schedule(2))
    assert third.study_name == "medtl-3"


def test_a_study_that_the_user_named_is_not_mixed_with_another_question(storage):
    studies.open_study(storage, "mine", True, "asks", schedule(2))
    with pytest.raises(ParameterError, match="another name"):
        studies.open_study(storage, "mine", True, "asks something else", schedule(2))


def test_a_storage_that_does_not_open_is_one_line():
    with pytest.raises(MedtlError, match="does not open") as error:
        studies.open_study("sqlite:////no/such/folder/x.db", "s", True, "a", schedule(1))
    assert "\n" not in str(error.value)


def test_importances_name_the_cutoff(storage):
    study = studies.open_study(storage, "study", True, "asks", schedule(10))
    studies.run_trials(study, SPACE, schedule(10), score)
    shares = studies.importances(study, seed=0)
    assert max(shares, key=shares.get) == "cutoff"
    assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
