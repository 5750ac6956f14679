"""Pictures of training, evaluation and search: arrays and tables in, matplotlib figures out."""

from medtl.evaluation.pictures.calibration import reliability_diagram
from medtl.evaluation.pictures.confusion import confusion_matrix
from medtl.evaluation.pictures.curves import precision_recall_curves, roc_curves
from medtl.evaluation.pictures.cutoffs import score_against_cutoff
from medtl.evaluation.pictures.decision import decision_curves
from medtl.evaluation.pictures.domain import domain_distances
from medtl.evaluation.pictures.explanation import explanation_gallery
from medtl.evaluation.pictures.findings import finding_decisions, finding_reliability
from medtl.evaluation.pictures.galleries import (
    contact_sheet,
    finding_mistakes_sheet,
    mistakes_sheet,
    worst_finding_mistakes,
    worst_mistakes,
)
from medtl.evaluation.pictures.inspection import (
    copies_sheet,
    image_sizes,
    shortcut_scores,
    strip_of_images,
)
from medtl.evaluation.pictures.learning import learning_curves
from medtl.evaluation.pictures.parallel import parallel_coordinates
from medtl.evaluation.pictures.perturbed import (
    perturbations_sheet,
    perturbed_sheet,
    rate_against_zeta,
)
from medtl.evaluation.pictures.search import hyperparameter_importances, search_history
from medtl.evaluation.pictures.sites import internal_and_external
from medtl.evaluation.pictures.studies import (
    convergence_curves,
    score_against_cost,
    score_against_depth,
    score_against_size,
    values_with_intervals,
)
from medtl.evaluation.pictures.subgroups import subgroup_scores

__all__ = [
    "confusion_matrix",
    "contact_sheet",
    "convergence_curves",
    "copies_sheet",
    "decision_curves",
    "domain_distances",
    "explanation_gallery",
    "finding_decisions",
    "finding_mistakes_sheet",
    "finding_reliability",
    "hyperparameter_importances",
    "image_sizes",
    "internal_and_external",
    "learning_curves",
    "mistakes_sheet",
    "parallel_coordinates",
    "perturbations_sheet",
    "perturbed_sheet",
    "precision_recall_curves",
    "rate_against_zeta",
    "reliability_diagram",
    "roc_curves",
    "score_against_cost",
    "score_against_cutoff",
    "score_against_depth",
    "score_against_size",
    "search_history",
    "shortcut_scores",
    "strip_of_images",
    "subgroup_scores",
    "values_with_intervals",
    "worst_finding_mistakes",
    "worst_mistakes",
]
