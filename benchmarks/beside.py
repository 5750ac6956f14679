"""What a good request takes while a served model is sent files that ask for much of a decoder."""

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

AT_ONCE = 2  # requests with the file
BEGUN = 0.3  # seconds after which a good request follows
GOOD = 3  # good requests of each kind at most, one after the other
SIDE = 512  # of a good image
_COLUMNS = ("its answers", "good PNG", "good DICOM", "more memory")
HEADING = f"{'file, sent twice':<46}" + "".join(f"{name:>13}" for name in _COLUMNS)


@dataclass(frozen=True)
class Beside:
    """How good requests were answered beside a file."""

    name: str
    answered: float  # seconds until both requests with the file were
    plain: float  # seconds, the longest, for a small PNG
    other: float  # for a DICOM file
    memory: int  # bytes that the server and what it starts took beyond what they took before
    line: str

    def __str__(self) -> str:
        return (
            f"{self.name:<46}{self.answered:>11.2f} s{self.plain:>11.2f} s{self.other:>11.2f} s"
            f"{self.memory / 2**20:>9.0f} MiB  {self.line[:90]}"
        )


def beside(
    uri: str, folder: Path, environment: Mapping[str, str], only: Sequence[str]
) -> Iterator[str]:
    """A line for each file whose name has one of `only` in it, or for all.

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
    """Seconds until a good file was answered; infinite where it was not."""
    began = time.perf_counter()
    status, _ = server.send(rows_of([file]).body)
    return time.perf_counter() - began if status == 200 else float("inf")


def _most_memory(server: Server, done: threading.Event) -> int:
    most = server.memory_of_all()
    while not done.wait(0.05):
        most = max(most, server.memory_of_all())
    return most
