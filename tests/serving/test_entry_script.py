"""`mlflow models serve` from an empty folder: answers, refusals in one line, and it goes on."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.compressed import compressed_files
from benchmarks.crafted import in_runs, picture, rewritten
from benchmarks.hostile import Request, hostile_files, hostile_requests, odd_files, rows_of
from benchmarks.served import Server, serving
from medtl.errors import MedtlError
from medtl.inference.predictor import WEIGHTS_FILE, Predictor

Post = Callable[[object], tuple[int, dict]]
MEBIBYTE = 2**20
FILE = picture("PNG")


@pytest.fixture(scope="module")
def audit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def server(
    filled_store: tuple[Path, str], audit_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    database, uri = filled_store
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{database}"
    environment["MEDTL_AUDIT"] = str(audit_folder)
    with serving(uri, tmp_path_factory.mktemp("served"), environment) as started:
        yield started


@pytest.fixture
def post(server: Server) -> Post:
    """`post(body)`: the server's status and JSON for a body that is sent as JSON."""

    def posted(body: object) -> tuple[int, dict]:
        return read(server.send(json.dumps(body).encode()))

    return posted


@pytest.fixture
def unharmed(server: Server) -> Iterator[None]:
    """Afterwards the server has not grown beyond bounds meanwhile, and answers."""
    server.memory().forget_peak()
    before = server.memory().now()
    yield
    assert server.memory().peak() - before < 300 * MEBIBYTE
    assert server.send(rows_of([picture("PNG")]).body)[0] == 200


def read(answered: tuple[int, bytes]) -> tuple[int, dict]:
    """The status and the JSON, without the ids that are made for each request."""
    status, answer = answered[0], json.loads(answered[1])
    for row in answer.get("predictions", ()):
        assert len(row.pop("request_id")) == 32
    return status, answer


def text(file: bytes) -> str:
    return base64.b64encode(file).decode("ascii")


def test_both_forms_of_a_table_are_answered(post: Post, bundle: Predictor, pixels, image_file):
    images = pixels(2, 1)
    files = [text(image_file(image)) for image in images]
    status, split = post({"dataframe_split": {"columns": ["image"], "data": [[f] for f in files]}})
    assert status == 200
    _, records = post({"dataframe_records": [{"image": file} for file in files]})
    assert records == split
    rows = split["predictions"]
    expected = bundle.answer(images)
    for index, row in enumerate(rows):
        assert row["label"] == bundle.classes[expected.labels[index]]
        probabilities = [row["probabilities"][name] for name in bundle.classes]
        np.testing.assert_allclose(probabilities, expected.probabilities[index], rtol=1e-4)
        assert row["probability"] == max(probabilities)
        assert row["decision"] in bundle.classes
        assert row["in_domain"] is True
        assert row["error"] is None


def test_answers_and_version_name_the_model(server: Server, filled_store: tuple[Path, str]):
    model = filled_store[1].removeprefix("models:/")
    body = json.loads(rows_of([FILE, b"junk"]).body) | {"params": {"request_id": "ward-7"}}
    rows = json.loads(server.send(json.dumps(body).encode())[1])["predictions"]
    with contextlib.closing(server.connected()) as connection:
        connection.request("GET", "/version")
        version = json.loads(connection.getresponse().read())
    assert version["mlflow"] == mlflow.__version__
    assert version["model"] == model
    assert len(version["digest"]) == 16
    for row in rows:
        assert row["request_id"] == "ward-7"
        assert row["model"] == model
        assert row["version"] is None, "it is not registered"
        assert row["run_id"] == version["run_id"]


def test_answers_are_in_the_audit_log(server: Server, audit_folder: Path):
    body = json.loads(rows_of([FILE, b"junk"]).body) | {"params": {"request_id": "audited"}}
    rows = json.loads(server.send(json.dumps(body).encode())[1])["predictions"]
    written = [json.loads(line) for file in audit_folder.iterdir() for line in file.open()]
    lines = [line for line in written if line["request_id"] == "audited"]
    assert [line["label"] for line in lines] == [row["label"] for row in rows]
    assert lines[0]["images"] == [hashlib.sha256(FILE).hexdigest()]


@pytest.mark.slow
def test_a_flipped_bit_in_the_weights_ends_the_server_in_one_line(
    filled_store: tuple[Path, str], tmp_path: Path
):
    (model,) = (filled_store[0].parent / "artifacts" / "models").glob("*/artifacts")
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    file = copy / "artifacts" / "bundle" / WEIGHTS_FILE
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(MedtlError), serving(str(copy), tmp_path / "served", os.environ):
        pass
    log = (tmp_path / "served" / "server.log").read_text()
    (line,) = (each for each in log.splitlines() if each.startswith("medtl:"))
    assert f"{WEIGHTS_FILE} is damaged: its checksum" in line
    assert "medtl/" not in log.replace(line, ""), "a traceback"


def test_explain_brings_a_heat_map(post: Post, pixels, image_file):
    body = {"dataframe_records": [{"image": text(image_file(pixels(1, 2)[0]))}]}
    status, answer = post(body | {"params": {"explain": True}})
    assert status == 200
    heatmap = base64.b64decode(answer["predictions"][0]["heatmap"], validate=True)
    assert Image.open(io.BytesIO(heatmap)).format == "PNG"
    assert "heatmap" not in post(body)[1]["predictions"][0]


def test_of_64_images_in_all_formats_two_are_broken_and_named(server: Server):
    kinds = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "DICOM")
    files = [rewritten(picture("PNG", seed=row), kinds[row % len(kinds)]) for row in range(64)]
    files[7], files[41] = files[7][:300], b"junk"
    status, answer = read(server.send(rows_of(files).body))
    assert status == 200
    named = {row: said["error"] for row, said in enumerate(answer["predictions"]) if said["error"]}
    assert list(named) == [7, 41]
    assert named[41].startswith("not an image")
    assert len(answer["predictions"]) == 64


def test_every_compression_is_answered_as_the_image_without_it(server: Server):
    compressed, plain = zip(*compressed_files().values(), strict=True)
    rows = read(server.send(rows_of(list(compressed + plain)).body))[1]["predictions"]
    for name, row, expected in zip(compressed_files(), rows, rows[len(compressed) :], strict=False):
        assert row["error"] is None, name
        assert row["probability"] == pytest.approx(expected["probability"], rel=1e-5), name


def test_what_is_no_file_is_the_fault_of_its_row(post: Post):
    good = text(picture("PNG"))
    values = [good, "this is no base64!", 5, None, float("nan"), [good], {"image": good}, True, ""]
    status, answer = post({"dataframe_records": [{"image": value} for value in values]})
    rows = answer["predictions"]
    assert status == 200
    assert [row["error"] is None for row in rows] == [True] + [False] * 8
    assert rows[1]["error"] == (
        "not the bytes of an image file, but text that is no base64 ('!' at 17)"
    )
    assert rows[2]["error"] == "not the bytes of an image file, but int"
    assert rows[3]["error"] == "no image file is given"
    assert rows[6]["error"].endswith('send the base64 of the file as text, or {"b64": TEXT}')
    records = [{"image": good}, {"picture": good}]
    assert post({"dataframe_records": records})[1]["predictions"] == [rows[0], rows[3]]


def test_base64_is_answered_as_people_send_it(server: Server, post: Post):
    file = picture("PNG", seed=1)
    plain = text(file)
    values = [
        plain,
        f"data:image/png;base64,{plain}",
        base64.urlsafe_b64encode(file).decode().rstrip("="),
        base64.encodebytes(file).decode(),
        {"b64": plain},
    ]
    bodies = [{"dataframe_records": [{"image": value}]} for value in values]
    (row,) = post(bodies[0])[1]["predictions"]
    assert row["error"] is None
    assert [post(body)[1]["predictions"] for body in bodies] == [[row]] * len(values)
    for instances in ([{"image": plain}], [{"b64": plain}], [plain], [{"image": {"b64": plain}}]):
        body = json.dumps({"instances": instances}).encode()
        answered = server.send(body, 'application/json; charset="utf-8"')
        assert read(answered) == (200, {"predictions": [row]})


def test_a_good_file_does_not_wait_for_one_that_takes_long(server: Server):
    slow, good = (rows_of([file]).body for file in (in_runs(2_000), rewritten(FILE, "DICOM")))
    with ThreadPoolExecutor(2) as clients:
        asked = [clients.submit(server.send, slow) for _ in range(2)]
        time.sleep(0.2)
        for body in (good, rows_of([FILE]).body):
            _, answer = read(server.send(body))
            assert answer["predictions"][0]["error"] is None
            assert not any(each.done() for each in asked)
    assert [each.result()[0] for each in asked] == [200, 200]


def test_requests_at_the_same_time_get_their_own_answers(server: Server):
    requests = [rows_of([picture("PNG", seed=seed)]).body for seed in range(8)]
    alone = [read(server.send(body))[1]["predictions"][0] for body in requests]
    with ThreadPoolExecutor(8) as clients:
        together = list(clients.map(server.send, requests * 8))
    assert len({row["probability"] for row in alone}) == 8
    for expected, answered in zip(alone * 8, together, strict=True):
        (row,) = read(answered)[1]["predictions"]
        assert row["label"] == expected["label"]
        assert row["probability"] == pytest.approx(expected["probability"], rel=1e-4)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", hostile_files())
def test_a_hostile_file_is_named_in_one_line(server: Server, name: str):
    files = [hostile_files()[name](), picture("PNG")]
    status, answer = read(server.send(rows_of(files).body))
    assert status == 200
    refused, good = answer["predictions"]
    assert refused["error"]
    assert "\n" not in refused["error"]
    assert refused["label"] is None
    assert good["error"] is None


@pytest.mark.usefixtures("unharmed")
def test_what_else_a_file_holds_is_nobodys_concern(server: Server):
    files = [make() for make in odd_files().values()]
    _, answer = read(server.send(rows_of(files).body))
    assert [row["error"] for row in answer["predictions"]] == [None] * len(files)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", hostile_requests())
def test_a_hostile_request_is_refused_in_one_line(server: Server, name: str):
    request = hostile_requests()[name]()
    status, answer = read(server.send(request.body, request.content_type))
    assert status == 400
    assert answer["message"]
    assert "\n" not in answer["message"]
    assert len(answer["message"]) < 400
    assert "stack_trace" not in answer


def test_refusals_say_what_to_do(server: Server, post: Post):
    _, none = post({"dataframe_split": {"columns": ["image"], "data": []}})
    assert none["message"] == "the request has no rows; give one an image, in column image"
    _, many = post({"dataframe_records": [{"image": ""}] * 5000})
    assert many["message"] == "the request has 5000 rows, more than 4096; send it in parts"
    _, other = post({"dataframe_records": [{"picture": ""}]})
    assert other["message"] == "the request has no column image"
    _, csv = read(server.send(b"image\n", "text/csv"))
    assert csv["message"] == "the request is text/csv, not application/json"


NAMES = st.sampled_from(["image", "columns", "data", "index", "params", "explain", "", "ü\ud800"])
FILES = st.sampled_from([text(picture("PNG")), text(picture("PNG")[:99]), "", "=", "data:,", "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | FILES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
TABLES = st.one_of(
    VALUES,
    st.fixed_dictionaries({"columns": st.lists(NAMES, max_size=3), "data": st.lists(VALUES)}),
    st.lists(st.dictionaries(NAMES, FILES | VALUES, max_size=3), max_size=4),
)
FORMS = st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs", "messages"])
BODIES = st.one_of(
    st.binary(max_size=60),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(FORMS | NAMES, TABLES, min_size=1, max_size=3).map(
        lambda value: json.dumps(value).encode()
    ),
)
TYPES = st.sampled_from(
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "text/csv", "", "é"]
)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(body=BODIES, kind=TYPES | st.just("application/json"))
def test_no_request_is_the_servers_fault(server: Server, body: bytes, kind: str):
    began = time.perf_counter()
    status, answer = read(server.send(body, kind))
    assert status in (200, 400)
    assert time.perf_counter() - began < 30
    said = [answer["message"]] if status == 400 else [row["error"] for row in answer["predictions"]]
    assert all(line is None or "\n" not in line for line in said)


def test_many_requests_leave_no_memory_behind(server: Server):
    bad = [make() for name, make in hostile_requests().items() if "illion" in name]
    requests: list[Request] = [*bad, rows_of([picture("PNG")] * 64, explain=True)]
    sizes = []
    for _ in range(4):
        for request in requests:
            server.send(request.body, request.content_type)
        sizes.append(server.memory().now())
    assert max(sizes[1:]) - sizes[0] < 60 * MEBIBYTE
