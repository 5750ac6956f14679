"""Tables of predictions: the served answers in order, whatever is killed or broken between."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pydicom
import pytest
from mlflow.models.model import ModelInfo
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medtl.commands import predict as module
from medtl.commands.predict import predict
from medtl.errors import MedtlError, ParameterError
from medtl.inference.predictor import Predictor
from medtl.pipeline import predictions
from medtl.pipeline.partial_predictions import PartialPredictions, partial_file
from medtl.reporting.csv_export import as_written
from medtl.serving.handler import FIELDS
from medtl.settings.prediction import PredictSettings
from medtl.tracking.logged_model import load_served

ORIGIN = ["request_id"]


@pytest.fixture
def inbox(tmp_path: Path, pixels, image_file) -> Path:
    """A folder of 11 files, of which three cannot be read."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    for number, image in enumerate(pixels(8, 1)):
        kind = ("PNG", "JPEG")[number % 2]
        (folder / f"{number}.{kind.lower()}").write_bytes(image_file(image, kind))
    (folder / "=cut.png").write_bytes(image_file(pixels(1, 2)[0])[:300])
    (folder / "empty.png").touch()
    (folder / "junk.jpg").write_bytes(b"junk")
    return folder


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "CHUNK", 3)


def write_dicom(file: Path, patient: str) -> None:
    header = pydicom.Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    header.PatientName = header.PatientID = patient
    header.Rows, header.Columns, header.SamplesPerPixel = 6, 7, 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelRepresentation = 0
    header.PixelData = np.arange(42, dtype=np.uint16).tobytes()
    header.save_as(file, enforce_file_format=True)


def settings_of(model: ModelInfo, data: Path, output: Path, **more: object) -> PredictSettings:
    return PredictSettings(data=str(data), model=model.model_uri, output=str(output), **more)


def test_rows_are_the_served_answers_in_order(
    logged: ModelInfo, inbox, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(module, "MOST_NAMED", 1)
    predict(settings_of(logged, inbox, tmp_path))
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    names = sorted(path.name for path in inbox.iterdir())
    assert table["path"].tolist() == names
    served = load_served(logged.model_uri)
    files = pd.DataFrame({"image": [(inbox / name).read_bytes() for name in names]})
    answers = served.predict(None, files)
    flat = answers.drop(columns="probabilities").join(
        pd.DataFrame([each or {} for each in answers["probabilities"]]).add_prefix("probability_")
    )
    assert set(table) == {"path", *flat}
    for name in set(flat) - set(ORIGIN):
        if name.startswith("probability"):
            np.testing.assert_allclose(table[name], flat[name].astype(float), atol=1e-6)
        else:
            told = flat[name].astype(object).where(flat[name].notna(), None)
            assert table[name].astype(object).where(table[name].notna(), None).tolist() == (
                told.tolist()
            )
    assert set(FIELDS) - {"probabilities"} <= set(table)
    text = as_written(pd.read_csv(tmp_path / "predictions.csv", dtype=str, keep_default_na=False))
    assert text["path"].tolist() == names
    assert text["probability"].tolist() == [
        "" if pd.isna(each) else repr(each) for each in table["probability"].tolist()
    ]
    run = mlflow.last_active_run()
    assert run.data.tags["medtl.kind"] == "predict"
    assert set(table["request_id"]) == {run.info.run_id}
    assert (run.data.metrics["images"], run.data.metrics["errors"]) == (11, 3)
    (listed,) = run.inputs.dataset_inputs
    assert listed.dataset.name == "inbox"
    logged_files = mlflow.artifacts.list_artifacts(f"runs:/{run.info.run_id}/predictions")
    assert len(logged_files) == 2
    told = capsys.readouterr().out
    assert "not answered  3 of 11" in told
    most = table["error"].value_counts().iloc[0]
    assert f"; {3 - most} x others, see the column error)" in told


def test_a_command_killed_three_times_gives_the_same_table(
    logged: ModelInfo, inbox, tmp_path, small_chunks, monkeypatch: pytest.MonkeyPatch
):
    undisturbed = tmp_path / "undisturbed.csv"
    predict(settings_of(logged, inbox, undisturbed))
    settings, add = settings_of(logged, inbox, tmp_path / "killed.csv"), PartialPredictions.add
    answered: list[str] = []

    class Killed(BaseException):
        pass

    for _ in range(3):
        calls = itertools.count()

        def add_once(self, chunk, rows, calls=calls):
            if next(calls):
                # as a kill leaves it: a part of a line, which was not confirmed
                self._file.seek(0, os.SEEK_END)
                self._write(f'{chunk} [{{"label": "cle'.encode())
                raise Killed
            answered.append(chunk)
            add(self, chunk, rows)

        monkeypatch.setattr(PartialPredictions, "add", add_once)
        with pytest.raises(Killed):
            predict(settings)
        assert not (tmp_path / "killed.csv").exists()
    monkeypatch.setattr(PartialPredictions, "add", add)
    predict(settings)
    assert len(answered) == len(set(answered)) == 3
    whole, resumed = (
        pd.read_parquet(file.with_suffix(".parquet")).drop(columns=ORIGIN)
        for file in (undisturbed, tmp_path / "killed.csv")
    )
    pd.testing.assert_frame_equal(whole, resumed)
    assert not partial_file(tmp_path / "killed.csv").exists()


def test_a_finished_table_is_not_computed_again_and_no_other_is_replaced(
    logged: ModelInfo, inbox, tmp_path, image_file, pixels, monkeypatch, capsys
):
    settings = settings_of(logged, inbox, tmp_path / "p.parquet")
    predict(settings)
    before = (tmp_path / "p.csv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module, "answer_files", None)
        predict(settings)
    assert "was finished before" in capsys.readouterr().out
    (inbox / "new.png").write_bytes(image_file(pixels(1, 9)[0]))
    with pytest.raises(ParameterError, match="other images"):
        predict(settings)
    assert (tmp_path / "p.csv").read_bytes() == before
    (tmp_path / "mine.csv").write_text("precious")
    with pytest.raises(ParameterError, match="not made by predict"):
        predict(settings_of(logged, inbox, tmp_path / "mine.csv"))
    run = mlflow.last_active_run()
    assert "not made by predict" in run.data.tags["medtl.error"]


def test_unfinished_answers_of_another_command_are_kept(tmp_path):
    file = tmp_path / "p.partial.jsonl"
    PartialPredictions(file, {"model": "a"}, "1").close()
    with pytest.raises(MedtlError, match=r"unfinished answers of another command \(model a\)"):
        PartialPredictions(file, {"model": "b"}, "2")
    assert PartialPredictions(file, {"model": "a"}, "3").request_id == "1"


def test_heat_maps_are_files_named_in_the_table(logged: ModelInfo, inbox, tmp_path, bundle):
    predict(settings_of(logged, inbox, tmp_path, heatmaps=True))
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    drawn = table["heatmap"].notna()
    assert drawn.tolist() == table["error"].isna().tolist()
    for name in table["heatmap"][drawn]:
        assert Image.open(io.BytesIO((tmp_path / name).read_bytes())).size == (64, 64)
    assert len(list((tmp_path / "predictions_heatmaps").iterdir())) == 8


def test_a_name_in_a_dicom_header_is_in_no_column(logged: ModelInfo, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    good = folder / "good"
    write_dicom(good, "DOE^JANE")
    data = good.read_bytes()
    (folder / "cut").write_bytes(data[: len(data) - 40])
    place = data.index(b"MONOCHROME2")
    (folder / "odd").write_bytes(data[:place] + b"DOE^JANE   " + data[place + 11 :])
    predict(settings_of(logged, folder, tmp_path))
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    assert table["path"].tolist() == ["cut", "good", "odd"]
    assert table["error"].isna().tolist() == [False, True, False]
    assert b"DOE" not in (tmp_path / "predictions.csv").read_bytes()


def test_columns_of_the_input_are_carried_along(logged: ModelInfo, inbox, tmp_path):
    listed = "path,label,ward\n3.jpeg,sick,=1+1\n3.jpeg,well,b\n0.png,?,c\n"
    (inbox / "list.csv").write_text(listed)
    predict(settings_of(logged, inbox / "list.csv", tmp_path))
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    assert list(table)[:4] == ["path", "csv_label", "ward", "label"]
    assert table["csv_label"].tolist() == ["sick", "well", "?"]
    assert table["ward"].tolist() == ["=1+1", "b", "c"]
    assert table["probability"][0] == table["probability"][1]
    assert ",'=1+1," in (tmp_path / "predictions.csv").read_text()


def test_two_commands_do_not_write_one_table(logged: ModelInfo, inbox, tmp_path):
    with (
        module.partial_predictions(tmp_path / "predictions.csv", {}, "1"),
        pytest.raises(MedtlError, match="another predict writes"),
    ):
        predict(settings_of(logged, inbox, tmp_path))


@pytest.mark.parametrize("size", [64, 96, 224, 1024])
def test_passes_of_small_images_are_larger(size: int, bundle: Predictor):
    device = next(bundle.network.parameters()).device
    assert 1 <= predictions.pass_size(size, device) <= predictions.CHUNK
    assert predictions.pass_size(size, device) >= predictions.pass_size(2 * size, device)
