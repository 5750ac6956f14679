"""Universal perturbations of a model: attack, rates, artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medtl.data.dataset import Dataset
from medtl.data.sources.natural_images import natural_images
from medtl.errors import MedtlError
from medtl.evaluation.confidence_intervals import rate
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.universal_perturbations import (
    ORDERS,
    AttackRecipe,
    Examples,
    fooled,
    norms,
    norms_from_black,
    predicted,
    random_perturbation,
    resized,
)
from medtl.inference.predictor import Predictor
from medtl.networks.preprocessing import network_input, unit_images
from medtl.pipeline.scoring import in_batches
from medtl.reporting.markdown import plain
from medtl.reporting.plots import robustness
from medtl.settings.evaluation import PerturbSettings
from medtl.tracking.artifacts import log_intervals, log_picture, log_table, log_tensors
from medtl.tracking.runs import TEXT_LIMIT

SOURCES = NATURAL, TRAINING, RANDOM = "natural", "training", "random"
"""Sources of a perturbation: natural images, training images, or none (random)."""

CONTROLS = 5  # random perturbations per bound
Made = tuple[str, float]
"""Source and bound (zeta) of a perturbation."""


@dataclass(frozen=True)
class Attacked:
    """Model under attack, its network on `device`, and the data set at its image size."""

    uri: str
    bundle: Predictor
    dataset: Dataset
    device: torch.device

    @classmethod
    def of(cls, uri: str, bundle: Predictor, dataset: Dataset, device: torch.device) -> Attacked:
        """Moves the network to the device.

        Raises:
            MedtlError: the model is a hybrid, or of cases of several images.
        """
        if bundle.modalities:
            raise MedtlError(
                f"{uri} takes cases of {', '.join(bundle.modalities)}; a universal perturbation is "
                "of one image: give a model of single images"
            )
        if bundle.tail is not None:
            raise MedtlError(
                f"{uri} is a hybrid: its classifier has no gradient to make a perturbation with; "
                "give a model of transfer=finetune"
            )
        return cls(uri, bundle.moved_to(device), dataset, device)

    def scores(self, images: Tensor) -> Tensor:
        """Computes logits [B, K] of images [B, C, S, S] from -1 to 1, differentiable."""
        return self.bundle.network(network_input((images + 1) / 2, self.bundle.preprocessing))

    def images(self, indices: np.ndarray) -> Tensor:
        """Loads images of the data set: [N, C, S, S] from -1 to 1."""
        return self.signed(self.dataset.images(indices))

    def signed(self, raw: np.ndarray) -> Tensor:
        """Scales stored pixels [N, C, S, S] (uint8 or uint16) to -1 (black) to 1 (white)."""
        return unit_images(raw, self.device) * 2 - 1

    def predictions(self, indices: np.ndarray, perturbation: Tensor | None = None) -> np.ndarray:
        """Predicts the most probable class of images of the data set, perturbed or not: int [N]."""

        def classes(raw: np.ndarray) -> np.ndarray:
            images = self.signed(raw)
            shifted = images if perturbation is None else images + perturbation
            return predicted(self.scores, shifted).cpu().numpy()

        return in_batches(classes, self.dataset, indices)


@dataclass(frozen=True)
class Attack:
    """Attack that is applied to each model.

    Attributes:
        settings: norm, order, passes, seed ...
        target: target class of all images, or None.
        splits: images for the rates: `train`, from which perturbations are made, too, and `test`.
    """

    settings: PerturbSettings
    target: int | None
    splits: dict[str, np.ndarray]

    def limit(self, model: Attacked, zeta: float) -> float:
        """Returns the largest norm at this bound: a share of the training images' mean norm."""
        images = model.images(self.splits["train"])
        return zeta * norms_from_black(images, self.settings.norm).mean().item()

    def recipe(self, model: Attacked, zeta: float) -> AttackRecipe:
        """Returns the parameters of a perturbation at this bound."""
        asked = self.settings
        limit = self.limit(model, zeta)
        return AttackRecipe(asked.norm, limit, asked.step_size, asked.passes, self.target)

    def images(self, model: Attacked, source: str) -> Tensor:
        """Loads the natural or training images that perturbations are made from: [N, C, S, S]."""
        if source != NATURAL:
            return model.images(self.splits["train"])
        rendering = model.bundle.preprocessing.rendering
        channels = model.dataset.pixels.array.shape[1]
        asked = self.settings
        raw = natural_images(
            asked.images, asked.most_images, rendering, channels, asked.seed, asked.unreadable
        )
        return model.signed(raw)

    def perturbations(self, model: Attacked, zetas: Sequence[float]) -> dict[Made, Tensor]:
        """Makes perturbations [D, C, S, S] against the model; deterministic for a given seed.

        Returns one from natural and one from training images (D is 1), and five random ones as a
        control, with the larger norm of the two, by source and bound.
        """
        settings, made = self.settings, {}
        for source in (NATURAL, TRAINING):
            images = self.images(model, source)
            for zeta in zetas:
                recipe = self.recipe(model, zeta)
                # a new generator for each, so that it does not depend on the other sources
                generator = torch.Generator().manual_seed(settings.seed)
                pattern = ORDERS[settings.order](model.scores, images, recipe, generator)
                made[source, zeta] = pattern[None]
        for zeta in zetas:
            like = made[NATURAL, zeta][0]
            reached = max(self.reached(made[source, zeta]) for source in (NATURAL, TRAINING))
            generator = torch.Generator().manual_seed(settings.seed)
            made[RANDOM, zeta] = torch.stack(
                [
                    random_perturbation(like, settings.norm, reached, generator)
                    for _ in range(CONTROLS)
                ]
            )
        return made

    def reached(self, perturbations: Tensor) -> float:
        """Computes the mean norm of perturbations [D, C, S, S]."""
        return norms(perturbations, self.settings.norm).mean().item()

    def transferred(self, perturbations: Tensor, maker: Attacked, other: Attacked) -> Tensor:
        """Resizes perturbations [D, C, S, S] made against one model for another.

        Keeps the norm as a share of the images' mean norm.
        """
        side = other.bundle.image_size
        if side == maker.bundle.image_size:
            return perturbations
        norm = self.settings.norm
        scale = self.limit(other, 1.0) / self.limit(maker, 1.0)
        lengths = (norms(perturbations, norm) * scale).tolist()
        pairs = zip(perturbations, lengths, strict=True)
        return torch.stack([resized(pattern, side, norm, length) for pattern, length in pairs])

    def rate(
        self, model: Attacked, split: str, own: np.ndarray, perturbations: Tensor | None
    ) -> Interval:
        """Computes the fooling rate of perturbations [D, C, S, S] on a split, over all D.

        `own` int [N] are the predictions for the unperturbed images.
        """
        indices = self.splits[split]
        after = [own]
        if perturbations is not None:
            after = [model.predictions(indices, pattern) for pattern in perturbations]
        hits = np.concatenate([fooled(own, each, self.target) for each in after])
        groups = np.tile(model.dataset.groups[indices], len(after))
        return rate(hits, groups)


def attacked_splits(settings: PerturbSettings, dataset: Dataset) -> dict[str, np.ndarray]:
    """Returns indices of the training images (at most `most_images`, drawn) and all test images.

    Raises:
        MedtlError: one of the splits is empty.
    """
    train, test = dataset.splits["train"], dataset.splits["test"]
    for name, indices in (("train", train), ("test", test)):
        if len(indices) == 0:
            raise MedtlError(
                f"{dataset.name} has no images in its {name} split; perturbations are made from "
                "training images and tried on test images"
            )
    if len(train) > settings.most_images:
        random = np.random.default_rng(settings.seed)
        train = np.sort(random.choice(train, settings.most_images, replace=False))
    return {"train": train, "test": test}


PLACE = "perturbation"
FULL = 0.95  # share of its bound from which a pattern counts as reaching it
WITHOUT = "none"  # source of the rows without a perturbation
NORM_NAMES = {"l2": "L2", "linf": "L-infinity"}
LIMITS = (
    "The perturbations were made with access to the model's weights. If natural images suffice, no "
    "image of a patient is needed, but the model still is.",
    "A low share does not make a model safe: more images, more passes, another step size or "
    "another kind of attack may fool more. A high share at a norm that can be seen says less "
    "than one at a norm that cannot.",
    "The rates hold for images like these and for this model only.",
    "Pixels were not clipped: some perturbed values lie outside black and white, which no image "
    "file can hold.",
)


@dataclass(frozen=True)
class Perturbed:
    """Results of an attack on a model.

    Attributes:
        uri: URI of the model.
        dataset: name of the data set.
        unit: sampling unit of intervals, see `Dataset.unit`.
        classes: the K classes of the model.
        settings: settings of the attack.
        images: number of training images that the perturbations were made from and tested on.
        rates: one row per source, bound and split: `source`, `zeta`, `split`, `rate`, `low`,
            `high`, `images`, `norm` (of the pattern) and `limit` (the largest allowed norm).
        transfers: one row per source, model of origin and tested model; None with one model.
        perturbations: pattern [C, S, S] by source, at the largest bound.
        examples: test images before and after, by source.
    """

    uri: str
    dataset: str
    unit: str
    classes: tuple[str, ...]
    settings: PerturbSettings
    images: int
    rates: pd.DataFrame
    transfers: pd.DataFrame | None
    perturbations: Mapping[str, Tensor]
    examples: Mapping[str, Examples]

    @property
    def bound(self) -> str:
        """The largest bound in words."""
        norm = NORM_NAMES[self.settings.norm]
        return f"{norm} norm at most {100 * self.settings.zetas[-1]:g} % of an image's"

    @property
    def rate_name(self) -> str:
        """`fooling` for any other class, `success` for a target."""
        return "success" if self.settings.target else "fooling"

    def strongest(self) -> pd.DataFrame:
        """Returns the rows of `rates` at the largest bound, and those without a pattern."""
        return self.rates[self.rates["zeta"].isin((0.0, self.settings.zetas[-1]))]

    def below_bound(self) -> list[str]:
        """Returns one line per source whose pattern stays well below the largest bound."""
        rows = self.strongest()
        made = rows[(rows["split"] == "test") & rows["source"].isin(("natural", "training"))]
        return [
            f"the pattern from {row['source']} images reached {row['norm']:.3g} of a norm of "
            f"{row['limit']:.3g} allowed: more images, more passes or larger steps may fool more"
            for _, row in made[made["norm"] < FULL * made["limit"]].iterrows()
        ]

    def summary(self) -> str:
        """Returns the rates at the largest bound as lines for the console."""
        rows = self.strongest()
        count = rows.loc[rows["split"] == "test", "images"].iloc[0]
        lines = [
            f"{self.uri} on {self.dataset}: {self.bound}",
            f"{self.rate_name} rate   (95 % intervals over {self.unit}, {count} test images)",
        ]
        for _, row in rows[rows["split"] == "test"].iterrows():
            interval = f"{row['rate']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
            lines.append(f"  {row['source']:<12}{interval}")
        lines += [f"  {line}" for line in self.below_bound()]
        if self.transfers is not None:
            lines.append("made on, tried on:")
            for _, row in self.transfers.iterrows():
                interval = f"{row['rate']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
                where = f"{row['made_on']} on {row['tried_on']}"
                lines.append(f"  {row['source']:<12}{interval}  {where}")
        return "\n".join(lines)


def log_perturbed(found: Perturbed, patterns: Mapping[str, Tensor]) -> None:
    """Logs metrics, tables, pictures and a description; `patterns` are all perturbations."""
    log_intervals(
        {
            f"{found.rate_name}_{row['source']}_{row['split']}": Interval(
                row["rate"], row["low"], row["high"]
            )
            for _, row in found.strongest().iterrows()
        }
    )
    settings = found.settings
    log_table(found.rates, f"{PLACE}/rates.csv")
    if found.transfers is not None:
        log_table(found.transfers, f"{PLACE}/transfers.csv")
    facts = {"model": found.uri, "scale": "black is -1, white is 1", "norm": settings.norm}
    log_tensors(patterns, f"{PLACE}/perturbations.safetensors", facts)
    _log_pictures(found)
    mlflow.set_tag("mlflow.note.content", note(found))


def note(found: Perturbed) -> str:
    """Formats the interpretation of the numbers and its limits, as Markdown."""
    settings = found.settings
    aim = (
        f"the answer {plain(settings.target)}" if settings.target else "another answer than before"
    )
    lines = [
        f"# Universal perturbations against {plain(found.uri)}",
        f"One pattern is added to every image of {plain(found.dataset)}, its {found.bound} (mean "
        f"of the training images). How many images get {aim}? ({settings.order} order)",
        "",
        "| pattern made from | training images | test images |",
        "| --- | --- | --- |",
    ]
    rows = found.strongest()
    for source in rows["source"].unique():
        of_source = rows[rows["source"] == source].set_index("split")
        cells = " | ".join(_percent(of_source.loc[split]) for split in ("train", "test"))
        lines.append(f"| {_source_in_words(source, found)} | {cells} |")
    lines += [
        "",
        f"In brackets: 95 % intervals over {found.unit}.",
        "",
        f"**What this says.** On the test images {_against_random(rows)}.",
        *(f"{line[0].upper()}{line[1:]}." for line in found.below_bound()),
        "",
        "**What it does not say.**",
        "",
        *(f"- {limit}" for limit in (_counted(settings.target), *LIMITS)),
    ]
    text = "\n".join(lines)
    if found.transfers is None:
        return text
    between = "\n".join(_transfer_lines(found.transfers))
    if len(text) + len(between) > TEXT_LIMIT:
        between = f"\n\nBetween models: see {PLACE}/transfers.csv."
    return text + between


def _against_random(rows: pd.DataFrame) -> str:
    """Formats whether patterns fool more than noise of the same norm (disjoint intervals)."""
    test = rows[rows["split"] == "test"].set_index("source")
    said = []
    for source in ("natural", "training"):
        apart = test.loc[source, "low"] > test.loc["random", "high"]
        what = "fools more than" if apart else "is not distinguishable from"
        said.append(f"the pattern from {source} images {what} noise of the same norm")
    return ", and ".join(said)


def _counted(target: str) -> str:
    if target:
        return (
            f"The share counts answers {target}, right or wrong, among them those of images that "
            "had this answer before."
        )
    return (
        "The share counts changed answers, not wrong ones: an answer is compared with the model's "
        "own answer before, not with the label."
    )


def _transfer_lines(transfers: pd.DataFrame) -> list[str]:
    lines = [
        "",
        "",
        "Between models, with the same bound, on the test images:",
        "",
        "| pattern | made on | tried on | rate |",
        "| --- | --- | --- | --- |",
    ]
    for _, row in transfers.iterrows():
        made, tried = (f"{row[who]} ({row[f'{who}_weights']})" for who in ("made_on", "tried_on"))
        made = "-" if row["source"] == "random" else made
        lines.append(f"| {row['source']} | {made} | {tried} | {_percent(row)} |")
    return lines


def _log_pictures(found: Perturbed) -> None:
    settings, name = found.settings, f"{found.rate_name.capitalize()} rate"
    figure = robustness.rate_against_zeta(found.rates, name, NORM_NAMES[settings.norm])
    log_picture(figure, f"{PLACE}/rate_against_zeta.png")
    shown = {source: pattern.numpy() for source, pattern in found.perturbations.items()}
    figure = robustness.perturbations_sheet(shown, f"{found.bound}; grey is no change")
    log_picture(figure, f"{PLACE}/perturbations.png")
    for source, examples in found.examples.items():
        changed = int((examples.own != examples.after).sum())
        figure = robustness.perturbed_sheet(
            examples,
            f"pattern from {source} images, {found.bound}; {changed} of {len(examples.own)} "
            "changed",
        )
        log_picture(figure, f"{PLACE}/perturbed_{source}.png")


def _source_in_words(source: str, found: Perturbed) -> str:
    return {
        WITHOUT: "nothing (no pattern)",
        "natural": "natural images (no medical image)",
        "training": f"{found.images} training images",
        "random": "nothing (random, of the norm reached)",
    }[source]


def _percent(row: pd.Series) -> str:
    return f"{100 * row['rate']:.0f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f})"
