"""Memory that is really too short: half the batch is tried once, then a trial fails alone.

It may end in PyTorch's allocator or inside oneDNN; the trials after it are not touched.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SEARCH = """
import dataclasses, json, os, resource, sys
import numpy as np
import psutil
from medtl.data.loading import load
from medtl.networks.registry import build
from medtl.networks.pretrained import Backbone
from medtl.networks.preprocessing import Preprocessing
from medtl.tuning import study as studies
from medtl.tuning.storage import open_store
from medtl.tuning.search_space import Candidate, Space
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner

SIZE = 128
dataset = load(sys.argv[1], SIZE, seed=0)
network = build("mobilenet_v2", len(dataset.classes), SIZE, seed=0)
backbone = Backbone("mobilenet_v2", "random", network, Preprocessing((0.5,) * 3, (0.25,) * 3, SIZE))
dataset.splits["valid"] = dataset.splits["valid"][:12]

def transfer(batch_size):
    settings = TrainSettings(
        epochs=1, batch_size=batch_size, precision="float32", augment="none", keep="never"
    )
    return TransferLearner(backbone, dataset, settings, rows=np.arange(max(24, batch_size)))

def limit(megabytes):
    hard = resource.RLIM_INFINITY
    soft = psutil.Process().memory_info().vms + megabytes * 10**6 if megabytes else hard
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

def loss(trained):
    return trained.fit.best.train_loss

told = {}
made = transfer(24)
recipe = made.recipe("adam", 1e-3)
transfer(2).train("classifier.1", recipe)  # all libraries are loaded now

# what half the batch needs is now held by the process, and not much more is allowed
half = transfer(12)
expected = loss(half.train("all", half.recipe("adam", 1e-3)))
limit(int(sys.argv[2]))
halved = made.train("all", recipe)
limit(0)
told["halved"] = halved.halved
told["as half"] = loss(halved) == expected

space = Space(("adam", "sgd"), 1e-4, 1e38, ("features.0", "classifier.1"))
schedule = studies.Schedule(3, 0, "none", 0)
store = open_store("sqlite://")
study = studies.open_study(store, "study", True, "asks", schedule)
tried = [
    Candidate("adam", 1e-3, "features.0"),
    Candidate("sgd", 1e38, "classifier.1"),
    Candidate("adam", 1e-3, "classifier.1"),
]
studies.prepare(study, [(space.params(each), "") for each in tried], "run")

def objective(trial, candidate):
    # the first trial needs far more memory than the others, and than the process holds by now
    is_large = candidate.cutoff == "features.0"
    made = transfer(80 if is_large else 2)
    limit(int(sys.argv[3]) if is_large else 0)
    try:
        trained = made.train(candidate.cutoff, made.recipe(candidate.optimizer, candidate.lr))
    finally:
        limit(0)
    return trained.fit.best.valid_auroc

studies.run_trials(study, space, dataclasses.replace(schedule, trials=1), objective)
told["trials"] = [
    (trial.state.name, trial.user_attrs.get(studies.ERROR, "")) for trial in study.get_trials()
]
print(json.dumps(told))
"""


@pytest.mark.slow
def test_half_the_batch_is_tried_once_and_then_a_trial_fails_alone(phantom_csv: Path):
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(phantom_csv), "90", "250"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["halved"] == 12
    assert told["as half"], "the same recipe with half the batch"
    notes = [line for line in done.stderr.splitlines() if "note:" in line]
    assert notes == [
        "note: memory is short for batches of 24; trained with 12",
        "note: memory is short for batches of 80; trained with 40",
    ]
    (short, why), (diverged, loss), (completed, _) = told["trials"]
    assert (short, diverged, completed) == ("FAIL", "FAIL", "COMPLETE")
    assert why.startswith("memory does not suffice for batches of 40 images of 128 pixels")
    assert "lower the learning rate" in loss
