from __future__ import annotations

from contextlib import suppress

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.settings.training import TrainSettings
from medtl.tracking.run_ownership import OWNER_TAG, owner
from medtl.tracking.runs import (
    ASKS_TAG,
    DIED,
    ERROR_TAG,
    STOPPED,
    SUCCESSOR_TAG,
    close_cut_off_run,
    close_dead,
    close_stopped,
    has_answered,
    nested_run,
    succeed_trials,
    tracked_run,
    was_cut_off,
)

# of this host, but of no process that lives
DEAD = f"{owner().partition(' ')[0]} {2**22 + 1} 1000.00"


def started(parent: str | None = None, process: str = DEAD) -> str:
    """A run as a killed process leaves it."""
    tags = {"mlflow.parentRunId": parent} if parent else {}
    return MlflowClient().create_run("0", tags={**tags, OWNER_TAG: process}).info.run_id


def as_killed(run_id: str) -> None:
    """Makes a run what it was when its process was killed."""
    client = MlflowClient()
    client.set_tag(run_id, OWNER_TAG, DEAD)
    client.update_run(run_id, status="RUNNING")


def status(run_id: str) -> str:
    return mlflow.get_run(run_id).info.status


def successor(run_id: str) -> str | None:
    return mlflow.get_run(run_id).data.tags.get(SUCCESSOR_TAG)


@pytest.mark.parametrize(("close", "why"), [(close_dead, DIED), (close_stopped, STOPPED)])
def test_the_trial_of_a_worker_says_whether_it_died_or_was_stopped(close, why):
    parent = started(process=owner())
    silent, unknown, living = started(), started(parent), started(parent, owner())
    assert was_cut_off(unknown)
    close(silent, parent)
    for run_id in (silent, unknown):
        assert status(run_id) == "KILLED"
        assert mlflow.get_run(run_id).data.tags[ERROR_TAG] == why
        assert was_cut_off(run_id)
    assert status(living) == status(parent) == "RUNNING"
    assert not was_cut_off(living)
    MlflowClient().set_terminated(living, "FINISHED")
    assert not was_cut_off(living)


def test_a_run_that_was_cut_off_is_closed_with_what_is_nested_in_it():
    client = MlflowClient()
    parent, after, other = started(), started(), started()
    nested, finished = started(parent), started(parent)
    deeper = started(nested)
    client.set_terminated(finished, "FINISHED")
    close_cut_off_run(parent, after)
    for run_id in (parent, nested, deeper):
        assert status(run_id) == "KILLED"
        assert successor(run_id) == after
        assert after in mlflow.get_run(run_id).data.tags[ERROR_TAG]
    assert status(finished) == "FINISHED"
    assert status(after) == status(other) == "RUNNING"


def test_what_a_process_that_lives_works_in_is_left_alone():
    after = started()
    parent = started(process=owner())
    cut_off, lives = started(parent), started(parent, process=owner())
    close_cut_off_run(parent, after)
    assert status(parent) == status(lives) == "RUNNING"
    assert status(cut_off) == "KILLED"


def test_a_trial_closes_and_links_the_run_of_the_one_that_it_repeats():
    """The run of a killed worker may be known by its tags alone."""
    client = MlflowClient()
    parent, other_parent = started(), started()

    def trial(number: int, study: str = "many", parent: str = parent) -> str:
        run_id = started(parent)
        for name, value in {"study": study, "trial": number, "data": "0123"}.items():
            client.set_tag(run_id, f"medtl.{name}", value)
        return run_id

    cut_off, closed, finished = trial(3, parent=other_parent), trial(3), trial(3)
    another, of_another_study = trial(4), trial(3, study="few")
    client.set_terminated(closed, "KILLED")
    client.set_terminated(finished, "FINISHED")
    again = trial(7)
    succeed_trials(client.get_run(again), "many", (7, 3))
    for run_id in (cut_off, closed):
        assert (status(run_id), successor(run_id)) == ("KILLED", again)
    for run_id in (finished, another, of_another_study, again):
        assert successor(run_id) is None
    assert status(another) == status(again) == "RUNNING"
    close_cut_off_run(other_parent, parent)
    assert successor(cut_off) == again, "the run that repeats it, not the command's"


def test_a_run_does_not_close_itself():
    run_id = started()
    close_cut_off_run(run_id, run_id)
    close_cut_off_run(None, run_id)
    assert status(run_id) == "RUNNING"


def test_the_same_command_closes_what_was_killed_and_links_what_was_stopped():
    settings = TrainSettings(epochs=3)
    with tracked_run("train", settings) as killed, nested_run("deep", {}, {}) as nested:
        model = MlflowClient().create_logged_model("0", "model", killed.info.run_id)
    as_killed(killed.info.run_id)
    as_killed(nested.info.run_id)
    with suppress(KeyboardInterrupt), tracked_run("train", settings) as stopped:
        assert status(killed.info.run_id) == status(nested.info.run_id) == "KILLED"
        assert successor(killed.info.run_id) == stopped.info.run_id
        assert MlflowClient().get_logged_model(model.model_id).status == "FAILED"
        raise KeyboardInterrupt
    assert status(stopped.info.run_id) == "KILLED"
    assert mlflow.get_run(stopped.info.run_id).data.tags[ERROR_TAG] == STOPPED
    # as `mlflow run` has it in the end, whatever its process said
    MlflowClient().set_terminated(stopped.info.run_id, "FAILED")
    with pytest.raises(MedtlError), tracked_run("train", settings) as failed:
        raise MedtlError("no images")
    assert successor(stopped.info.run_id) == failed.info.run_id
    with tracked_run("train", settings) as last:
        pass
    assert status(last.info.run_id) == "FINISHED"
    assert successor(failed.info.run_id) is None, "it ended by itself"
    assert successor(killed.info.run_id) == stopped.info.run_id


def test_a_run_of_an_earlier_release_is_closed_and_recognised_by_its_tags():
    settings = TrainSettings(epochs=5)
    with tracked_run("train", settings) as now:
        asks = mlflow.get_run(now.info.run_id).data.tags[ASKS_TAG]
    client = MlflowClient()
    tags = {"medtl.process": DEAD, "medtl.asks": asks}
    cut_off, finished = (client.create_run("0", tags=tags).info.run_id for _ in range(2))
    client.set_terminated(finished, "FINISHED")
    assert has_answered(finished, now.info.run_id)
    assert was_cut_off(cut_off)
    with tracked_run("train", settings) as again:
        assert successor(cut_off) == again.info.run_id
    assert status(cut_off) == "KILLED"


def test_tags_that_only_the_program_needs_are_hidden_by_mlflow():
    with tracked_run("train", TrainSettings()) as run, nested_run("trial", {}, {}) as nested:
        shown = [
            name
            for each in (run, nested)
            for name in mlflow.get_run(each.info.run_id).data.tags
            if not name.startswith("mlflow.")
        ]
    assert shown == ["medtl.kind"]


def test_where_and_how_long_is_no_other_question_and_all_else_is():
    with tracked_run("train", TrainSettings(device="cpu")) as first:
        pass
    as_killed(first.info.run_id)
    for kind, settings in (("train", TrainSettings(seed=1)), ("pretrain", TrainSettings())):
        with tracked_run(kind, settings):
            assert status(first.info.run_id) == "RUNNING"
    with tracked_run("train", TrainSettings()):
        assert status(first.info.run_id) == "KILLED"


def test_a_run_handed_over_by_mlflow_has_an_owner_and_ends_killed_when_stopped(monkeypatch):
    handed_over = MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", handed_over)
    with suppress(KeyboardInterrupt), tracked_run("train", TrainSettings()) as run:
        assert run.info.run_id == handed_over
        assert mlflow.get_run(handed_over).data.tags[OWNER_TAG] == owner()
        with nested_run("trial", {}, {}) as nested:
            raise KeyboardInterrupt
    assert status(handed_over) == status(nested.info.run_id) == "KILLED"


def test_settings_name_the_data_for_commands_in_another_folder(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "phantoms").mkdir()
    monkeypatch.chdir(tmp_path)
    places = []
    for data in ("images", "phantoms"):
        with tracked_run("train", TrainSettings(data=data)) as run:
            places.append(mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/settings.json"))
    assert [each["data"] for each in places] == [str(tmp_path / "images"), "phantoms"]
