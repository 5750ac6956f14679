"""Universal perturbations beside those of the Adversarial Robustness Toolbox (ART).

Both compute a pattern from the same natural images against the same model, with the same bound,
step and number of passes, one image at a time (Minagi, Hirano & Takemoto 2022 used ART). They
differ in the order of the images, and in ART's gradient of the cross-entropy, which rounds to zero
for probabilities near 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

from medtl.data.dataset import Dataset
from medtl.evaluation.universal_perturbations import (
    AttackRecipe,
    Scores,
    random_perturbation,
    sequential,
)
from medtl.pipeline.model_and_data import chosen_model, images_for
from medtl.pipeline.universal_perturbations import (
    CONTROLS,
    NATURAL,
    Attack,
    Attacked,
    attacked_splits,
)
from medtl.settings.evaluation import PerturbSettings


class _Scored(nn.Module):
    """Wraps a function from images to logits as a module for ART."""

    def __init__(self, scores: Scores) -> None:
        super().__init__()
        self._scores = scores

    def forward(self, images: Tensor) -> Tensor:
        return self._scores(images)


def toolbox_perturbation(
    scores: Scores, images: Tensor, recipe: AttackRecipe, classes: int, seed: int
) -> Tensor:
    """Makes a non-targeted perturbation [C, S, S] by ART from images [N, C, S, S].

    Raises:
        ImportError: ART is not installed (`pip install adversarial-robustness-toolbox`).
    """
    from art.attacks.evasion import UniversalPerturbation
    from art.estimators.classification import PyTorchClassifier

    shape = tuple(images.shape[1:])
    classifier = PyTorchClassifier(
        _Scored(scores), nn.CrossEntropyLoss(), input_shape=shape, nb_classes=classes,
        device_type="cpu",
    )  # fmt: skip
    step = recipe.epsilon(images[0].numel())
    attack = UniversalPerturbation(
        classifier,
        attacker="fgsm",
        attacker_params={"eps": step, "eps_step": step, "norm": np.inf, "batch_size": 1},
        delta=1e-6,
        max_iter=recipe.passes,
        eps=recipe.limit,
        norm=2 if recipe.norm == "l2" else np.inf,
        batch_size=1,
        verbose=False,
    )
    np.random.seed(seed)  # ART draws its order from numpy's global generator
    attack.generate(images.numpy())
    return torch.from_numpy(np.asarray(attack.noise)).float().reshape(shape)


def beside_toolbox(settings: PerturbSettings) -> Iterator[str]:
    """Yields the fooling rates on the test split: ours, ART's, random with the larger norm."""
    uri, bundle = chosen_model(settings)
    dataset: Dataset = images_for(settings, uri, bundle, bundle.preprocessing.rendering)
    model = Attacked.of(uri, bundle, dataset, torch.device("cpu"))
    attack = Attack(settings, None, attacked_splits(settings, dataset))
    images, recipe = attack.images(model, NATURAL), attack.recipe(model, settings.zetas[-1])
    generator = torch.Generator().manual_seed(settings.seed)
    made = {
        "medtl": sequential(model.scores, images, recipe, generator)[None],
        "toolbox": toolbox_perturbation(
            model.scores, images, recipe, len(dataset.classes), settings.seed
        )[None],
    }
    length = max(attack.reached(pattern) for pattern in made.values())
    made["random"] = torch.stack(
        [random_perturbation(images[0], recipe.norm, length, generator) for _ in range(CONTROLS)]
    )
    test = attack.splits["test"]
    own = model.predictions(test)
    yield (
        f"{len(images)} natural images, {len(test)} test images, {recipe.norm} norm at most "
        f"{recipe.limit:.3g}; 95 % intervals over {dataset.unit}"
    )
    for source, pattern in made.items():
        share = attack.rate(model, "test", own, pattern)
        yield (
            f"{source:<10}{share.value:.3f} ({share.low:.3f} to {share.high:.3f}), "
            f"norm {attack.reached(pattern):.3g}"
        )


@click.command()
@click.option("--model", required=True, help="MLflow URI of a trained model")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="folder of natural images; by default patches of two photographs",
)
@click.option("--zeta", default=0.04, help="bound, as a share of the mean norm of an image")
@click.option("--norm", type=click.Choice(["l2", "linf"]), default="l2")
@click.option("--most-images", default=256, help="the most natural images")
@click.option("--passes", default=3, help="the most passes over them")
@click.option("--step-size", default=0.1, help="norm of one step, as a share of the bound")
@click.option("--duplicates", default="refuse", help="as of train")
@click.option("--seed", default=0, help="draws images, orders and controls")
def toolbox(
    model: str,
    images: Path | None,
    zeta: float,
    norm: str,
    most_images: int,
    passes: int,
    step_size: float,
    duplicates: str,
    seed: int,
) -> None:
    """Universal perturbations beside those of the Adversarial Robustness Toolbox, one model."""
    settings = PerturbSettings(
        model=model,
        images=str(images or ""),
        zeta=str(zeta),
        norm=norm,
        most_images=most_images,
        passes=passes,
        step_size=step_size,
        duplicates=duplicates,
        seed=seed,
    )
    for line in beside_toolbox(settings):
        print(line, flush=True)
