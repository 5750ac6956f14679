"""A registered model as its users meet it: `mlflow models serve` in an empty folder, asked."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from medtl.errors import MedtlError

PATIENCE = 600  # seconds for a server to start on a busy machine, to answer, or to end


@dataclass(frozen=True)
class Server:
    """A server that answers at `address`, `starting` seconds after it was started."""

    address: str
    starting: float

    def ask(self, files: Mapping[str, bytes], explain: bool = False) -> tuple[int, dict]:
        """The status and the JSON for one row, whose columns hold the bytes of image files."""
        row = [base64.b64encode(file).decode("ascii") for file in files.values()]
        body = {
            "dataframe_split": {"columns": list(files), "data": [row]},
            "params": {"explain": explain},
        }
        request = urllib.request.Request(
            f"{self.address}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def serving(uri: str, folder: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """Serves a model of MLflow from an empty folder within `folder`, until the block is left.

    Raises:
        MedtlError: the server ended, or did not answer in time; the message has its last line.
    """
    empty, log = folder / "empty", folder / "server.log"
    empty.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri]
    command += ["--env-manager", "local", "--port", str(port)]
    # MLflow looks for uvicorn on the path, where an activated environment has it
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    began = time.perf_counter()
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=empty, env={**environment, "PATH": path}, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        while not _pinged(address):
            if server.poll() is not None or time.perf_counter() - began > PATIENCE:
                raise MedtlError(f"the server did not start: {last_line(log.read_text())}")
            time.sleep(0.1)
        yield Server(address, time.perf_counter() - began)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(PATIENCE)


def check_answer(status: int, answer: dict, classes: Sequence[str], explained: bool) -> None:
    """Checks that a request of one readable row was answered as the README has it.

    Raises:
        MedtlError: it was not; the message says what is wrong.
    """
    if status != 200:
        raise MedtlError(f"status {status}: {answer.get('message', answer)}")
    (row,) = answer["predictions"]
    if row["error"] is not None:
        raise MedtlError(f"the image was not read: {row['error']}")
    probabilities = row["probabilities"]
    if set(probabilities) != set(classes) or not math.isclose(sum(probabilities.values()), 1):
        raise MedtlError(f"no probabilities of {', '.join(classes)}: {probabilities}")
    if row["label"] != max(probabilities, key=probabilities.get):
        raise MedtlError(f"the label {row['label']} is not the most probable of {probabilities}")
    if explained:
        _check_picture(row["heatmap"])


def _check_picture(text: object) -> None:
    try:
        Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]).verify()
    except (TypeError, ValueError, OSError) as error:
        raise MedtlError(f"no heat map that is a PNG in base64: {error}") from error


def last_line(text: str) -> str:
    """The line with which a process ended, without the name of the project before it."""
    return (text.strip().splitlines() or ["it said nothing"])[-1].removeprefix("medtl: ")


def _pinged(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ping", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
