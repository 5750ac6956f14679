"""Evaluate a registered or logged model on any data and split."""

from __future__ import annotations

import mlflow

from medtl.data.dataset import without
from medtl.data.manifest import data_name
from medtl.errors import MedtlError
from medtl.evaluation.split_evaluation import evaluate_split
from medtl.evaluation.subgroups import evaluate_subgroups, subgroup_columns
from medtl.pipeline.baselines import lines_of_training
from medtl.pipeline.doubtful_list import with_doubtful
from medtl.pipeline.evaluation_logging import (
    log_domain,
    log_evaluation,
    log_external,
    log_heatmaps,
    log_subgroups,
)
from medtl.pipeline.external_validation import class_mapping, evaluate_external, note_seen
from medtl.pipeline.heatmap_methods import methods_for
from medtl.pipeline.heatmaps import explain_split
from medtl.pipeline.model_and_data import check_one_label, chosen_model, images_for
from medtl.pipeline.ood_report import check_sources, evaluate_domain
from medtl.pipeline.parameter_checks import check_asked_of_model
from medtl.pipeline.run_logging import announce, log_data
from medtl.pipeline.scoring import indices_of, predict_split
from medtl.settings.evaluation import EvaluateSettings
from medtl.tracking.addresses import run_addresses
from medtl.tracking.lineage import listed_labels
from medtl.tracking.runs import name_run, tracked_run
from medtl.training.device import resolve_device


def evaluate(settings: EvaluateSettings) -> None:
    """Scores a model and logs metrics with intervals, pictures and tables."""
    with tracked_run("evaluate", settings) as run:
        check_asked_of_model(settings)
        check_sources(settings.sources)
        given = listed_labels(settings.doubtful) if settings.doubtful else None
        device = resolve_device(settings.device)
        uri, bundle = chosen_model(settings)
        announce("evaluate", uri, data_name(settings.data) if settings.data else bundle.data)
        maps = methods_for(bundle, settings.map_methods)
        bundle = bundle.moved_to(device)
        dataset = images_for(settings, uri, bundle, bundle.preprocessing.rendering)
        external = dataset.fingerprint != bundle.fingerprint
        if settings.subgroup_columns:
            check_one_label(dataset, "subgroups")
        mapping = class_mapping(uri, bundle, dataset, settings.classes_of_labels)
        dataset = without(dataset, mapping.dropped)
        indices = indices_of(dataset, settings.split)
        grouped = subgroup_columns(dataset, indices, settings.subgroup_columns)
        mlflow.set_tags(
            {
                "medtl.architecture": bundle.architecture,
                "medtl.weights": bundle.weights,
                "medtl.cutoff": bundle.cutoff,
                "medtl.data": dataset.fingerprint,
                "medtl.model": uri,
            }
        )
        name_run(f"{dataset.name} {settings.split}")
        dataset = log_data(dataset)
        predictions = predict_split(bundle, dataset, settings.split, mapping)
        evaluation = evaluate_split(dataset, predictions, settings.seed)
        evaluation = with_doubtful(evaluation, dataset, indices, given, uri, settings.seed)
        heatmaps = explain_split(bundle, dataset, predictions, mapping, settings.seed, maps)
        log_evaluation(evaluation)
        log_heatmaps(heatmaps)
        checked = heatmaps.words.replace("\n", "\n" + " " * 14)
        own_test = not external and settings.split == "test"
        lines = [
            f"{uri} on {dataset.name}",
            evaluation.summary(),
            *(f"warning       {line}" for line in dataset.warnings),
            *(f"baseline      {line}" for line in lines_of_training(uri, own_test)),
            f"heat maps     {checked}",
        ]
        if grouped:
            subgroups = evaluate_subgroups(evaluation, grouped, settings.seed)
            log_subgroups(subgroups)
            lines += subgroups.lines()
        domain = evaluate_domain(bundle, dataset, indices, settings)
        if domain is None:
            lines.append("in domain     the model has no training features to compare with")
        else:
            log_domain(domain)
            lines += domain.lines()
        if not own_test:
            note_seen(bundle, dataset, indices)
        if external:
            try:
                comparison = evaluate_external(uri, bundle, dataset, evaluation, mapping)
            except MedtlError as error:
                lines.append(f"no internal scores: {error}")
            else:
                log_external(comparison)
                lines += comparison.lines()
    print("\n".join([*lines, *run_addresses(run.info.run_id)]))
