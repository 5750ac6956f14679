"""Penalised logistic regression on frozen features, solved to its optimum.

The loss of a linear layer on fixed features is convex, so it needs no learning rate and no number
of epochs: L-BFGS (scikit-learn) solves it for each strength of the L2 penalty, and the strength is
selected by the AUROC on the validation split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import fx, nn

from medtl.blas import one_blas_thread
from medtl.training.losses import valid_scores

STRENGTHS = np.logspace(-5, 1, 13)  # scikit-learn's C, for standardized features
MOST_ITERATIONS = 2000
NEAR = (-1, 3)
"""Strengths that are tried on augmented views, by their distance from the one selected without:
views regularise too, so weaker penalties suit them."""

FEW_IMAGES = 300
"""Most training images with which a head is also solved on augmented views by default. Measured:
they gain with 40 to 300 images, and with more on some data sets only
(`benchmarks head-views`)."""

MOST_VERSIONS = 10_000
"""Most images and views that a head is solved on with `augment=auto`; more take minutes."""
_PASSED_THROUGH = (nn.Dropout, nn.Identity, nn.Flatten)


@dataclass(frozen=True)
class LinearHead:
    """Linear layer that minimises a penalised logistic loss.

    Attributes:
        weight: float64 [K, F], for unscaled features.
        bias: float64 [K].
        path: one row per penalty, the strongest first: `c` (scikit-learn's C), `views` (augmented
            views of each image beside it, 0 for none), `valid_loss`, `valid_accuracy`,
            `valid_auroc`, `valid_f1`, and `chosen`. Rows with views, if any, come last.
    """

    weight: np.ndarray
    bias: np.ndarray
    path: pd.DataFrame

    @property
    def c(self) -> float:
        """Selected strength of the penalty, as scikit-learn's C."""
        return float(self.path.loc[self.path["chosen"], "c"].iloc[0])

    @property
    def views(self) -> int:
        """Number of augmented views of each image that it was fitted on, 0 for none."""
        return int(self.path.loc[self.path["chosen"], "views"].iloc[0])

    @property
    def valid_auroc(self) -> float:
        """AUROC on the validation split at this strength."""
        return float(self.path.loc[self.path["chosen"], "valid_auroc"].iloc[0])

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Computes logits float32 [N, K] of features [N, F]."""
        return (features @ self.weight.T + self.bias).astype(np.float32)

    def copy_to(self, layer: nn.Linear) -> None:
        """Copies weight and bias to a layer from F to K."""
        state = {"weight": self.weight, "bias": self.bias}
        layer.load_state_dict(
            {name: layer.weight.new_tensor(np.asarray(value)) for name, value in state.items()}
        )


def linear_layer(suffix: fx.GraphModule) -> nn.Linear | None:
    """Returns the linear layer of a suffix that has only dropout and flattening beside it."""
    modules, found = dict(suffix.named_modules()), None
    inputs = [node for node in suffix.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        return None
    before = inputs[0]
    for node in suffix.graph.nodes:
        if node.op == "placeholder":
            continue
        if node.op == "output":
            return found if node.args[0] is before else None
        if node.all_input_nodes != [before]:
            return None
        module = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.Linear) and found is None and module.bias is not None:
            found = module
        elif not isinstance(module, _PASSED_THROUGH) and not _flattens(node):
            return None
        before = node
    return None


@one_blas_thread
def solve(
    features: np.ndarray,
    labels: np.ndarray,
    valid_features: np.ndarray,
    valid_labels: np.ndarray,
    balance: str,
    strengths: np.ndarray = STRENGTHS,
    versions: int = 1,
) -> LinearHead:
    """Solves a linear head for each strength of the penalty, and selects one on validation.

    Selects the highest AUROC; ties by the lowest loss, then the strongest penalty.

    Args:
        features: float [N, F].
        labels: int [N], or int8 [N, K] of findings (1 present, 0 absent, -1 unknown), each fitted
            on the images with a known label; or shares of readers, float32 [N, K] (-1 unknown),
            for which an image counts once a class, weighted by its share.
        valid_features: float [M, F].
        valid_labels: as `labels`, [M] or [M, K].
        balance: `none`; any other value weights classes by inverse frequency.
        strengths: scikit-learn's C, float [S], ascending.
        versions: rows of each image in `features`; together they weigh as one image.
    """
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features).astype(np.float64)
    one_label = valid_labels.ndim == 1
    columns = [labels] if one_label else list(labels.T)
    solvers = []
    for column in columns:
        known = np.flatnonzero(column >= 0) if column.ndim == 1 else np.arange(len(column))
        images, codes, weights = weighted_rows(column[known], balance)
        solvers.append(_Solver(scaled[known[images]], codes, balance, weights))
    heads: list[tuple[np.ndarray, np.ndarray]] = []
    rows = []
    for strength in strengths:
        solved = [solver.solve(strength / versions) for solver in solvers]
        weight = np.concatenate([each[0] for each in solved])
        bias = np.concatenate([each[1] for each in solved])
        if one_label and len(bias) == 1:  # scikit-learn gives two classes one score
            weight, bias = (np.concatenate([-each, each]) / 2 for each in (weight, bias))
        weight = weight / scaler.scale_
        bias = bias - weight @ scaler.mean_
        heads.append((weight, bias))
        logits = (valid_features @ weight.T + bias).astype(np.float32)
        rows.append({"c": strength, "views": versions - 1, **valid_scores(logits, valid_labels)})
    path = pd.DataFrame(rows)
    best = best_candidate(path)
    path["chosen"] = path.index == best
    return LinearHead(*heads[best], path)


def best_candidate(path: pd.DataFrame) -> int:
    """Returns the row with the highest `valid_auroc`; ties by `valid_loss`, then the first row."""
    rounded = path.assign(valid_auroc=path["valid_auroc"].round(12))
    by = ["valid_auroc", "valid_loss"]
    return int(rounded.sort_values(by, ascending=[False, True], kind="stable").index[0])


def solve_with_views(
    plain: LinearHead,
    features: np.ndarray,
    views: np.ndarray,
    labels: np.ndarray,
    valid_features: np.ndarray,
    valid_labels: np.ndarray,
    balance: str,
) -> LinearHead:
    """Solves a head on images and their augmented views, which weigh as one image together.

    Only strengths near that of `plain` are tried.

    Args:
        plain: head of the same images without views.
        features: float [N, F].
        views: float [V, N, F].
        labels: int [N], int8 or float32 [N, K], see `solve`.
        valid_features: float [M, F].
        valid_labels: as `labels`, [M] or [M, K].
        balance: see `solve`.
    """
    at = int(np.flatnonzero(plain.path["chosen"])[0])
    near = STRENGTHS[max(at + NEAR[0], 0) : at + NEAR[1]]
    versions = 1 + len(views)
    return solve(
        np.concatenate([features, *views]),
        np.concatenate([labels] * versions),
        valid_features,
        valid_labels,
        balance,
        near,
        versions,
    )


def better(plain: LinearHead, augmented: LinearHead) -> LinearHead:
    """Returns the better of two heads on validation, by the rule of `solve`; ties are for `plain`.

    Its path has the rows of both.
    """
    best = max(plain, augmented, key=_rank)
    path = pd.concat([plain.path, augmented.path], ignore_index=True)
    path["chosen"] &= path["views"] == best.views
    return LinearHead(best.weight, best.bias, path)


def _rank(head: LinearHead) -> tuple[float, float]:
    chosen = head.path[head.path["chosen"]].iloc[0]
    return round(chosen["valid_auroc"], 12), -chosen["valid_loss"]


def weighted_rows(
    labels: np.ndarray, balance: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns rows to fit a classifier on: their images, classes and weights, each [R].

    Labels int [N] are a row an image, without weights. Shares of readers, float32 [N, K] of
    classes or [N] of a finding, are a row for each class of an image, weighted by its share; with
    a `balance` also by inverse frequency of the class.
    """
    if not np.issubdtype(labels.dtype, np.floating):
        return np.arange(len(labels)), labels, None
    shares = labels if labels.ndim == 2 else np.stack([1 - labels, labels], axis=1)
    rows, codes = np.nonzero(shares > 0)
    weights = shares[rows, codes].astype(np.float64)
    if balance != "none":
        counts = shares.sum(axis=0, dtype=np.float64)
        weights *= (counts.sum() / ((counts > 0).sum() * np.maximum(counts, 1e-12)))[codes]
    return rows, codes, weights


class _Solver:
    """Logistic regression of one label, warm-started from its last solution."""

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        balance: str,
        weights: np.ndarray | None,
    ) -> None:
        self._features, self._labels, self._weights = features, labels, weights
        self._regression = LogisticRegression(
            max_iter=MOST_ITERATIONS,
            warm_start=True,
            # weights of rows already balance the classes
            class_weight=None if balance == "none" or weights is not None else "balanced",
        )

    def solve(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Solves for weight [K, F] and bias [K] of classes, [1, F] and [1] of a finding.

        A finding of all images, or of none, has zero weights.
        """
        if len(np.unique(self._labels)) < 2:
            share = (self._labels.sum() + 1) / (len(self._labels) + 2)
            return np.zeros((1, self._features.shape[1])), np.array([logit(share)])
        self._regression.set_params(C=strength).fit(self._features, self._labels, self._weights)
        return self._regression.coef_, self._regression.intercept_


def _flattens(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", node.target) == "flatten"
