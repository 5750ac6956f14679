from __future__ import annotations

import contextlib

import optuna
import pytest
from optuna.trial import TrialState

from medtl.errors import MedtlError, ParameterError
from medtl.training.loop import Epoch
from medtl.tuning import search_result
from medtl.tuning import study as studies
from medtl.tuning.search_space import Candidate, Space
from medtl.tuning.storage import Store, open_store
from medtl.tuning.study import Pruned, Schedule

SPACE = Space(("adam", "sgd"), 1e-4, 1e-2, ("conv1", "layer1", "layer2", "fc"))


def schedule(trials: int) -> Schedule:
    return Schedule(trials=trials, timeout=0, pruner="median", seed=3)


def score(trial: optuna.Trial, candidate: Candidate) -> float:
    return SPACE.cutoffs.index(candidate.cutoff) / 10 - abs(candidate.lr - 1e-3)


@pytest.fixture
def storage(tmp_path) -> Store:
    return open_store(f"sqlite:///{tmp_path / 'optuna.db'}")


def test_a_stopped_search_ends_as_an_unbroken_one(storage):
    class Kill(BaseException):
        pass

    begun, killed = [], []

    def trained(trial, candidate):
        begun.append(trial.number)
        for number in (1, 2, 3):
            value = score(trial, candidate) * number / 3
            studies.report(trial, Epoch(number, 0.0, 0.0, 0.0, value, 0.0, 0.0, number / 3))
            if len(begun) in kills and number == 2:
                killed.append(trial.number)
                raise Kill
        return value

    told = []
    # a first trial that was queued, another one, and trials that were sampled
    for name, kills in (("unbroken", []), ("broken", [1, 3, 6, 7, 9, 11])):
        begun.clear()
        study = studies.open_study(storage, name, True, "asks", schedule(12))
        starts = [Candidate("adam", 1e-3, "fc"), Candidate("sgd", 1e-2, "layer1")]
        studies.prepare(study, [(SPACE.params(each), "why") for each in starts], "run")
        for _ in range(len(kills) + 1):
            study = studies.open_study(storage, name, True, "asks", schedule(12))
            studies.restart_cut_off_trials(study, storage, SPACE)
            with contextlib.suppress(Kill):
                studies.run_trials(study, SPACE, schedule(12), trained)
        told.append(
            [
                (trial.number, trial.state, trial.params, trial.value, trial.intermediate_values)
                for trial in study.get_trials()
            ]
        )
        assert len(begun) == 12 + len(killed)
    assert {0, 1} < set(killed)
    assert told[0] == told[1]
    assert {state for _, state, *_ in told[0]} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_search_without_a_defined_score_ends(storage):
    study = studies.open_study(storage, "study", True, "asks", schedule(4))
    tried = []

    def undefined(trial: optuna.Trial, candidate: Candidate) -> float:
        tried.append(trial.number)
        assert len(tried) < 9, "endless"
        return float("nan")

    studies.run_trials(study, SPACE, schedule(4), undefined)

    assert len(studies.failed(study)) == len(tried) == 5
    with pytest.raises(MedtlError, match="was completed: its AUROC is not defined"):
        studies.check_completed(study)


def test_a_trial_killed_while_its_parameters_were_drawn_draws_the_same(storage):
    study = studies.open_study(storage, "study", True, "asks", schedule(1))
    storage.storage.create_new_trial(study._study_id)
    half = study.ask({"optimizer": SPACE.distributions()["optimizer"]})
    studies.restart_cut_off_trials(study, storage, SPACE)
    assert study.trials[half.number].state == TrialState.FAIL
    studies.run_trials(study, SPACE, schedule(1), score)
    assert search_result.table(study, SPACE)["number"].tolist() == [half.number + 1]
    other = studies.open_study(storage, "other", True, "asks", schedule(1))
    studies.run_trials(other, SPACE, schedule(1), score)
    assert study.trials[-1].params == other.trials[0].params
    assert len(studies.finished(study)) == 1


def test_a_failed_trial_is_recorded_and_the_search_goes_on(storage):
    study = studies.open_study(storage, "study", True, "asks", schedule(4))

    def sometimes(trial, candidate):
        if trial.number == 1:
            raise MedtlError("the loss is not a finite number")
        if trial.number == 2:
            raise Pruned
        return 0.5

    studies.run_trials(study, SPACE, schedule(4), sometimes)
    table = search_result.table(study, SPACE)
    assert list(table["state"][:3]) == ["complete", "failed", "pruned"]
    assert table["error"][1] == "the loss is not a finite number"
    assert len(studies.finished(study)) == 4


def test_a_search_in_which_all_fail_says_why(storage):
    study = studies.open_study(storage, "study", True, "asks", schedule(3))

    def never(trial, candidate):
        raise MedtlError("out of memory")

    studies.run_trials(study, SPACE, schedule(3), never)
    with pytest.raises(MedtlError, match="out of memory"):
        studies.check_completed(study)


def test_an_unfinished_study_goes_on_and_a_finished_one_is_left_alone(storage):
    first = studies.open_study(storage, "medtl", False, "asks", schedule(2))
    again = studies.open_study(storage, "medtl", False, "asks", schedule(2))
    assert again.study_name == first.study_name == "medtl"
    other = studies.open_study(storage, "medtl", False, "asks something else", schedule(2))
    assert other.study_name == "medtl-2"
    first.set_user_attr(studies.FINISHED, "run")
    third = studies.open_study(storage, "medtl", False, "asks", schedule(2))
    assert third.study_name == "medtl-3"
    cut_off = ["run"].__contains__
    fourth = studies.open_study(storage, "medtl", False, "asks", schedule(2), cut_off)
    assert fourth.study_name == "medtl", "the run that finished it was killed before its own end"


def test_a_study_that_the_user_named_is_not_mixed_with_another_question(storage):
    studies.open_study(storage, "mine", True, "asks", schedule(2))
    with pytest.raises(ParameterError, match="another name"):
        studies.open_study(storage, "mine", True, "asks something else", schedule(2))


def test_a_storage_that_does_not_open_is_one_line():
    with pytest.raises(MedtlError, match="does not open") as error:
        open_store("sqlite:////no/such/folder/x.db")
    assert "\n" not in str(error.value)


def test_importances_name_the_cutoff(storage):
    study = studies.open_study(storage, "study", True, "asks", schedule(10))
    studies.run_trials(study, SPACE, schedule(10), score)
    shares = search_result.importances(study, seed=0)
    assert max(shares, key=shares.get) == "cutoff"
    assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
