"""Memory, time and disk of a search by number of images, stage by stage.

The search is its own process, started as a user starts it. Its memory is read from /proc, and its
stage is derived from the files that it writes.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import mlflow
import pandas as pd

from benchmarks.served import last_line
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.errors import MedtlError
from medtl.settings.fields import comma_list

ROOT = Path(__file__).parent.parent
EXPERIMENT = "memory"
PARTS = 50  # of the phantoms, drawn side by side
IMAGES_OF_A_PATIENT = 3  # on average
INTERVAL = 0.05  # seconds between two measurements
DECODE, REPORT, KEEP, REST = "decoding", "data report", "activations", "all else"
EPOCH = "an epoch"


@dataclass
class Stage:
    """Seconds of one stage, and its peak memory in GiB."""

    seconds: float = 0.0
    processor: float = 0.0  # CPU seconds, summed over cores
    own: float = 0.0  # not backed by a file
    mapped: float = 0.0  # pages of files, which the system can reclaim

    def add(self, seconds: float, processor: float, own: float, mapped: float) -> None:
        """Adds the time since the last measurement, and updates the peak memory."""
        self.seconds += seconds
        self.processor += processor
        self.own, self.mapped = max(self.own, own), max(self.mapped, mapped)


@dataclass(frozen=True)
class Job:
    """Measurements of a finished search."""

    seconds: float
    peak: float  # largest resident memory in GiB
    stages: dict[str, Stage]
    disk: dict[str, float]  # stage to MB that it left
    epoch: float  # seconds of an epoch at the first cut-off, with all activations cached


@click.command()
@click.option("--images", default="5000,50000", help="comma list of numbers of images")
@click.option("--image-size", default=64, help="side of the network's input in pixels")
@click.option("--drawn", default=0, help="side of the image files in pixels; 0 for the same")
@click.option("--architecture", default="small_resnet", help="with random weights")
@click.option("--cutoffs", default="layer3,head", help="comma list, as of tune")
@click.option("--views", default=1, help="augmented views that are kept")
def memory(
    images: str, image_size: int, drawn: int, architecture: str, cutoffs: str, views: int
) -> None:
    """Measures memory, seconds and disk of a search, by stage and by number of images."""
    options = {
        "architecture": architecture, "weights": "random", "image-size": image_size,
        "cutoffs": cutoffs, "views": views, "epochs": views + 1, "trials": 2, "pruner": "none",
        "keep": "always", "model-name": "memory",
    }  # fmt: skip
    jobs = []
    for count in (int(entry) for entry in comma_list("images", images)):
        with tempfile.TemporaryDirectory() as root:
            began = time.perf_counter()
            table = draw(Path(root, "images"), count, drawn or image_size)
            print(f"{count} images drawn in {time.perf_counter() - began:.0f} s", flush=True)
            jobs.append((count, searched(Path(root), {"data": table, **options})))
            _print(*jobs[-1])
    (few, first), (many, last) = jobs[0], jobs[-1]
    if many != few:
        print(
            f"{many / few:.1f} times the images: {last.seconds / first.seconds:.1f} times the "
            f"seconds, {last.peak - first.peak:+.2f} GiB of memory"
        )


def draw(folder: Path, count: int, image_size: int) -> Path:
    """Draws chest phantoms, about three a patient; returns the CSV of the first `count`."""
    patients = -(-count // (IMAGES_OF_A_PATIENT * PARTS)) + 2
    folders = [folder / f"{part:02d}" for part in range(PARTS)]
    for each in folders:
        each.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        write = partial(_draw_part, patients=patients, image_size=image_size)
        list(pool.map(write, folders, range(PARTS)))
    tables = []
    for each in folders:
        rows = pd.read_csv(each / "labels.csv", dtype=str)
        tables.append(rows.assign(**{c: f"{each.name}/" + rows[c] for c in ("path", "patient")}))
    pd.concat(tables).head(count).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def _draw_part(folder: Path, seed: int, patients: int, image_size: int) -> None:
    with redirect_stderr(io.StringIO()):  # hides the progress bars of the processes
        write_chest_phantoms(folder, seed, patients, image_size)


def searched(root: Path, options: dict[str, object]) -> Job:
    """Runs a search to its end, in a store and a cache below `root`.

    Raises:
        MedtlError: it failed; the message has its last line.
    """
    store = f"sqlite:///{root / 'mlflow.db'}"
    client = mlflow.MlflowClient(store)
    artifacts = (root / "artifacts").as_uri()
    experiment = client.create_experiment(EXPERIMENT, artifact_location=artifacts)
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_RUN_ID"} | {
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_EXPERIMENT_NAME": EXPERIMENT,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MEDTL_CACHE": str(root / "cache"),
    }
    command = [sys.executable, "-m", "entrypoints.tune"]
    command += [f"--{option}={value}" for option, value in options.items()]
    stages: dict[str, Stage] = defaultdict(Stage)
    began = before = time.perf_counter()
    used = 0.0
    with open(root / "output.txt", "wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            now, using = time.perf_counter(), max(used, processor_seconds(process.pid))
            stages[_stage(root)].add(now - before, using - used, *resident(process.pid))
            before, used = now, using
            time.sleep(INTERVAL)
    seconds = time.perf_counter() - began
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)  # os.wait4 has already collected it
    if process.returncode:
        raise MedtlError(f"the search failed: {last_line((root / 'output.txt').read_text())}")
    disk = {
        stage: sum(f.stat().st_size for f in (root / place).rglob("*") if f.is_file()) / 1e6
        for stage, place in {DECODE: "cache/pixels", KEEP: "cache/activations"}.items()
    }
    first = str(options["cutoffs"]).split(",")[0]
    runs = client.search_runs([experiment], f"params.cutoff = '{first}'")
    times = [client.get_metric_history(run.info.run_id, "epoch_seconds") for run in runs]
    epoch = min(metric.value for history in times for metric in history)
    return Job(seconds, usage.ru_maxrss / 2**20, dict(stages), disk, epoch)


def resident(pid: int) -> tuple[float, float]:
    """Returns own memory and mapped file pages of a process in GiB; 0 if it has ended."""
    sizes = {"RssAnon": 0.0, "RssFile": 0.0}
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in sizes:
                sizes[name] = int(value.split()[0]) / 2**20
    except (FileNotFoundError, ProcessLookupError):
        pass
    return sizes["RssAnon"], sizes["RssFile"]


def processor_seconds(pid: int) -> float:
    """Returns the CPU seconds of a process, summed over cores; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stage(root: Path) -> str:
    """Returns the stage of a search, derived from its files."""
    unfinished = {
        kind: root.glob(f"cache/{kind}/.unfinished-*") for kind in ("pixels", "activations")
    }
    if any(unfinished["pixels"]):
        return DECODE
    if any(unfinished["activations"]):
        return KEEP
    data = "artifacts/*/artifacts/data"
    if any(root.glob(f"{data}/contact_sheet.png")) and not any(root.glob(f"{data}/report.html")):
        return REPORT
    return REST


def _print(count: int, job: Job) -> None:
    print(
        f"{'images':>7}  {'stage':<13}{'seconds':>9}{'of the cores':>14}{'ms an image':>13}"
        f"{'MB on disk':>12}{'kB an image':>13}{'own GiB':>9}{'mapped':>8}"
    )
    for name in (DECODE, REPORT, KEEP, REST):
        stage, disk = job.stages.get(name, Stage()), job.disk.get(name, 0.0)
        print(
            f"{count:>7}  {name:<13}{stage.seconds:>9.1f}{stage.processor:>14.1f}"
            f"{1000 * stage.processor / count:>13.2f}{disk:>12.1f}{1000 * disk / count:>13.2f}"
            f"{stage.own:>9.2f}{stage.mapped:>8.2f}"
        )
    print(f"{count:>7}  {EPOCH:<13}{job.epoch:>9.1f}")
    print(f"{count:>7}  whole search, {job.seconds:.0f} s, peak {job.peak:.2f} GiB", flush=True)
