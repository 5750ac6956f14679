"""Every test has a cache and a tracking store of its own, and no test reaches the network."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pytest
from PIL import Image

from medtl.data.sources.phantoms.datasets import write_chest_phantoms

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

    from medtl.inference.predictor import Predictor

DATABASE_USERS = ("postgres", "nobody")
PASSWORD = "open-sesame"

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # tests that run side by side share the processor: threads that compete wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None or "GPU_TESTS_ON" in os.environ:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here; GPU_TESTS_ON=cpu runs these tests on the processor")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking store with its tables made, which takes MLflow seconds: tests copy it."""
    import mlflow

    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    # MLflow puts the code of each model that is loaded before all else; what a test begins later
    # would look for the package there
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL, without a database, of a PostgreSQL server of this session's own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb") or (str(programs[-1]) if programs else None)
    if found is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        import pwd

        known = {each.pw_name for each in pwd.getpwall()}
        user = next((name for name in DATABASE_USERS if name in known), None)
        if user is None:
            pytest.skip("PostgreSQL does not run as root, and there is no other user to run it")
    initdb, server = Path(found), Path(found).with_name("postgres")
    folder = Path(tempfile.mkdtemp(prefix="medtl-postgresql-"))
    if user is not None:
        shutil.chown(folder, user)
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, quiet = folder / "data", {"stdout": subprocess.DEVNULL, "user": user, "cwd": "/"}
    subprocess.run(
        [initdb, "--no-sync", "-D", data, "-U", "medtl", "-A", "scram-sha-256", "-E", "UTF8",
         f"--pwfile={folder / 'password'}"],
        check=True,
        **quiet,
    )  # fmt: skip
    process = subprocess.Popen(
        [server, "-D", data, "-F", "-p", str(port), "-k", folder, "-h", "127.0.0.1"],
        stderr=subprocess.DEVNULL,
        **quiet,
    )
    url = f"postgresql://medtl:{PASSWORD}@127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(f"{url}/postgres"):
                break
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(postgresql: str) -> str:
    """The URL of a new database."""
    name = f"d{uuid.uuid4().hex}"
    with psycopg.connect(f"{postgresql}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgresql}/{name}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(kilobytes)`: a folder on a disk of its own, which has no more room than that.

    Given again, the disk has another size, and what is on it stays.
    """
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(kilobytes: int) -> Path:
        remount = ["-o", "remount"] if folder.is_mount() else []
        _mount(*remount, "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
        return folder

    yield sized
    if folder.is_mount():
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """`read_only(folder)`: the same folder at a place where nobody can write, root neither."""
    places = []

    def bound(folder: Path) -> Path:
        place = tmp_path / f"read-only-{len(places)}"
        place.mkdir()
        _mount("--bind", str(folder), str(place))
        places.append(place)
        _mount("-o", "remount,bind,ro", str(place))
        return place

    yield bound
    for place in places:
        subprocess.run(["umount", "-l", place], check=True)


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount")
    mounted = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")


class Payload:
    """Makes a folder when it is unpickled, as any code could be run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    """What must never be unpickled; `folder` is there where it was."""
    return Payload(tmp_path / "was_run")


@pytest.fixture(scope="session")
def chestxray14(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CSV of 24 phantom patients at 48 px, laid out as ChestX-ray14 is published.

    About 70 images in two parts, with the two lists: the last six patients are for testing.
    """
    findings = {
        "clear": ("No Finding",),
        "diffuse": ("Infiltration", "Effusion|Infiltration"),
        "focal": ("Nodule", "Mass|Nodule|Pleural_Thickening"),
    }
    drawn = tmp_path_factory.mktemp("drawn")
    write_chest_phantoms(drawn, seed=2, patients=24, image_size=48)
    folder = tmp_path_factory.mktemp("published") / "ChestX-ray14"
    rows, lists = [], {"train_val_list.txt": [], "test_list.txt": []}
    with open(drawn / "labels.csv", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            patient, visit = int(row["patient"][1:]) + 1, int(row["path"][6:7])
            name = f"{patient:08d}_{visit:03d}.png"
            part = folder / f"images_{1 + (patient > 9):03d}" / "images"
            part.mkdir(parents=True, exist_ok=True)
            shutil.move(drawn / row["path"], part / name)
            lists["test_list.txt" if patient > 18 else "train_val_list.txt"].append(name)
            found = findings[row["label"]][number % len(findings[row["label"]])]
            rows.append(f"{name},{found},{visit},{patient},{40 + patient},M,PA,48,48,0.143,0.143,")
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    for name, names in lists.items():
        (folder / name).write_text("\n".join(names))
    table = folder / "Data_Entry_2017_v2020.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    return table


@pytest.fixture(scope="session")
def small_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CSV of 60 phantom patients at 64 px, about 180 images."""
    folder = tmp_path_factory.mktemp("phantoms") / "wards"
    folder.mkdir()
    write_chest_phantoms(folder, seed=1, patients=60, image_size=64)
    return folder / "labels.csv"


SIDE = 64


@pytest.fixture(scope="session")
def bundle() -> Predictor:
    """squeezenet1_1 with random weights and three classes, with a domain reference."""
    from medtl.inference.out_of_distribution import DomainReference
    from medtl.inference.predictor import Predictor
    from medtl.networks.preprocessing import Preprocessing
    from medtl.networks.registry import build

    without = Predictor(
        architecture="squeezenet1_1",
        classes=("clear", "focal", "diffuse"),
        preprocessing=Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), SIDE),
        weights="random",
        cutoff="head",
        data="phantoms",
        fingerprint="0123456789abcdef",
        temperature=1.5,
        thresholds=(0.3, 0.4, 0.3),
        network=build("squeezenet1_1", 3, SIDE, seed=1).eval(),
    )
    images = drawn(120, seed=2)
    train, valid = (without.compared(half) for half in (images[:80], images[80:]))
    reference = DomainReference.fit(train, valid, seed=3)
    return dataclasses.replace(without, domain=reference)


@pytest.fixture
def pixels() -> Callable[[int, int], np.ndarray]:
    """`pixels(count, seed)`: smooth grey images, uint8 [count, 1, SIDE, SIDE]."""
    return drawn


@pytest.fixture
def image_file() -> Callable[..., bytes]:
    """`image_file(image, kind="PNG")`: an image [1, H, W] as the bytes of a file."""

    def file(image: np.ndarray, kind: str = "PNG") -> bytes:
        written = io.BytesIO()
        Image.fromarray(image[0]).save(written, kind)
        return written.getvalue()

    return file


def drawn(count: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8)).astype(np.uint8)
    images = [Image.fromarray(each).resize((SIDE, SIDE)) for each in coarse]
    return np.stack([np.asarray(image) for image in images])[:, None]


@pytest.fixture(scope="session")
def filled_store(
    bundle: Predictor, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A tracking store with one logged model, and the model's URI."""
    import mlflow

    from medtl.tracking.logged_model import log_model

    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        experiment = mlflow.create_experiment("tests", artifact_location=str(folder / "artifacts"))
        with mlflow.start_run(experiment_id=experiment):
            picture = io.BytesIO()
            Image.fromarray(drawn(1, 4)[0, 0]).save(picture, "PNG")
            model = log_model(bundle, [picture.getvalue()])
    return folder / "mlflow.db", model.model_uri


@pytest.fixture
def logged(
    filled_store: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModelInfo:
    """The logged model, in a copy of the store that is this test's own."""
    import mlflow

    database, uri = filled_store
    copy = shutil.copy(database, tmp_path / "filled.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}")
    return mlflow.models.get_model_info(uri)


WriteImage = Callable[..., Path]
WriteFolder = Callable[..., Path]


def _write_image(file: Path, seed: int, shape: tuple[int, ...] = (6, 7)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def write_image() -> WriteImage:
    """Writes noise of a seed to a file: equal seeds and shapes give identical pixels."""
    return _write_image


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Writes a folder `scans` of so many different images for each class (or `split/class`)."""

    def write(classes: dict[str, int]) -> Path:
        root = tmp_path / "scans"
        names = [(kind, number) for kind, count in classes.items() for number in range(count)]
        for seed, (kind, number) in enumerate(names):
            _write_image(root / kind / f"{number:03d}.png", seed)
        return root

    return write
