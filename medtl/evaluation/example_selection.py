"""Selection of example cases: most confident, and worst mistakes."""

from __future__ import annotations

import numpy as np

from medtl.evaluation.scored_cases import asked_about, labelled_cases

TRUE_POSITIVES, FALSE_POSITIVES = "true positives", "false positives"
FALSE_NEGATIVES, TRUE_NEGATIVES = "false negatives", "true negatives"
KINDS = (TRUE_POSITIVES, FALSE_POSITIVES, FALSE_NEGATIVES, TRUE_NEGATIVES)


def most_confident(
    labels: np.ndarray, decisions: np.ndarray, probabilities: np.ndarray, most: int
) -> dict[str, np.ndarray]:
    """Selects the most confident decisions of each kind (int, at most `most` each) for one class.

    Confidence is the probability of the class for a positive decision, and one less that for a
    negative one. A kind without cases is empty.

    Args:
        labels: bool [N], True for cases of the class.
        decisions: bool [N], True for cases decided to be of it.
        probabilities: [N], of the class.
        most: number of cases of each kind.
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
    """Selects the classes (of `count`) that have a gallery, in order.

    Of two classes it is the second, the positive one; of more, or of findings, the `most` with the
    most cases in `labels` (int [N], or int8 [N, K]).
    """
    about = np.array(asked_about(labels, count))
    cases = np.array([labelled_cases(labels, index)[1].sum() for index in about])
    return sorted(about[np.argsort(-cases, kind="stable")][:most].tolist())


def worst_mistakes(
    labels: np.ndarray, decisions: np.ndarray, probabilities: np.ndarray, count: int = 12
) -> np.ndarray:
    """Selects at most `count` wrongly decided cases, the most confidently wrong first.

    `labels`, `decisions` int [N], `probabilities` [N, K].
    """
    wrong = np.flatnonzero(labels != decisions)
    confidence = probabilities[wrong, decisions[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:count]


def worst_finding_mistakes(
    labels: np.ndarray, decisions: np.ndarray, probabilities: np.ndarray, count: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Selects at most `count` wrong decisions on findings, the most confidently wrong first.

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
