"""Zhang 2023: ImageNet weights against random ones."""

from __future__ import annotations

from medtl.comparison.design import (
    SERIES,
    Plan,
    architectures,
    finetuned,
    fractions,
    paired,
    refuse_chosen,
    repeated,
    several_seeds,
    spelled_out,
    weights,
)
from medtl.comparison.study_registry import register_study
from medtl.settings.comparison import CompareSettings


@register_study
def zhang2023(settings: CompareSettings) -> Plan:
    """Plans ImageNet against random weights (Zhang 2023, doi:10.54254/2755-2721/18/20230980)."""
    refuse_chosen(settings, "transfer", "classifier", "different", "same")
    starts = weights(settings, "random", "auto")
    cells = repeated(
        (
            cell
            for architecture in architectures(
                settings, ("resnet18", "vgg11", "alexnet", "mobilenet_v2")
            )
            for start in starts
            for cutoff in spelled_out(settings, architecture) or ("all",)
            for cell in finetuned(settings, SERIES.get(start, start), architecture, start, cutoff)
        ),
        fractions(settings),
        several_seeds(settings),
    )
    baseline = "random" if "random" in starts else starts[0]
    return Plan(
        "zhang2023",
        "Does pretraining help: the same networks from pretrained and from random weights",
        "Zhang 2023, doi:10.54254/2755-2721/18/20230980",
        "accuracy",
        cells,
        paired(
            cells,
            lambda cell: cell.weights == baseline,
            "fraction",
            "architecture",
            "cutoff",
            "optimizer",
            "hidden",
        ),
        ("convergence",),
        notes=(
            "Known: ResNet18, VGG11, AlexNet and MobileNet, each trained twice on the same three "
            "classes of chest X-rays, from ImageNet weights and from random ones.",
            "Ours: the optimizer, the epochs, five seeds on the user's images.",
        ),
    )
