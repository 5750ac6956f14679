"""A request's body becomes rows of files; in a process that serves nothing all stays MLflow's."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow.pyfunc import PythonModelContext, scoring_server
from mlflow.types import ColSpec, DataType, Schema

from benchmarks.crafted import picture
from benchmarks.hostile import rows_of
from medtl.inference.predictor import Predictor
from medtl.serving import request_parsing
from medtl.serving.handler import BUNDLE, ServedModel
from medtl.serving.request_parsing import Parameters, RefusedRequest, parsed, respond

IMAGE = Schema([ColSpec(DataType.binary, "image")])
CASE = Schema([ColSpec(DataType.binary, f"image_{name}", required=False) for name in ("t1", "t2")])


@pytest.fixture
def model(bundle: Predictor, tmp_path: Path) -> ServedModel:
    bundle.save(tmp_path / BUNDLE)
    served = ServedModel()
    served.load_context(PythonModelContext({BUNDLE: str(tmp_path / BUNDLE)}, None))
    return served


def body(**form: object) -> bytes:
    return json.dumps(form).encode()


FILE = bytes(range(256)) + b"hell"
TEXT = base64.b64encode(FILE).decode()


@pytest.mark.parametrize(
    "value",
    [
        TEXT,
        base64.encodebytes(FILE).decode(),
        TEXT.replace("/", "/\r\n"),
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(FILE).decode(),
        base64.urlsafe_b64encode(FILE).decode().rstrip("="),
        f"data:image/png;base64,{TEXT}",
        f"DATA:application/dicom;name=a.dcm;BASE64, {TEXT.rstrip('=')}",
        "data:image/jpeg;base64," + quote(TEXT, safe=""),
        {"b64": TEXT},
        {"b64": f"data:;base64,{TEXT}"},
    ],
)
def test_base64_is_read_as_people_send_it(value: object):
    assert "=" in TEXT
    assert {"+", "/"} <= set(TEXT)
    for form in ("dataframe_records", "instances"):
        sent = body(**{form: [{"image": value}]})
        assert parsed(sent, "application/json", IMAGE) == ([[FILE]], Parameters())
    assert parsed(body(instances=[value]), "application/json", IMAGE) == ([[FILE]], Parameters())


@pytest.mark.parametrize(
    "value", ["?", "a", "aGVsbG8*", "image.png", "data:,hello", "data:text/plain,aGVs", "é"]
)
def test_text_that_is_no_base64_stays(value: str):
    rows, _ = parsed(body(dataframe_records=[{"image": value}]), "application/json", IMAGE)
    assert rows == [[value]]


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=UTF-8",
        'application/json;charset="utf-8"',
        "Application/JSON ; Charset = utf8 ; format=pandas-split",
        "application/json;",
    ],
)
def test_content_types_that_mean_json_in_utf_8(kind: str):
    assert parsed(body(instances=[""]), kind, IMAGE) == ([[b""]], Parameters())


def test_refusals_name_what_to_send():
    sent = body(inputs=[TEXT])
    with pytest.raises(RefusedRequest, match=r'{"dataframe_records": \[{"image": BASE64}\]}'):
        parsed(sent, "application/json", IMAGE)
    with pytest.raises(RefusedRequest, match="JSON in latin-1; send it in UTF-8"):
        parsed(sent, "application/json; charset=latin-1", IMAGE)
    with pytest.raises(RefusedRequest, match="list of objects with image_t1 and image_t2"):
        parsed(body(instances=[TEXT]), "application/json", CASE)


def test_columns_are_found_by_name_and_others_left():
    split = {"columns": ["image_t2", "note"], "index": [7], "data": [["aGVsbG8=", "text"]]}
    rows, parameters = parsed(
        body(dataframe_split=split, params={"explain": True}), "application/json", CASE
    )
    assert rows == [[None, b"hello"]]
    assert parameters == Parameters(explain=True)


@pytest.mark.parametrize("value", ["true", 1, None, [True]])
def test_explain_is_true_or_false(value: object):
    sent = body(dataframe_records=[{"image": ""}], params={"explain": value})
    with pytest.raises(RefusedRequest, match="explain"):
        parsed(sent, "application/json", IMAGE)


@pytest.mark.parametrize("value", ["a b", "line\n", "é", "a" * 201, 5, None, ["a"]])
def test_a_request_id_is_short_printable_text(value: object):
    sent = body(dataframe_records=[{"image": ""}], params={"request_id": value})
    with pytest.raises(RefusedRequest, match="request_id has to be text"):
        parsed(sent, "application/json", IMAGE)


def test_a_request_id_is_passed_on():
    sent = body(dataframe_records=[{"image": ""}], params={"request_id": "ward-7/123"})
    assert parsed(sent, "application/json", IMAGE)[1] == Parameters(request_id="ward-7/123")


def test_more_bytes_than_the_largest_request_has_are_not_parsed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_parsing, "MOST_BYTES", 2**20)
    sent = body(dataframe_records=[{"image": "A" * 3 * 2**20}])
    with pytest.raises(RefusedRequest, match="more than 1 MiB of images; send it in parts"):
        parsed(sent, "application/json", IMAGE)


def test_the_largest_number_of_rows_is_parsed():
    records = [{"image_t1": "AAAA", "image_t2": "AAAA"}] * request_parsing.MOST_ROWS
    rows, _ = parsed(body(dataframe_records=records), "application/json", CASE)
    assert len(rows) == request_parsing.MOST_ROWS


def test_a_request_is_given_up_when_the_servers_time_limit_is_over(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
):
    sent = rows_of([picture("PNG")]).body
    assert respond(model.answers, sent, "application/json", None, IMAGE).status == 200
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "0")
    with pytest.raises(RefusedRequest, match="larger --timeout"):
        respond(model.answers, sent, "application/json", None, IMAGE)


def test_only_a_server_gets_another_way_to_read_requests(model: ServedModel):
    assert model.answers([[picture("PNG")]], Parameters())[0]["error"] is None
    assert scoring_server.invocations.__module__ == scoring_server.__name__
