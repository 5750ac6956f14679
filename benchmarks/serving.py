"""Load tests of a served model: one client, a batch, sixteen clients; beside a bare app.

Each server is a process as a user starts it, with `mlflow models serve` or `uvicorn`. Decoding,
preprocessing and the forward pass of one image are timed in this process.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.bare_app import MODEL
from benchmarks.crafted import rewritten
from benchmarks.hostile import Request, hostile_files, hostile_requests, odd_files, rows_of
from benchmarks.served import Server, answering, post, serving
from medtl.errors import MedtlError
from medtl.imaging.decode import decode
from medtl.imaging.dicom_header import is_dicom
from medtl.imaging.pixels import square
from medtl.inference.predictor import Predictor
from medtl.networks.preprocessing import network_input, unit_images
from medtl.tracking.logged_model import load_bundle

CLIENTS = 16
BATCH = 64
BROKEN = (10, 40)  # rows of the batch
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm")
KINDS = ("PNG", "JPEG", "TIFF", "BMP", "DICOM")
MOST_FILES = 40
ROUNDS = 4  # in which the loads take turns
WARM = 5  # answers of a round that are not counted
PATH = "/invocations"
HEADING = f"{{:<44}}{'median':>10}{'99 %':>10}{'a second':>10}{'processor':>11}"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Load:
    """Response times of requests of one image each."""

    times: tuple[float, ...]  # seconds of each answer
    seconds: float  # from the first request to the last answer
    processor: float  # CPU seconds of the server

    def __add__(self, other: Load) -> Load:
        return Load(
            self.times + other.times, self.seconds + other.seconds, self.processor + other.processor
        )

    def __str__(self) -> str:
        median, slowest = np.percentile(self.times, (50, 99))
        rate, each = len(self.times) / self.seconds, self.processor / len(self.times)
        return f"{_ms(median):>10}{_ms(slowest):>10}{rate:>10.1f}{_ms(each):>11}"


def measure(
    uri: str, files: Sequence[bytes], folder: Path, environment: Mapping[str, str], seconds: float
) -> Iterator[str]:
    """Yields the lines of the table; each load lasts `seconds`.

    The loads alternate, so that other work on the machine slows down all of them.

    Raises:
        MedtlError: a server did not start, or answered wrong.
    """
    bundle = load_bundle(uri)
    if bundle.modalities:
        raise MedtlError(f"{uri} answers cases of several images: give a model of single images")
    pictures = [file for file in files if not is_dicom(file)]  # the bare app reads no others
    plain = [Request(file, "application/octet-stream") for file in pictures]
    asked = [rows_of([file]) for file in pictures]
    explained = [rows_of([file], explain=True) for file in pictures]
    command = ["uvicorn", "--factory", "benchmarks.bare_app:make", "--log-level", "warning"]
    with (
        contextlib.closing(_passes(bundle, pictures)) as passes,
        answering(command, ROOT, {**environment, MODEL: uri}, folder / "bare.log") as bare,
        serving(uri, folder / "served", environment) as served,
    ):
        before = served.memory().now()
        ways = {
            "in process: decoded, preprocessed, forward": lambda: _alone(passes, seconds / ROUNDS),
            "bare app, one client": lambda: measured_load(bare, "/", plain, 1, seconds / ROUNDS),
            "served, one client": lambda: measured_load(served, PATH, asked, 1, seconds / ROUNDS),
            "served, one client, explain": lambda: measured_load(
                served, PATH, explained, 1, seconds / ROUNDS
            ),
            f"bare app, {CLIENTS} clients": lambda: measured_load(
                bare, "/", plain, CLIENTS, seconds / ROUNDS
            ),
            f"served, {CLIENTS} clients": lambda: measured_load(
                served, PATH, asked, CLIENTS, seconds / ROUNDS
            ),
        }
        loads = [{name: way() for name, way in ways.items()} for _ in range(ROUNDS)]
        yield HEADING.format("")
        for name in ways:
            own, *others = (load[name] for load in loads)
            yield f"{name:<44}{sum(others, own)}"
        yield _batch(served, files)
        yield (
            f"memory of the server: {_mib(before)} when started, {_mib(served.memory().now())} "
            f"after, {_mib(served.memory().peak())} at most"
        )
        yield from _hostile(served, rows_of(list(files[:1])))


def _passes(bundle: Predictor, files: Sequence[bytes]) -> Generator[torch.Tensor]:
    """Times the necessary parts of an answer: decoding, preprocessing, forward pass."""
    with torch.inference_mode():
        for file in cycle(files):
            pixels = np.array(square(decode(file), bundle.image_size))[None]
            yield bundle.network(network_input(unit_images(pixels), bundle.preprocessing))


def _alone(passes: Iterator[object], seconds: float) -> Load:
    for _ in range(WARM):
        next(passes)
    times: list[float] = []
    worked = time.process_time()
    while sum(times) < seconds:
        began = time.perf_counter()
        next(passes)
        times.append(time.perf_counter() - began)
    return Load(tuple(times), sum(times), time.process_time() - worked)


def measured_load(
    server: Server, path: str, requests: Sequence[Request], clients: int, seconds: float
) -> Load:
    """So many clients at once, each with a connection of its own, asking again when answered.

    Raises:
        MedtlError: an answer was another than status 200.
    """
    times: list[float] = []
    failed: list[str] = []
    process = psutil.Process(server.memory().process)
    for request in requests[:WARM]:
        server.send(request.body, request.content_type, path)
    worked, began_all = sum(process.cpu_times()[:2]), time.perf_counter()

    def client(number: int) -> None:
        with contextlib.closing(server.connected()) as connection:
            for request in islice(cycle(requests), number, None):
                began = time.perf_counter()
                if began > began_all + seconds or failed:
                    return
                status, answer = post(connection, path, request.body, request.content_type)
                if status != 200:
                    failed.append(f"status {status}: {answer[:200]!r}")
                times.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise MedtlError(failed[0])
    passed = time.perf_counter() - began_all
    return Load(tuple(times), passed, sum(process.cpu_times()[:2]) - worked)


def _batch(server: Server, files: Sequence[bytes]) -> str:
    """Sends a request of many rows in all formats, two of them broken; reports rows and time."""
    rows = list(islice(cycle(files), BATCH))
    for place in BROKEN:
        rows[place] = rows[place][: len(rows[place]) // 2]
    body = rows_of(rows).body
    server.send(body)
    began = time.perf_counter()
    status, answer = server.send(body)
    seconds = time.perf_counter() - began
    predictions = json.loads(answer)["predictions"] if status == 200 else []
    named = [place for place, row in enumerate(predictions) if row["error"] is not None]
    return (
        f"a request of {BATCH} rows, two broken: status {status}, {len(predictions) - len(named)} "
        f"answered, broken {named}, {1000 * seconds:.0f} ms, {BATCH / seconds:.0f} images a second"
    )


def _hostile(server: Server, good: Request) -> Iterator[str]:
    memory = server.memory()
    yield f"{'sent':<46}{'status':>7}{'seconds':>9}{'more memory':>13}  answer"
    files = {**hostile_files(), **odd_files()}
    requests = {name: lambda make=make: rows_of([make()]) for name, make in files.items()}
    for name, make in (requests | hostile_requests()).items():
        request = make()
        memory.forget_peak()
        before, began = memory.now(), time.perf_counter()
        status, answer = server.send(request.body, request.content_type)
        seconds = time.perf_counter() - began
        more = memory.peak() - before
        said = line_of(status, answer)[:90]
        yield f"{name:<46}{status:>7}{seconds:>9.2f}{_mib(more):>13}  {said}"
        status, _ = server.send(good.body)
        if status != 200:
            raise MedtlError(f"after {name} a good request was answered with status {status}")
    yield f"memory after all of them: {_mib(memory.now())}"


def line_of(status: int, answer: bytes) -> str:
    """Returns label or error of the only row, or the message of a refused request."""
    if status == 504:  # sent by MLflow itself, as plain text
        return f"status 504: {answer.decode()}"
    said = json.loads(answer)
    if status != 200:
        return str(said["message"])
    (row,) = said["predictions"]
    return row["label"] if row["error"] is None else str(row["error"])


def example_files(folder: Path) -> list[bytes]:
    """Returns the first images of a folder; if all are PNG, some are converted to other formats."""
    found = sorted(each for each in folder.rglob("*") if each.suffix.casefold() in IMAGES)
    files = [file.read_bytes() for file in found[:MOST_FILES]]
    if {file.suffix.casefold() for file in found} != {".png"}:
        return files
    return [rewritten(file, kind) for file, kind in zip(files, cycle(KINDS), strict=False)]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
