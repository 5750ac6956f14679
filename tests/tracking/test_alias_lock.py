"""Processes that end at once leave one champion, the best of them, and one order of reigns."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mlflow.models.model import ModelInfo
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.inference.predictor import Predictor
from medtl.reporting.model_card import CardFacts
from medtl.tracking.alias_lock import alias_lock
from medtl.tracking.registry import champion_version, promote_version, register

NAME = "medtl-phantoms"

# A search that ends: it compares with the first champion until the other has come as far.
ENDING = """
import sys
import time
from pathlib import Path

import numpy as np

from medtl.tracking.promotion_gate import GateCases, Scores
from medtl.tracking.registry import champion_version, gate

name, folder, version, noise = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
labels = np.arange(90) % 3


def scores(noise):
    raised = np.exp(np.eye(3)[labels] + noise * np.random.default_rng(0).normal(size=(90, 3)))
    return Scores(raised / raised.sum(axis=1, keepdims=True), np.zeros(90, bool))


def score_champion(bundle):
    champion = champion_version(name)
    if champion == 1:
        (folder / f"arrived {version}").touch()
        while len(list(folder.glob("arrived *"))) < 2:
            time.sleep(0.01)
    print(champion)
    return scores({1: 5.0, 2: 0.1, 3: 1.5}[champion])


own = scores(float(noise))
cases = GateCases(labels, np.arange(90), ("clear", "focal", "diffuse"), own, np.arange(90))
gate(name, version, cases, score_champion, 0.95, seed=0)
"""


@pytest.mark.slow
def test_two_searches_that_finish_at_once_leave_the_better_one(
    logged: ModelInfo, bundle: Predictor, tmp_path: Path
):
    for _ in range(3):
        register(logged, CardFacts(bundle, "patients", (), {}), NAME)
    promote_version(NAME, 1)
    ending = [
        subprocess.Popen(
            [sys.executable, "-c", ENDING, NAME, str(tmp_path), version, noise],
            stdout=subprocess.PIPE,
            text=True,
        )
        for version, noise in (("2", "0.1"), ("3", "1.5"))
    ]
    compared_with = [process.communicate()[0].split() for process in ending]
    assert [process.returncode for process in ending] == [0, 0]
    # both beat the first champion; the one whose turn came second was compared with the other
    assert sorted(map(len, compared_with)) == [1, 2]
    assert champion_version(NAME) == 2
    model = MlflowClient().get_registered_model(NAME)
    assert model.tags["medtl.champions"] in ("1 2", "1 3 2")
    assert int(model.aliases.get("challenger", 3)) == 3


def test_who_moves_an_alias_waits_for_the_turn(logged: ModelInfo, bundle: Predictor):
    register(logged, CardFacts(bundle, "patients", (), {}), NAME)
    promoting = threading.Thread(target=promote_version, args=(NAME, 1))
    with alias_lock(NAME):
        promoting.start()
        time.sleep(0.5)
        assert champion_version(NAME) is None
    promoting.join()
    assert champion_version(NAME) == 1


def test_a_turn_that_does_not_come_is_said_in_one_line():
    with (
        alias_lock(NAME),
        pytest.raises(MedtlError, match="locked by another process") as refused,
        alias_lock(NAME, 0.1),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_a_killed_process_gives_its_turn_back():
    held = (
        "import time\nfrom medtl.tracking.alias_lock import alias_lock\nwith alias_lock('m'):\n    "
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"{held}print('held', flush=True)\n    time.sleep(600)"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(MedtlError), alias_lock(NAME, 0.1):
        pass
    process.kill()
    process.communicate()
    with alias_lock(NAME, 10.0):
        pass
