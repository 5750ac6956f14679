"""`mlflow models serve` from an empty folder: answers, refusals in one line, and it goes on."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl.tracking.bundle import Bundle

Post = Callable[[object], tuple[int, dict]]
PATIENCE = 120  # seconds for the server to start on a busy machine


@pytest.fixture(scope="module")
def post(
    filled_store: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Post]:
    """`post(body)`: the server's status and JSON for a body: bytes, or what is sent as JSON."""
    database, uri = filled_store
    folder = tmp_path_factory.mktemp("empty")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{database}"
    # MLflow looks for uvicorn on the path, where an activated environment has it
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    serve = ["models", "serve", "-m", uri, "--env-manager", "local", "--port", str(port)]
    log = folder.parent / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *serve],
            cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def posted(body: object) -> tuple[int, dict]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}/invocations", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(f"{address}/ping"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield posted
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def text(file: bytes) -> str:
    return base64.b64encode(file).decode("ascii")


def test_both_forms_of_a_table_are_answered(post: Post, bundle: Bundle, pixels, image_file):
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


def test_explain_brings_a_heat_map(post: Post, pixels, image_file):
    body = {"dataframe_records": [{"image": text(image_file(pixels(1, 2)[0]))}]}
    status, answer = post(body | {"params": {"explain": True}})
    assert status == 200
    heatmap = base64.b64decode(answer["predictions"][0]["heatmap"], validate=True)
    assert Image.open(io.BytesIO(heatmap)).format == "PNG"
    assert "heatmap" not in post(body)[1]["predictions"][0]


def test_a_broken_image_is_named_and_the_others_are_answered(post: Post, pixels, image_file):
    good = text(image_file(pixels(1, 3)[0]))
    files = [good, text(b"junk"), good, text(image_file(pixels(1, 3)[0])[:200]), ""]
    status, answer = post({"dataframe_records": [{"image": file} for file in files]})
    rows = answer["predictions"]
    assert status == 200
    assert [row["error"] is None for row in rows] == [True, False, True, False, False]
    assert [row["label"] is None for row in rows] == [False, True, False, True, True]


@pytest.mark.parametrize(
    "body",
    [
        b"junk",
        b"\xff\xfe",
        b"",
        [],
        {},
        {"dataframe_records": []},
        {"dataframe_split": {"columns": ["image"], "data": []}},
        {"dataframe_records": [{"picture": ""}]},
        {"dataframe_records": [{"image": "this is no base64!"}]},
        {"dataframe_records": [{"image": 5}]},
        {"dataframe_records": [{"image": ""}] * 5000},
        {"dataframe_records": [{"image": ""}], "params": {"explain": "perhaps"}},
    ],
    ids=lambda body: repr(body)[:40],
)
def test_what_cannot_be_answered_is_refused_without_a_stack_trace(
    post: Post, body: object, pixels, image_file
):
    status, answer = post(body)
    assert status == 400
    assert "stack_trace" not in answer
    assert "Traceback" not in answer["message"]
    good = {"dataframe_records": [{"image": text(image_file(pixels(1, 4)[0]))}]}
    assert post(good)[0] == 200


def test_our_own_refusals_are_one_line(post: Post):
    _, none = post({"dataframe_split": {"columns": ["image"], "data": []}})
    assert none["message"] == "the request has no rows; give one an image, in column image"
    _, many = post({"dataframe_records": [{"image": ""}] * 5000})
    assert many["message"] == "the request has 5000 rows, more than 4096; send it in parts"
