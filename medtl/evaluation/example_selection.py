"""Selection of example cases: most confident, and worst mistakes."""

from __future__ import annotations

import numpy as np

from medtl.evaluation.metrics import asked_about, labelled_cases

TRUE_POSITIVES, FALSE_POSITIVES = "true positives", "false positives"
FALSE_NEGATIVES, TRUE_NEGATIVES = "false negatives", "true negatives"


def most_confident(
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
    cases = np.array([labelled_cases(labels, index)[1].sum() for index in about])
    return sorted(about[np.argsort(-cases, kind="stable")][:most].tolist())


def worst_mistakes(
    labels: np.ndarray, decisions: np.ndarray, probabilities: np.ndarray, count: int = 12
) -> np.ndarray:
    """Indices of at most `count` wrongly decided cases, the most confidently wrong first.

    `labels`, `decisions` int [N], `probabilities` [N, K].
    """
    wrong = np.flatnonzero(labels != decisions)
    confidence = probabilities[wrong, decisions[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:count]


def worst_finding_mistakes(
    labels: np.ndarray, decisions: np.ndarray, probabilities: np.ndarray, count: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` wrong decisions on findings, the most confidently wrong first.

    `labels` int8 [N, K] (1 present, 0 absent, -1 unknown), `decisions` bool [N, K],
    `probabilities` [N, K].

    Returns:
        The cases and the findings, int64 [M] each.
    """
    cases, findings = np.nonzero((labels >= 0) & (decisions != (labels == 1)))
    said = probabilities[cases, findings]
    confidence = np.where(decisions[cases, findings], said, 1 - said)
    order = np.argsort(-confidence, kind="stable")[:count]
    return cases[order], findings[order]
