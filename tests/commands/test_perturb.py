"""`perturb` against a small network, on small phantoms, as the entry point runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file

from medtl.commands.perturb import perturb
from medtl.data.loading import load
from medtl.errors import MedtlError, ParameterError
from medtl.evaluation.universal_perturbations import AttackRecipe, batched, norms_from_black
from medtl.inference.predictor import Predictor
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.registry import build
from medtl.settings.evaluation import PerturbSettings
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import example_images, load_bundle, log_model
from medtl.tracking.runs import tracked_run
from medtl.training.classical_head import select_classical_head

SIDE = 64


@pytest.fixture
def logged(small_phantoms: Path) -> Callable[..., str]:
    """`logged(size, hybrid=False)`: the URI of a logged small_resnet of that image size."""

    def log(size: int, hybrid: bool = False) -> str:
        dataset = load(str(small_phantoms), SIDE, seed=0)
        bundle = Predictor(
            architecture="small_resnet",
            classes=dataset.classes,
            preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3, size),
            weights="random",
            cutoff="fc",
            data=dataset.name,
            fingerprint=dataset.fingerprint,
            temperature=1.0,
            thresholds=(1 / 3,) * 3,
            network=centred(dataset, size),
        )
        if hybrid:
            known = bundle.features(dataset.images(np.arange(60))), dataset.labels[:60]
            classical = select_classical_head("logistic", 0, *known, *known, "none", seed=0)
            bundle = dataclasses.replace(bundle, tail=classical.head)
        settings = TrainSettings(data=str(small_phantoms), image_size=size)
        with tracked_run("train", settings):
            return log_model(bundle, example_images(SIDE, 1, 1)).model_uri

    return log


def centred(dataset, size: int) -> torch.nn.Module:
    """A network with random weights whose scores are centred, so that it gives every answer."""
    network = build("small_resnet", 3, size, seed=size).eval()
    images = torch.from_numpy(dataset.images(np.arange(60))).float() / 255
    with torch.no_grad():
        network.fc.weight *= 50
        network.fc.bias -= network((images.expand(-1, 3, -1, -1) - 0.5) / 0.25).mean(dim=0)
    return network


def test_the_run_holds_rates_pictures_and_patterns_between_two_models(logged, capsys):
    model, other = logged(SIDE), logged(SIDE + 16)
    perturb(
        PerturbSettings(
            model=model,
            models=other,
            zeta="0.1,0.02",
            order="batched",
            passes=6,
            most_images=40,
            seed=3,
        )
    )
    run = mlflow.search_runs(filter_string="tags.`medtl.kind` = 'perturb'").iloc[0]
    out = capsys.readouterr().out
    assert run["status"] == "FINISHED"
    assert run["tags.medtl.model"] == model
    client, run_id = MlflowClient(), run["run_id"]
    kept = {item.path for item in client.list_artifacts(run_id, "perturbation")}
    assert {Path(path).name for path in kept} == {
        "rates.csv", "transfers.csv", "perturbations.safetensors", "rate_against_zeta.png",
        "perturbations.png", "perturbed_natural.png", "perturbed_training.png",
    }  # fmt: skip
    folder = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="perturbation")

    data = str(mlflow.get_run(run_id).inputs.dataset_inputs[0].dataset.name)
    assert data == "wards"
    rates = pd.read_csv(Path(folder, "rates.csv"))
    splits = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/data/splits.csv"))
    assert set(rates.loc[rates["split"] == "test", "images"]) == {(splits.split == "test").sum()}
    assert set(rates.loc[rates["split"] == "train", "images"]) == {40}
    assert len(rates) == 3 * 2 * 2
    assert ((rates["low"] <= rates["rate"]) & (rates["rate"] <= rates["high"])).all()
    strongest = rates[(rates["zeta"] == 0.1) & (rates["split"] == "test")].set_index("source")
    for source in ("natural", "training", "random"):
        for end, column in (("", "rate"), ("_low", "low"), ("_high", "high")):
            metric = run[f"metrics.fooling_{source}_test{end}"]
            assert metric == pytest.approx(strongest.loc[source, column])
    assert strongest.loc["training", "rate"] > strongest.loc["random", "rate"]

    transfers = pd.read_csv(Path(folder, "transfers.csv"))
    pairs = set(zip(transfers["source"], transfers["made_on"], transfers["tried_on"], strict=True))
    expected = {(s, a, b) for s in ("natural", "training") for a in (model, other)
                for b in (model, other)}  # fmt: skip
    assert pairs == expected | {("random", model, model), ("random", other, other)}
    own = transfers[(transfers["made_on"] == model) & (transfers["tried_on"] == model)]
    assert own.set_index("source")["rate"].to_dict() == strongest["rate"].to_dict()
    assert f"{other} on {model}" in out
    note = client.get_run(run_id).data.tags["mlflow.note.content"]
    assert "noise of the same norm" in note
    assert "Between models" in note


def test_patterns_keep_their_bound_and_see_no_test_image(logged, small_phantoms):
    model = logged(SIDE)
    dataset, bundle = load(str(small_phantoms), SIDE, seed=0), load_bundle(model)
    count = len(dataset.splits["train"])
    settings = PerturbSettings(
        model=model, zeta="0.05", order="batched", passes=8, most_images=count, norm="linf"
    )
    perturb(settings)
    run_id = mlflow.search_runs(filter_string="tags.`medtl.kind` = 'perturb'").iloc[0]["run_id"]
    file = mlflow.artifacts.download_artifacts(
        f"runs:/{run_id}/perturbation/perturbations.safetensors"
    )
    patterns = load_file(file)
    assert set(patterns) == {"natural_0.05", "training_0.05", "random_0.05"}

    train = torch.from_numpy(dataset.images(dataset.splits["train"])).float() / 255 * 2 - 1
    limit = 0.05 * norms_from_black(train, "linf").mean().item()
    reached = 0.0
    for source, count in (("natural", 1), ("training", 1), ("random", 5)):
        pattern = patterns[f"{source}_0.05"]
        assert pattern.shape == (count, 1, SIDE, SIDE)
        assert pattern.abs().max().item() <= limit * (1 + 1e-6)
        if source != "random":
            reached = max(reached, pattern.abs().max().item())
    assert pattern.abs().amax(dim=(1, 2, 3)).tolist() == pytest.approx([reached] * 5)
    recipe = AttackRecipe("linf", limit, settings.step_size, passes=8)

    def scores(images: torch.Tensor) -> torch.Tensor:
        # -1 to 1 becomes 0 to 1, and that is normalised with mean 0.5 and deviation 0.25
        return bundle.network((images.expand(-1, 3, -1, -1) / 2) / 0.25)

    alone = batched(scores, train, recipe, torch.Generator().manual_seed(0))
    agree = (alone.sign() == patterns["training_0.05"][0].sign()).float().mean().item()
    # equal but for rounding; from other images, or in another scale, half of the signs would differ
    assert agree > 0.97


def test_a_target_is_counted_beside_what_holds_without_a_pattern(logged, small_phantoms):
    model = logged(SIDE)
    asked = {"model": model, "zeta": "0.3", "passes": 4, "most_images": 32}
    perturb(PerturbSettings(**asked, target="focal"))
    run = mlflow.search_runs(filter_string="tags.`medtl.kind` = 'perturb'").iloc[0]
    dataset, bundle = load(str(small_phantoms), SIDE, seed=0), load_bundle(model)
    own = bundle.scores(dataset.images(dataset.splits["test"])).argmax(axis=1)
    share = np.mean(own == dataset.classes.index("focal"))
    assert run["metrics.success_none_test"] == pytest.approx(share)
    assert run["metrics.success_training_train"] > run["metrics.success_none_train"] + 0.2

    with pytest.raises(ParameterError, match=r"target=lump.*clear, diffuse, focal"):
        perturb(PerturbSettings(**asked, target="lump"))
    failed = mlflow.search_runs(filter_string="tags.`medtl.kind` = 'perturb'").iloc[0]
    assert "lump" in failed["tags.medtl.error"]


def test_a_hybrid_is_refused_by_name(logged):
    hybrid = logged(SIDE, hybrid=True)
    with pytest.raises(MedtlError, match=rf"{hybrid} is a hybrid"):
        perturb(PerturbSettings(model=hybrid))


def test_without_a_champion_the_line_says_what_makes_one():
    with pytest.raises(
        MedtlError, match=r"no registered model lungs .*-e tune .*-P model_name=lungs"
    ):
        perturb(PerturbSettings(model_name="lungs"))


@pytest.mark.parametrize("zeta", ["0", "0.1,two", "1.5", "nan", ","])
def test_a_bound_that_is_no_share_is_a_wrong_parameter(zeta):
    with pytest.raises(ParameterError, match="zeta="):
        PerturbSettings(zeta=zeta)
