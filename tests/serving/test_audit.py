"""The audit log: a line per row that names image, answer and model, and holds nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModelContext

from benchmarks.crafted import rewritten
from medtl.errors import MedtlError
from medtl.inference.predictor import Predictor
from medtl.serving.audit import AuditLog, open_audit_log
from medtl.serving.handler import BUNDLE, FIELDS, ServedModel
from medtl.serving.request_parsing import Parameters


def lines(folder: Path) -> list[dict]:
    return [
        json.loads(line)
        for file in sorted(folder.iterdir())
        for line in file.open(encoding="utf-8")
    ]


def test_each_row_has_a_line_without_pixels(
    bundle: Predictor, tmp_path: Path, pixels, image_file, monkeypatch: pytest.MonkeyPatch
):
    bundle.save(tmp_path / BUNDLE)
    model = ServedModel()
    model.load_context(PythonModelContext({BUNDLE: str(tmp_path / BUNDLE)}, None))
    monkeypatch.setenv("MEDTL_AUDIT", str(tmp_path / "audit"))
    model.audit = open_audit_log()
    file = image_file(pixels(1, 3)[0])
    unread = rewritten(file, "DICOM")[:400]
    samples = [[unread], [file], [None]]
    rows = model.answers(samples, Parameters(explain=True, request_id="ward-7"))
    found = lines(tmp_path / "audit")
    hashes = [None if each is None else hashlib.sha256(each).hexdigest() for (each,) in samples]
    assert [line["images"] for line in found] == [[each] for each in hashes]
    for line, row in zip(found, rows, strict=True):
        assert {*FIELDS} < {*line}
        assert "heatmap" not in line
        assert line["probabilities"] == row["probabilities"]
        assert line["request_id"] == "ward-7"
        assert (line["error"] is None) == (row["error"] is None)
    assert found[1]["distance"] == pytest.approx(bundle.distances(pixels(1, 3))[0], abs=1e-3)
    assert found[0]["distance"] is None


def test_a_full_file_is_followed_by_another(tmp_path: Path):
    folder = tmp_path / "audit"
    log = AuditLog(folder, largest=100)
    for number in range(9):
        log.write([{"number": number, "text": "x" * 40}])
    assert len(list(folder.iterdir())) > 2
    assert [line["number"] for line in lines(folder)] == list(range(9))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDTL_AUDIT", str(tmp_path / "file"))
    with pytest.raises(MedtlError, match="set MEDTL_AUDIT to another folder") as refused:
        open_audit_log()
    assert "\n" not in str(refused.value)
    monkeypatch.delenv("MEDTL_AUDIT")
    assert open_audit_log() is None


def test_an_answer_that_cannot_be_audited_is_withheld(
    bundle: Predictor, tmp_path: Path, small_disk
):
    disk = small_disk(4)
    bundle.save(tmp_path / BUNDLE)
    model = ServedModel()
    model.load_context(PythonModelContext({BUNDLE: str(tmp_path / BUNDLE)}, None))
    model.audit = AuditLog(disk)
    with pytest.raises(MlflowException, match="the answer is withheld") as refused:
        model.answers([[b"junk"]] * 100, Parameters())
    assert "\n" not in str(refused.value)
