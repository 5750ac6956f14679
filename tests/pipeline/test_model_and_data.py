"""Errors for missing models cite the `tune` command for the same data."""

from __future__ import annotations

import shlex

import pytest
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.pipeline.model_and_data import chosen_model, data_of_training
from medtl.settings.evaluation import EvaluateSettings, PerturbSettings


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        (EvaluateSettings(), ["data=phantoms"]),
        (EvaluateSettings(model_name="mine"), ["data=YOUR_IMAGES", "model_name=mine"]),
        (PerturbSettings(data="phantoms-findings"), ["data=phantoms-findings"]),
        (
            EvaluateSettings(positive="focal,it's diffuse", frames="all", outside="allow"),
            ["data=phantoms", "frames=all", "outside=allow", "positive=focal,it's diffuse"],
        ),
    ],
)
def test_the_command_that_makes_a_champion_is_about_the_same_data(settings, parameters):
    with pytest.raises(MedtlError, match="a search makes it") as told:
        chosen_model(settings)
    command = shlex.split(str(told.value).partition("makes it: ")[2])
    assert command[:6] == ["mlflow", "run", ".", "-e", "tune", "--env-manager"]
    assert [each for each in command[7:] if each != "-P"] == parameters


def test_a_folder_of_the_users_own_is_named_as_typed(tmp_path):
    folder = tmp_path / "my wards"
    folder.mkdir()
    with pytest.raises(MedtlError, match="no registered model medtl-my-wards") as told:
        chosen_model(EvaluateSettings(data=str(folder)))
    assert f"data={folder}" in shlex.split(str(told.value))


def test_a_registered_model_without_a_champion_is_promoted(tmp_path):
    client = MlflowClient()
    client.create_registered_model("mine")
    client.create_model_version("mine", str(tmp_path))
    with pytest.raises(MedtlError, match=r"promote .* model_name=mine -P version=1$"):
        chosen_model(EvaluateSettings(model_name="mine"))


def test_data_of_a_training_that_is_elsewhere_is_said_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    assert data_of_training("models:/mine/1", {"data": "images"}, "give data=") == "images"
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(MedtlError) as told:
        data_of_training("models:/mine/1", {"data": "images"}, "give data=")
    assert str(told.value) == (
        f"images, on which models:/mine/1 was trained, is not there (seen from "
        f"{tmp_path / 'below'}); give data="
    )
