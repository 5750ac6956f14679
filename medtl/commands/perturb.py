"""Make universal perturbations against a trained model, and count what they fool."""

from __future__ import annotations

from collections.abc import Sequence

import mlflow
import numpy as np
import pandas as pd
from torch import Tensor

from medtl.data.dataset import Dataset
from medtl.errors import ParameterError
from medtl.evaluation.universal_perturbations import Examples
from medtl.pipeline.model_and_data import check_classes, check_one_label, chosen_model, images_for
from medtl.pipeline.parameter_checks import check_asked_of_model, check_image_folder
from medtl.pipeline.run_logging import announce, log_data
from medtl.pipeline.universal_perturbations import (
    NATURAL,
    RANDOM,
    TRAINING,
    WITHOUT,
    Attack,
    Attacked,
    Made,
    Perturbed,
    attacked_splits,
    log_perturbed,
)
from medtl.progress import progress
from medtl.settings.evaluation import PerturbSettings
from medtl.settings.fields import comma_list
from medtl.tracking.addresses import run_addresses
from medtl.tracking.logged_model import load_bundle
from medtl.tracking.runs import name_run, tracked_run
from medtl.training.device import resolve_device

EXAMPLES = 8  # perturbed images shown for each perturbation


def perturb(settings: PerturbSettings) -> None:
    """Perturbations from natural and training images, beside random ones of the same norm."""
    with tracked_run("perturb", settings) as run:
        check_asked_of_model(settings)
        if settings.images:
            check_image_folder("images", settings.images)
        models = _models(settings)
        model = models[0]
        announce("perturb", model.uri, model.dataset.name)
        mlflow.set_tags(
            {
                "medtl.architecture": model.bundle.architecture,
                "medtl.weights": model.bundle.weights,
                "medtl.cutoff": model.bundle.cutoff,
                "medtl.data": model.dataset.fingerprint,
                "medtl.model": model.uri,
            }
        )
        name_run(f"{model.dataset.name} {settings.norm}")
        log_data(model.dataset)
        attack = Attack(
            settings, _target(settings, model.dataset), attacked_splits(settings, model.dataset)
        )
        made = attack.perturbations(model, settings.zetas)
        strongest = {source: made[source, settings.zetas[-1]] for source, _ in made}
        found = Perturbed(
            uri=model.uri,
            dataset=model.dataset.name,
            unit=model.dataset.unit,
            classes=model.dataset.classes,
            settings=settings,
            images=len(attack.splits["train"]),
            rates=_rates(attack, model, made),
            transfers=_transfers(attack, models, strongest) if len(models) > 1 else None,
            perturbations={source: pattern[0].cpu() for source, pattern in strongest.items()},
            examples=_examples(attack, model, strongest),
        )
        log_perturbed(found, {f"{source}_{zeta:g}": made[source, zeta] for source, zeta in made})
    print("\n".join([found.summary(), *run_addresses(run.info.run_id)]))


def _models(settings: PerturbSettings) -> list[Attacked]:
    """The model under attack and those to compare with, each with the data in its own size."""
    device = resolve_device(settings.device)
    uri, bundle = chosen_model(settings)
    named = [(uri, bundle)]
    if settings.models:
        others = comma_list("models", settings.models)
        named += [(other, load_bundle(other)) for other in others if other != uri]
    renderings = {each.preprocessing.rendering for _, each in named}
    datasets = {each: images_for(settings, uri, bundle, each) for each in renderings}
    check_one_label(datasets[bundle.preprocessing.rendering], "perturb")
    for name, each in named:
        check_classes(name, each, datasets[each.preprocessing.rendering])
    return [
        Attacked.of(name, each, datasets[each.preprocessing.rendering], device)
        for name, each in named
    ]


def _target(settings: PerturbSettings, dataset: Dataset) -> int | None:
    if not settings.target:
        return None
    if settings.target not in dataset.classes:
        allowed = f"one of {', '.join(dataset.classes)}, or empty for any but their own"
        raise ParameterError("target", settings.target, allowed)
    return dataset.classes.index(settings.target)


def _rates(attack: Attack, model: Attacked, made: dict[Made, Tensor]) -> pd.DataFrame:
    """Computes the fooling rates: one row per source, bound and split.

    `norm` is the norm of the perturbations, `limit` the largest allowed one. With a target, one row
    is for unperturbed images.
    """
    nothing = {} if attack.target is None else {(WITHOUT, 0.0): None}
    limits = {zeta: attack.limit(model, zeta) for _, zeta in made}
    rows = []
    for split, indices in attack.splits.items():
        own = model.predictions(indices)
        for (source, zeta), pattern in {**nothing, **made}.items():
            share = attack.rate(model, split, own, pattern)
            norm = 0.0 if pattern is None else attack.reached(pattern)
            rows.append(
                (source, zeta, split, share.value, share.low, share.high, len(indices), norm,
                 limits.get(zeta, 0.0))
            )  # fmt: skip
    columns = ["source", "zeta", "split", "rate", "low", "high", "images", "norm", "limit"]
    return pd.DataFrame(rows, columns=columns)


def _transfers(
    attack: Attack, models: Sequence[Attacked], strongest: dict[str, Tensor]
) -> pd.DataFrame:
    """Tests perturbations of one model on each model's test images, at the largest bound."""
    zeta = attack.settings.zetas[-1]
    own = [model.predictions(attack.splits["test"]) for model in models]
    rows = []
    for maker in progress(models, len(models), "comparing models", "model"):
        if maker is models[0]:
            made = strongest
        else:
            made = {source: v for (source, _), v in attack.perturbations(maker, [zeta]).items()}
        for source, pattern in made.items():
            for tried, predictions in zip(models, own, strict=True):
                if source == RANDOM and tried is not maker:
                    # not made on any model: once for each is enough
                    continue
                there = attack.transferred(pattern, maker, tried)
                share = attack.rate(tried, "test", predictions, there)
                rows.append(
                    (source, *_named(maker), *_named(tried), share.value, share.low, share.high)
                )
    who = [f"{role}{what}" for role in ("made_on", "tried_on") for what in ("", "_weights")]
    return pd.DataFrame(rows, columns=["source", *who, "rate", "low", "high"])


def _named(model: Attacked) -> tuple[str, str]:
    return model.uri, f"{model.bundle.architecture} {model.bundle.weights}"


def _examples(attack: Attack, model: Attacked, strongest: dict[str, Tensor]) -> dict[str, Examples]:
    """Test images, drawn whether fooled or not, before and after each perturbation."""
    test = attack.splits["test"]
    count = min(EXAMPLES, len(test))
    drawn = np.sort(np.random.default_rng(attack.settings.seed).choice(test, count, False))
    images, own = model.images(drawn).cpu().numpy(), model.predictions(drawn)
    return {
        source: Examples(
            images,
            strongest[source][0].cpu().numpy(),
            own,
            model.predictions(drawn, strongest[source][0]),
            model.dataset.classes,
        )
        for source in (NATURAL, TRAINING)
    }
