"""Which cases show best how a model decides: the surest right and wrong ones of a class."""

from __future__ import annotations

import numpy as np

from medtl.evaluation.truth import asked, asked_about

TRUE_POSITIVES, FALSE_POSITIVES = "true positives", "false positives"
FALSE_NEGATIVES, TRUE_NEGATIVES = "false negatives", "true negatives"


def surest(
    labels: np.ndarray, decisions: np.ndarray, probabilities: np.ndarray, most: int
) -> dict[str, np.ndarray]:
    """The cases (int, at most `most` each) by kind, the surest first, of a class against the rest.

    A case that was decided to be of the class is the surer the higher its probability of it, any
    other the surer the lower. A kind of which there is no case is empty.

    Args:
        labels: bool [N], is the case of the class.
        decisions: bool [N], was it decided to be.
        probabilities: [N], of the class.
        most: cases of each kind.
    """
    kinds = {
        TRUE_POSITIVES: labels & decisions,
        FALSE_POSITIVES: ~labels & decisions,
        FALSE_NEGATIVES: labels & ~decisions,
        TRUE_NEGATIVES: ~labels & ~decisions,
    }
    doubt = np.where(decisions, -probabilities, probabilities)
    order = np.argsort(doubt, kind="stable")
    return {kind: order[is_of_it[order]][:most] for kind, is_of_it in kinds.items()}


def shown_classes(labels: np.ndarray, count: int, most: int) -> list[int]:
    """The classes (of `count`) that get a gallery, in order: of two, the second, the positive one.

    Of several, or of findings, the `most` that have the most cases in `labels` (int [N], or int8
    [N, K]).
    """
    about = np.array(asked_about(labels, count))
    cases = np.array([asked(labels, index)[1].sum() for index in about])
    return sorted(about[np.argsort(-cases, kind="stable")][:most].tolist())
