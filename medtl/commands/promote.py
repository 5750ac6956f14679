"""Move the champion alias: by the gate, by hand, or back."""

from __future__ import annotations

import dataclasses
from functools import partial

from medtl.data.loading import load
from medtl.errors import MedtlError
from medtl.pipeline.finalize import gate_cases, test_scores
from medtl.pipeline.model_and_data import data_of_training
from medtl.pipeline.setup import registered_name
from medtl.settings.data import Reading
from medtl.settings.evaluation import PromoteSettings
from medtl.settings.training import LearningSettings
from medtl.tracking.addresses import run_addresses
from medtl.tracking.lineage import training_settings
from medtl.tracking.logged_model import load_bundle
from medtl.tracking.promotion_gate import Verdict
from medtl.tracking.promotion_logging import log_verdict
from medtl.tracking.registry import gate, newest_version, promote_version, rollback
from medtl.tracking.runs import tracked_run
from medtl.tracking.store import check_may_change


def promote(settings: PromoteSettings) -> None:
    """Moves the alias `champion`, or prints why not."""
    name = registered_name(settings.model_name, settings.data)
    with tracked_run("promote", settings) as run:
        check_may_change(name)
        if settings.rollback:
            verdict = rollback(name)
        elif settings.version:
            verdict = promote_version(name, settings.version)
        else:
            verdict = _judged(name, settings)
        log_verdict(name, verdict)
    print("\n".join([f"{name}: {verdict.reason}", *run_addresses(run.info.run_id)]))


def _judged(name: str, settings: PromoteSettings) -> Verdict:
    """Compares the newest version with the champion on the test split of the newest."""
    version = newest_version(name)
    uri = f"models:/{name}/{version}"
    bundle = load_bundle(uri)
    made = training_settings(uri)
    seed = int(str(made["seed"]))
    place = data_of_training(uri, made, f"put it there, or promote by hand with version={version}")
    data = LearningSettings(data=place, **dataclasses.asdict(Reading.of(made)))
    dataset = load(data.data, bundle.preprocessing.rendering, seed, data.reading)
    if dataset.fingerprint != bundle.fingerprint:
        raise MedtlError(
            f"{data.data} has changed since version {version} of {name} was trained on it, so its "
            "test cases are not the same; train anew, or promote a version by hand"
        )
    if not len(dataset.splits["test"]):
        raise MedtlError(
            f"version {version} of {name} has no test split (holdout=0), so there are no cases to "
            f"compare it on; promote it by hand with version={version}"
        )
    indices = dataset.splits["test"]
    score = partial(test_scores, dataset, data, seed, indices)
    cases = gate_cases(dataset, score(bundle), indices)
    return gate(name, version, cases, score, settings.confidence, settings.seed)
