"""Client of a registered model that `mlflow models serve` runs in an empty folder."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image

from medtl.errors import MedtlError

JSON = "application/json"
PATIENCE = 600  # seconds for a server to start on a busy machine, to answer, or to end


@dataclass(frozen=True)
class Server:
    """A server at a port of this machine; `starting` is the seconds until it answered."""

    port: int
    starting: float
    process: int  # id of the started process; the server may be one of its children

    def ask(self, files: Mapping[str, bytes], explain: bool = False) -> tuple[int, dict]:
        """Sends one row with image files as columns; returns status and JSON of the answer."""
        row = [base64.b64encode(file).decode("ascii") for file in files.values()]
        body = {
            "dataframe_split": {"columns": list(files), "data": [row]},
            "params": {"explain": explain},
        }
        status, answer = self.send(json.dumps(body).encode())
        return status, json.loads(answer)

    def send(
        self, body: bytes, content_type: str | None = JSON, path: str = "/invocations"
    ) -> tuple[int, bytes]:
        """Returns the status and the body of the answer to a request of any kind."""
        with contextlib.closing(self.connected()) as connection:
            return post(connection, path, body, content_type)

    def connected(self) -> http.client.HTTPConnection:
        """Returns a connection that stays open for several requests."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def memory(self) -> Memory:
        """Returns the memory of the serving process."""
        (answering,) = (each for each in self._processes() if _listens(each, self.port))
        return Memory(answering.pid)

    def memory_of_all(self) -> int:
        """Returns the resident bytes of the serving process and its children."""
        total = 0
        for each in self._processes():
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss
        return total

    def _processes(self) -> list[psutil.Process]:
        started = psutil.Process(self.process)
        return [started, *started.children(recursive=True)]


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process, read from /proc."""

    process: int

    def now(self) -> int:
        """Returns the present resident memory in bytes."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """Returns the peak in bytes since the process began, or since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Resets the peak."""
        Path(f"/proc/{self.process}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024


def post(
    connection: http.client.HTTPConnection, path: str, body: bytes, content_type: str | None = JSON
) -> tuple[int, bytes]:
    """Returns the status and the body of the answer over an open connection."""
    connection.request("POST", path, body, {"Content-Type": content_type} if content_type else {})
    response = connection.getresponse()
    return response.status, response.read()


@contextmanager
def serving(uri: str, folder: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """Serves a model of MLflow from an empty folder within `folder`, until the block is left.

    Raises:
        MedtlError: the server ended, or did not answer in time; the message has its last line.
    """
    empty = folder / "empty"
    empty.mkdir(parents=True)
    command = ["mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    # MLflow looks for uvicorn on the path, where an activated environment has it
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with answering(command, empty, {**environment, "PATH": path}, folder / "server.log") as server:
        yield server


@contextmanager
def answering(
    module: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator[Server]:
    """Runs `python -m module ... --port PORT` in a folder while the block lasts.

    Raises:
        MedtlError: it ended, or did not answer `/ping` in time; the message has its last line.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *module, "--port", str(port)]
    began = time.perf_counter()
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        while not _pinged(port):
            if server.poll() is not None or time.perf_counter() - began > PATIENCE:
                raise MedtlError(f"the server did not start: {last_line(log.read_text())}")
            time.sleep(0.1)
        yield Server(port, time.perf_counter() - began, server.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(PATIENCE)


def environment_of(folder: Path) -> dict[str, str]:
    """Returns the environment of this process without variables that a user would not have."""
    temporary = folder / "temporary"
    temporary.mkdir()
    outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MLFLOW_RUN_ID")}
    return outside | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # a stopped server leaves its copy of the model behind
        "TMPDIR": str(temporary),
    }


def check_answer(status: int, answer: dict, classes: Sequence[str], explained: bool) -> None:
    """Checks the answer to a request of one readable row against docs/serving.md.

    Raises:
        MedtlError: the answer is wrong.
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
        if not isinstance(text, str):
            raise TypeError(f"{type(text).__name__} instead of text")
        Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]).verify()
    except (TypeError, ValueError, OSError) as error:
        raise MedtlError(f"no heat map that is a PNG in base64: {error}") from error


def last_line(text: str) -> str:
    """Returns the last line of an output, without the name of the project before it."""
    return (text.strip().splitlines() or ["no output"])[-1].removeprefix("medtl: ")


def _listens(process: psutil.Process, port: int) -> bool:
    return any(
        each.status == psutil.CONN_LISTEN and each.laddr.port == port
        for each in process.net_connections("tcp")
    )


def _pinged(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
