"""Latency of good requests while a served model decodes files of high decoding cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.crafted import picture, rewritten
from benchmarks.hostile import costly_files, hostile_files, odd_files, rows_of
from benchmarks.served import Server, serving
from benchmarks.serving import line_of

AT_ONCE = 2  # concurrent requests with the file
BEGUN = 0.3  # seconds between these requests and the first good one
GOOD = 3  # most good requests of each kind, one after the other
SIDE = 512  # pixels of a side of a good image
_COLUMNS = ("its answers", "good PNG", "good DICOM", "more memory")
HEADING = f"{'file, sent twice':<46}" + "".join(f"{name:>13}" for name in _COLUMNS)


@dataclass(frozen=True)
class Beside:
    """Response times and memory of the server beside one file."""

    name: str
    answered: float  # seconds until both requests with the file were answered
    plain: float  # longest response time for a small PNG, in seconds
    other: float  # the same for a DICOM file
    memory: int  # bytes by which the server and its child processes grew
    line: str

    def __str__(self) -> str:
        return (
            f"{self.name:<46}{self.answered:>11.2f} s{self.plain:>11.2f} s{self.other:>11.2f} s"
            f"{self.memory / 2**20:>9.0f} MiB  {self.line[:90]}"
        )


def beside(
    uri: str, folder: Path, environment: Mapping[str, str], only: Sequence[str]
) -> Iterator[str]:
    """Yields one line per file whose name contains one of `only`; all files if it is empty.

    Raises:
        MedtlError: the server did not start.
    """
    files = {**hostile_files(), **costly_files(), **odd_files()}
    with serving(uri, folder, environment) as server:
        for _ in range(AT_ONCE):  # the first request of a kind takes longer
            server.send(rows_of([_good("DICOM")]).body)
        yield HEADING
        for name, make in files.items():
            if not only or any(part in name for part in only):
                yield str(_beside(server, name, make()))
        yield f"memory after all of them: {server.memory_of_all() >> 20} MiB"


def _beside(server: Server, name: str, file: bytes) -> Beside:
    before, body, began = server.memory_of_all(), rows_of([file]).body, time.perf_counter()
    done = threading.Event()
    with ThreadPoolExecutor(AT_ONCE + 1) as clients:
        watched = clients.submit(_most_memory, server, done)
        asked = [clients.submit(server.send, body) for _ in range(AT_ONCE)]
        time.sleep(BEGUN)
        times: dict[str, float] = {}
        for kind in ("PNG", "DICOM") * GOOD:
            times[kind] = max(times.get(kind, 0.0), _seconds(server, _good(kind)))
            if len(times) == 2 and all(each.done() for each in asked):
                break
        answers = [each.result() for each in asked]
        seconds = time.perf_counter() - began
        done.set()
    said = line_of(*answers[0])
    return Beside(name, seconds, times["PNG"], times["DICOM"], watched.result() - before, said)


def _good(kind: str) -> bytes:
    return rewritten(picture("PNG", side=SIDE), kind)


def _seconds(server: Server, file: bytes) -> float:
    """Returns the seconds until a good file was answered; infinite after an error."""
    began = time.perf_counter()
    status, _ = server.send(rows_of([file]).body)
    return time.perf_counter() - began if status == 200 else float("inf")


def _most_memory(server: Server, done: threading.Event) -> int:
    most = server.memory_of_all()
    while not done.wait(0.05):
        most = max(most, server.memory_of_all())
    return most
