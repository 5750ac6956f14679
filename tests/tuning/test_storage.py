"""Many workers on one study in a real PostgreSQL: counted, found dead, led by one."""

from __future__ import annotations

import threading
import time
from collections import Counter

import optuna
import psycopg
import pytest
from optuna.trial import TrialState

from medtl.errors import MedtlError
from medtl.tuning import study as studies
from medtl.tuning.search_space import Candidate, Space
from medtl.tuning.storage import PostgresCoordinator, Store, connected, open_store, with_driver
from medtl.tuning.study import Schedule

SPACE = Space(("adam", "sgd"), 1e-4, 1e-2, ("conv1", "layer1", "layer2", "fc"))


def schedule(trials: int) -> Schedule:
    return Schedule(trials=trials, timeout=0, pruner="none", seed=3)


def opened(database: str, trials: int, worker: str = "") -> tuple[Store, optuna.Study]:
    store = open_store(database, worker)
    return store, studies.open_study(store, "study", True, "asks", schedule(trials))


def at_once(function, count: int) -> None:
    threads = [threading.Thread(target=function, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(studies, "POLL", 0.05)


def test_workers_that_begin_at_once_run_each_trial_once_and_none_too_many(database):
    begun = []

    def score(trial: optuna.Trial, candidate: Candidate) -> float:
        begun.append(trial.number)
        time.sleep(0.02)
        if trial.number == 3:
            raise MedtlError("the loss is not a finite number")
        return candidate.lr

    def search(place: int) -> None:
        store, study = opened(database, 10)  # the database is new: all make its tables
        studies.run_trials(study, SPACE, schedule(10), score, coordinator=store.coordinator)

    at_once(search, 4)
    _, study = opened(database, 10)
    assert len(studies.finished(study)) == 10
    assert len(studies.failed(study)) == 1
    assert Counter(begun) == Counter(range(11))
    drawn = {tuple(sorted(trial.params.items())) for trial in study.trials}
    assert len(drawn) == 11, "workers that ask at once are given the same candidate"


def test_a_trial_whose_worker_gives_no_sign_is_run_again_and_a_living_one_is_not(database):
    coordinator = PostgresCoordinator(with_driver(database), "second", grace=1)
    store = Store(database, coordinator.storage, coordinator)
    study = studies.open_study(store, "study", True, "asks", schedule(3))
    studies.prepare(study, [({"optimizer": "sgd", "lr": 1e-3, "depth": 2}, "a start")], "run")
    silent, unsigned = (study.ask(SPACE.distributions()) for _ in range(2))
    coordinator.begin(silent)
    dead = []
    time.sleep(1.2)
    living = study.ask(SPACE.distributions())
    coordinator.begin(living)
    watched = threading.Event()

    def live() -> None:
        while not watched.wait(0.2):
            coordinator.storage.record_heartbeat(living._trial_id)
        study.tell(living, 0.5)

    thread = threading.Thread(target=live)
    thread.start()
    threading.Timer(2, watched.set).start()
    studies.run_trials(
        study,
        SPACE,
        schedule(3),
        lambda trial, candidate: candidate.lr,
        coordinator=coordinator,
        on_dead=lambda trial: dead.append(trial.number),
    )
    thread.join()
    assert sorted(dead) == [silent.number, unsigned.number]
    again = {t.user_attrs.get(studies.RESTARTS): t for t in studies.finished(study)}
    assert again[silent.number].params == {"optimizer": "sgd", "lr": 1e-3, "depth": 2}
    assert again[silent.number].user_attrs["why"] == "a start"
    assert again[unsigned.number].params == unsigned.params
    assert len(studies.finished(study)) == 3


def test_who_was_taken_for_dead_by_mistake_does_not_count_twice(database):
    store, study = opened(database, 2, worker="slow")

    def overtaken(trial: optuna.Trial, candidate: Candidate) -> float:
        if trial.number == 0:
            (dead,) = store.coordinator.dead_with(study, "slow")
            studies.queue_again(study, dead)
        return candidate.lr

    studies.run_trials(study, SPACE, schedule(2), overtaken, coordinator=store.coordinator)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert study.trials[1].params == study.trials[0].params


def test_parameters_that_kill_their_workers_are_given_up(database):
    store, study = opened(database, 2, worker="mortal")
    study.enqueue_trial({"optimizer": "sgd", "lr": 1e-3, "depth": 0})
    for death in range(1, 1 + studies.MOST_DEATHS):
        store.coordinator.begin(study.ask(SPACE.distributions()))
        (dead,) = store.coordinator.dead_with(study, "mortal")
        assert studies.queue_again(study, dead, 1) is (death < studies.MOST_DEATHS)
    assert study.get_trials(states=(TrialState.WAITING,)) == []


def test_one_leads_and_another_takes_its_place_when_its_connection_is_gone(database):
    (first, study), (second, joined) = opened(database, 1), opened(database, 1)
    with first.coordinator.lead(study) as leads, second.coordinator.lead(joined) as follows:
        assert [leads(), follows(), leads()] == [True, False, True]
        with psycopg.connect(database, autocommit=True) as server:
            server.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks JOIN pg_database"
                " ON pg_database.oid = pg_locks.database"
                " WHERE locktype = 'advisory' AND datname = current_database()"
            )
        assert [follows(), leads(), leads()] == [True, False, False]
    with first.coordinator.lead(study) as leads:
        assert leads()


def test_a_search_that_one_ends_is_over_for_all_until_it_is_opened_again(database):
    (first, study), (second, joined) = opened(database, 5), opened(database, 5)
    first.coordinator.end(study)
    studies.run_trials(joined, SPACE, schedule(5), None, coordinator=second.coordinator)
    assert joined.trials == []
    first.coordinator.reopen(study)
    score = lambda trial, candidate: 0.5  # noqa: E731
    studies.run_trials(joined, SPACE, schedule(5), score, coordinator=second.coordinator)
    assert len(joined.trials) == 5


@pytest.mark.parametrize("wrong", ["secret", "sec%40ret"])
def test_a_server_that_does_not_let_in_is_one_line_without_the_password(database, wrong):
    url = database.replace(":open-sesame@", f":{wrong}@")
    with pytest.raises(MedtlError, match=r"storage postgresql:.*does not open") as refused:
        open_store(url)
    assert "authentication failed" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert wrong not in str(refused.value)


def test_a_password_may_stand_in_the_environment(database, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "open-sesame")
    store = open_store(database.replace(":open-sesame@", "@"))
    assert optuna.get_all_study_names(store.storage) == []


def test_a_server_that_is_lost_is_one_line(database):
    store, study = opened(database, 5)

    def lose(trial: optuna.Trial, candidate: Candidate) -> float:
        with psycopg.connect(database.rpartition("/")[0] + "/postgres", autocommit=True) as server:
            server.execute(f"DROP DATABASE {database.rpartition('/')[2]} WITH (FORCE)")
        return 0.5

    with pytest.raises(MedtlError, match=r"was lost.*goes on") as lost, connected(database):
        studies.run_trials(study, SPACE, schedule(5), lose, coordinator=store.coordinator)
    assert "medtl:***@" in str(lost.value)
    assert "\n" not in str(lost.value)


def test_a_server_that_is_not_there_is_one_line():
    with pytest.raises(MedtlError, match=r"medtl:\*\*\*@127.0.0.1:1/x does not open.*refused"):
        open_store("postgresql://medtl:secret@127.0.0.1:1/x")
